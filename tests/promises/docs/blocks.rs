//! The code blocks of a page, each with the role that its info string gives it.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::pages::DocPage;

/// A code block.
#[derive(Debug)]
pub(super) struct CodeBlock {
    /// The path of its page.
    pub(super) page: String,
    /// The line of its fence.
    pub(super) line: usize,
    /// The role of the block, or the reason for which that is unknown.
    pub(super) role: Result<BlockRole, String>,
    /// The file that a reader writes it to, in the folder that the commands before it lead to.
    #[cfg_attr(
        not(feature = "machine"),
        expect(dead_code, reason = "only a page that is really run writes it")
    )]
    pub(super) file: Option<String>,
    /// The content of the block.
    pub(super) text: String,
}

/// The role of a code block in the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlockRole {
    /// A whole configuration, which must pass the check.
    Configuration,
    /// A part of a configuration, which must pass the check in its frame.
    Fragment {
        /// The frame that it completes.
        frame: String,
        /// True when the modules that it names are to be loaded.
        modules: bool,
    },
    /// Commands that are run in the folder of the page, in order.
    Run {
        /// True when they need a registry of packages.
        online: bool,
    },
    /// Commands that are only parsed.
    CommandLines,
    /// The output of the commands before it.
    Output,
    /// A single JSON value.
    JsonValue,
    /// A JSON value on each line.
    JsonLines,
    /// Lines that the collector must take.
    JsonPost,
    /// A file that the commands of the page use.
    File,
    /// The repetition of a block of another page.
    SameAs(String),
    /// The content of a file of the repository.
    Included(String),
    /// A drawing, or a form with placeholders.
    Picture,
    /// Not to be checked, for a reason.
    Skipped(String),
}

impl BlockRole {
    /// Returns the word that stands for the role in a count.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Fragment { .. } => "fragment",
            Self::Run { .. } => "run",
            Self::CommandLines => "command lines",
            Self::Output => "output",
            Self::JsonValue | Self::JsonLines | Self::JsonPost => "json",
            Self::File => "file",
            Self::SameAs(_) => "same",
            Self::Included(_) => "included",
            Self::Picture => "picture",
            Self::Skipped(_) => "skipped",
        }
    }
}

impl CodeBlock {
    /// Returns page and line, as editors understand them.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

/// Finds the code blocks of a page, in order.
pub(super) fn of(page: &DocPage) -> Vec<CodeBlock> {
    let mut blocks: Vec<CodeBlock> = Vec::new();
    let mut inside = false;
    for (event, range) in Parser::new_ext(&page.text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                inside = true;
                let line = page.text[..range.start].matches('\n').count() + 1;
                let attributes = match &kind {
                    CodeBlockKind::Fenced(info) => Attributes::parse(info),
                    CodeBlockKind::Indented => {
                        Err("an indented code block has no info string: fence it".to_owned())
                    }
                };
                let file = attributes.as_ref().ok().and_then(|found| found.value("file"));
                let role = attributes.and_then(|found| found.role());
                blocks.push(CodeBlock { page: page.path.clone(), line, role, file, text: String::new() });
            }
            Event::Text(text) if inside => blocks.last_mut().expect("a block has begun").text += &text,
            Event::End(TagEnd::CodeBlock) => inside = false,
            _ => {}
        }
    }
    blocks
}

/// The words of an info string: a language, and names with or without a value.
#[derive(Debug)]
struct Attributes {
    language: String,
    names: Vec<(String, Option<String>)>,
}

impl Attributes {
    fn parse(info: &str) -> Result<Self, String> {
        let mut rest = info.trim();
        let mut words = Vec::new();
        while !rest.is_empty() {
            let end = rest.find([' ', '=']).unwrap_or(rest.len());
            let name = rest[..end].to_owned();
            rest = &rest[end..];
            let mut value = None;
            if let Some(behind) = rest.strip_prefix("=\"") {
                let close = behind.find('"').ok_or_else(|| format!("a quote is not closed in {info:?}"))?;
                value = Some(behind[..close].to_owned());
                rest = &behind[close + 1..];
            } else if let Some(behind) = rest.strip_prefix('=') {
                let end = behind.find(' ').unwrap_or(behind.len());
                value = Some(behind[..end].to_owned());
                rest = &behind[end..];
            }
            words.push((name, value));
            rest = rest.trim_start();
        }
        if words.is_empty() {
            return Err("the block has no info string: give it a language and a role".to_owned());
        }
        let (language, _) = words.remove(0);
        Ok(Self { language, names: words })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|(known, value)| known == name && value.is_none())
    }

    fn value(&self, name: &str) -> Option<String> {
        self.names.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone())
    }

    fn role(&self) -> Result<BlockRole, String> {
        let mut roles = Vec::new();
        let language = self.language.as_str();
        for (name, value) in &self.names {
            let role = match (language, name.as_str(), value) {
                ("toml", "check", None) => BlockRole::Configuration,
                ("toml", "in", Some(frame)) => {
                    BlockRole::Fragment { frame: frame.clone(), modules: self.has("modules") }
                }
                ("sh", "run", None) => BlockRole::Run { online: self.has("online") },
                ("sh", "cli", None) => BlockRole::CommandLines,
                ("text", "output", None) => BlockRole::Output,
                ("json", "check", None) => BlockRole::JsonValue,
                ("json", "lines", None) => BlockRole::JsonLines,
                ("json", "post", None) => BlockRole::JsonPost,
                (_, "same-as", Some(page)) => BlockRole::SameAs(page.clone()),
                (_, "include", Some(path)) => BlockRole::Included(path.clone()),
                ("text", "picture", None) => BlockRole::Picture,
                (_, "skip", Some(reason)) if !reason.is_empty() => BlockRole::Skipped(reason.clone()),
                (_, "file", Some(_)) | ("toml", "modules", None) | ("sh", "online", None) => continue,
                _ => return Err(format!("`{name}` means nothing for {language}")),
            };
            roles.push(role);
        }
        match roles.len() {
            0 if self.value("file").is_some() => Ok(BlockRole::File),
            1 => Ok(roles.remove(0)),
            0 => Err(format!(
                "the block of {language} has no role: see docs/src/contributing/build-and-test.md"
            )),
            _ => Err("the block has several roles".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(info: &str, expected: Result<BlockRole, &str>) {
        let role = Attributes::parse(info).and_then(|attributes| attributes.role());
        match expected {
            Ok(expected) => assert_eq!(role, Ok(expected), "{info}"),
            Err(words) => assert!(role.clone().is_err_and(|fault| fault.contains(words)), "{info}: {role:?}"),
        }
    }

    #[test]
    fn an_info_string_gives_one_role() {
        check("toml check", Ok(BlockRole::Configuration));
        check("toml check file=\"a b.toml\"", Ok(BlockRole::Configuration));
        check("toml in=agent", Ok(BlockRole::Fragment { frame: "agent".to_owned(), modules: false }));
        check("sh run online", Ok(BlockRole::Run { online: true }));
        check("sh skip=\"needs a device\"", Ok(BlockRole::Skipped("needs a device".to_owned())));
        check("rust file=\"src/lib.rs\"", Ok(BlockRole::File));
        check("sh", Err("no role"));
        check("", Err("no info string"));
        check("sh skip=\"\"", Err("means nothing"));
        check("sh run cli", Err("several"));
        check("toml run", Err("means nothing"));
        check("sh skip=\"never closed", Err("not closed"));
    }

    #[test]
    fn blocks_are_found_in_lists_and_indented_ones_are_faults() {
        let text = "# A\n\n1. One:\n\n   ```sh run\n   ls\n   ```\n\ntext\n\n    indented\n".to_owned();
        let blocks = of(&DocPage { path: "a.md".to_owned(), text });
        assert_eq!(blocks.len(), 2, "{blocks:?}");
        assert_eq!(blocks[0].role, Ok(BlockRole::Run { online: false }));
        assert_eq!(blocks[0].text, "ls\n");
        assert_eq!(blocks[0].place(), "a.md:5");
        assert!(blocks[1].role.is_err(), "{blocks:?}");
    }
}
