//! Links between documents, and to files of the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::pages::{BOOK, DocPage, root};

/// The page that lists the others.
const SUMMARY: &str = "docs/src/SUMMARY.md";

/// Names each relative link whose file or anchor is not there.
pub(super) fn faults(pages: &[DocPage]) -> Vec<String> {
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_str(), anchors(&page.text))).collect();
    let mut faults = Vec::new();
    for page in pages {
        for link in links(&page.text) {
            if let Err(fault) = follow(page, &link, &anchors) {
                faults.push(format!("{}: {link}: {fault}", page.path));
            }
        }
    }
    faults
}

/// Names the pages that the summary lacks or has twice.
pub(super) fn summary_faults(pages: &[DocPage]) -> Vec<String> {
    let summary = pages.iter().find(|page| page.path == SUMMARY).expect("the book has a summary");
    let mut listed: BTreeMap<String, usize> = BTreeMap::new();
    for link in links(&summary.text) {
        *listed.entry(format!("{BOOK}{link}")).or_default() += 1;
    }
    let of_the_book = pages.iter().filter(|page| page.path.starts_with(BOOK) && page.path != SUMMARY);
    let counted = of_the_book.map(|page| (&page.path, listed.get(&page.path).copied().unwrap_or(0)));
    let wrong = counted.filter(|(_, times)| *times != 1);
    wrong.map(|(path, times)| format!("{path} is in the summary {times} times")).collect()
}

/// Names the paths of source files in code font that lead to no file; a map may begin them at a crate.
pub(super) fn path_faults(pages: &[DocPage]) -> Vec<String> {
    let root = root();
    let starts = ["", "agent/src/", "cli/src/", "collector/src/", "author/src/", "demo/src/"];
    let mut faults = Vec::new();
    for page in pages {
        for path in code_spans(&page.text).iter().filter(|span| is_source_path(span)) {
            let in_a_crate = path.split_once('/').map(|(name, rest)| format!("crates/{name}/src/{rest}"));
            let candidates = starts.iter().map(|start| format!("{start}{path}")).chain(in_a_crate);
            if !candidates.into_iter().any(|candidate| root.join(candidate).exists()) {
                faults.push(format!("{}: `{path}`: there is no such file", page.path));
            }
        }
    }
    faults
}

fn is_source_path(span: &str) -> bool {
    let plain = span.chars().all(|character| character.is_ascii_alphanumeric() || "/._-".contains(character));
    let known = ["agent/", "author/", "cli/", "collector/", "crates/", "demo/", "deploy/", "docs/", "tests/"];
    let of_the_root = known.iter().any(|start| span.starts_with(start));
    let is_file = span.rsplit('/').next().is_some_and(|name| name.contains('.'));
    let is_placeholder = span.contains("NAME") || span.starts_with("src/");
    plain && span.contains('/') && is_file && (span.ends_with(".rs") || of_the_root) && !is_placeholder
}

/// Finds the metrics that pages name in code font, with braces opened: the page and the name. What is history may
/// name those that are no more.
pub(super) fn metrics(pages: &[DocPage]) -> Vec<(String, String)> {
    let named = pages.iter().filter(|page| page.path != "CHANGELOG.md").flat_map(|page| {
        let spans = code_spans(&page.text).into_iter().filter(|span| span.starts_with("headwater_"));
        let names = spans.flat_map(|span| open_braces(&span));
        names.filter(|name| is_metric(name)).map(|name| (page.path.clone(), name)).collect::<Vec<_>>()
    });
    named.collect()
}

/// Tells a metric from a Rust path, a form with placeholders and a whole prefix.
fn is_metric(name: &str) -> bool {
    let plain = name.chars().all(|character| character.is_ascii_lowercase() || character == '_');
    plain && name.matches('_').count() > 1
}

/// Writes out what braces leave to choose, as a shell does.
fn open_braces(text: &str) -> Vec<String> {
    let opened = text.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (choices, tail))) = opened else { return vec![text.to_owned()] };
    let tails = open_braces(tail);
    let choices =
        choices.split(',').flat_map(|choice| tails.iter().map(move |tail| format!("{head}{choice}{tail}")));
    choices.collect()
}

fn code_spans(text: &str) -> Vec<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let spans = events.filter_map(|event| match event {
        Event::Code(code) => Some(code.into_string()),
        _ => None,
    });
    spans.collect()
}

fn follow(page: &DocPage, link: &str, anchors: &BTreeMap<&str, BTreeSet<String>>) -> Result<(), String> {
    if link.starts_with("https://") {
        return Ok(());
    }
    if link.contains("://") || link.starts_with("mailto:") {
        return Err("it is no https link".to_owned());
    }
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    let target = if path.is_empty() { page.path.clone() } else { resolve(&page.path, path)? };
    if !Path::new(&root()).join(&target).exists() {
        return Err(format!("there is no {target}"));
    }
    if page.path.starts_with(BOOK) && !(target.starts_with(BOOK) && anchors.contains_key(&*target)) {
        return Err("it leads out of the book: name the file in code font instead".to_owned());
    }
    match anchor {
        Some(anchor) if !anchors.get(&*target).is_some_and(|known| known.contains(anchor)) => {
            Err(format!("{target} has no heading for it"))
        }
        _ => Ok(()),
    }
}

/// Follows a relative path from a page.
fn resolve(page: &str, path: &str) -> Result<String, String> {
    let mut folders: Vec<&str> = page.split('/').collect();
    folders.pop();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match part {
            "." => {}
            ".." => drop(folders.pop().ok_or("it leads out of the repository")?),
            part => folders.push(part),
        }
    }
    Ok(folders.join("/"))
}

fn links(text: &str) -> Vec<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let found = events.filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some(dest_url.into_string())
        }
        _ => None,
    });
    found.collect()
}

/// Returns the names under which the headings of a page can be linked to, as mdBook makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    *heading += &text;
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap_or_default());
                let count = counts.entry(name.clone()).or_default();
                anchors.insert(if *count == 0 { name } else { format!("{name}-{count}") });
                *count += 1;
            }
            _ => {}
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|character| match character {
        character if character.is_alphanumeric() || matches!(character, '_' | '-') => {
            Some(character.to_lowercase().to_string())
        }
        character if character.is_whitespace() => Some("-".to_owned()),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> DocPage {
        DocPage { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let text = "# A `b`, c\n\n[good](#a-b-c) [away](https://example.com) [bad](#d) [none](nowhere.md) \
                    [plain](http://example.com) [out](../../README.md)\n";
        let faults = faults(&[page("docs/src/introduction.md", text), page("README.md", "# R\n")]);
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("no heading") && faults[1].contains("nowhere.md"), "{faults:?}");
        assert!(faults[2].contains("no https") && faults[3].contains("out of the book"), "{faults:?}");
    }

    #[test]
    fn a_path_that_leads_to_no_file_is_found() {
        let text =
            "`store/lib.rs` `tests/promises/docs.rs` `deploy/nothing.conf` `store/nowhere.rs` `a/b` `x.rs`\n";
        let faults = path_faults(&[page("README.md", text)]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("nothing.conf") && faults[1].contains("nowhere.rs"), "{faults:?}");
    }

    #[test]
    fn metrics_are_found_with_their_braces_opened() {
        let found =
            metrics(&[page("a.md", "`headwater_a_{b,c_d}_total` `headwater_module::state` `headwater`\n")]);
        let names: Vec<_> = found.into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["headwater_a_b_total", "headwater_a_c_d_total"]);
    }

    #[test]
    fn a_page_that_is_not_listed_is_found() {
        let pages =
            [page(SUMMARY, "[One](one.md)\n"), page("docs/src/one.md", ""), page("docs/src/two.md", "")];
        assert_eq!(summary_faults(&pages), ["docs/src/two.md is in the summary 0 times"]);
    }
}
