//! The language of the code, measured against limits that only ever go down.
//!
//! `docs/src/contributing/words.md` has the rules and the goals, `docs/src/glossary.md` the words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The limits as they are now. The goals: under 3 %, under 1 %, under 30 %, under 10 %, none, none.
const LIMITS: LanguageLimits = LanguageLimits {
    relative_openers: 0.1,
    particle_openers: 0.038,
    one_word_types: 0.41,
    shared_type_names: 0.16,
    tuple_lets: 130,
    forbidden_names: 2,
};

/// Words that open a clause where a doc comment needs a verb or a noun.
const RELATIVE: [&str; 9] = ["what", "whether", "where", "how", "why", "who", "when", "which", "whose"];
/// Bare particles, which open half a sentence.
const PARTICLES: [&str; 11] =
    ["of", "it", "one", "some", "its", "for", "from", "with", "until", "beyond", "past"];

/// The most that is allowed of each measure.
struct LanguageLimits {
    /// Share of doc comments that open with a relative word.
    relative_openers: f64,
    /// Share of doc comments that open with a bare particle.
    particle_openers: f64,
    /// Share of type names that are one word.
    one_word_types: f64,
    /// Share of types whose name another type has, too.
    shared_type_names: f64,
    /// Bindings of a tuple to a tuple.
    tuple_lets: usize,
    /// Public names with a word that the glossary has for nothing or for something else.
    forbidden_names: usize,
}

/// The counts of a set of files.
#[derive(Debug, Default)]
struct LanguageMeasure {
    doc_comments: usize,
    relative_openers: Vec<String>,
    particle_openers: Vec<String>,
    types: Vec<String>,
    tuple_lets: Vec<String>,
    public_names: Vec<String>,
}

#[test]
fn the_code_is_written_in_plain_words() {
    let measure = LanguageMeasure::of_files(&sources());
    assert!(measure.doc_comments > 1_000 && measure.types.len() > 100, "the code is not found any more");
    let one_word = measure.types.iter().filter(|name| words(name).len() < 2).count();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &measure.types {
        *uses.entry(name).or_default() += 1;
    }
    let shared: usize = uses.values().filter(|&&count| count > 1).sum();
    let forbidden = forbidden_names(&measure.public_names);
    let docs = measure.doc_comments as f64;
    let types = measure.types.len() as f64;
    let shares = [
        ("relative openers", measure.relative_openers.len() as f64 / docs, LIMITS.relative_openers),
        ("particles", measure.particle_openers.len() as f64 / docs, LIMITS.particle_openers),
        ("one-word types", one_word as f64 / types, LIMITS.one_word_types),
        ("type names used twice or more", shared as f64 / types, LIMITS.shared_type_names),
        ("tuple-lets", measure.tuple_lets.len() as f64, LIMITS.tuple_lets as f64),
        ("forbidden public names", forbidden.len() as f64, LIMITS.forbidden_names as f64),
    ];
    let mut faults = Vec::new();
    for (what, found, limit) in shares {
        println!("{what}: {found:.3}, at most {limit:.3}");
        if found > limit {
            faults.push(format!("{what}: {found:.3} is over the limit of {limit:.3}"));
        }
    }
    let examples = [
        ("relative openers", &measure.relative_openers),
        ("particles", &measure.particle_openers),
        ("tuple-lets", &measure.tuple_lets),
        ("forbidden public names", &forbidden),
    ];
    for (what, places) in examples {
        let last = &places[places.len().saturating_sub(5)..];
        println!("{what}, the last of {}: {last:?}", places.len());
    }
    assert!(faults.is_empty(), "{}: see docs/src/contributing/words.md", faults.join("; "));
}

impl LanguageMeasure {
    fn of_files(files: &[PathBuf]) -> Self {
        let mut measure = Self::default();
        for file in files {
            let text = fs::read_to_string(file).expect("a source file can be read");
            let shown = file.strip_prefix(root()).unwrap_or(file).display().to_string();
            measure.take(&shown, without_tests(&text));
        }
        measure
    }

    fn take(&mut self, file: &str, text: &str) {
        let mut inside = false;
        for (index, line) in text.lines().enumerate() {
            let comment = line.trim_start().strip_prefix("///");
            if let (Some(comment), false) = (comment, inside) {
                self.doc_comments += 1;
                let place = format!("{file}:{}", index + 1);
                let opener = opener(comment);
                if RELATIVE.contains(&&*opener) {
                    self.relative_openers.push(place);
                } else if PARTICLES.contains(&&*opener) {
                    self.particle_openers.push(place);
                }
            }
            inside = comment.is_some();
            self.types.extend(type_name(line));
            self.public_names.extend(public_name(line).map(|name| format!("{name} in {file}:{}", index + 1)));
        }
        let lets = tuple_lets(text);
        self.tuple_lets.extend(lets.into_iter().map(|line| format!("{file}:{line}")));
    }
}

/// Returns the first word of a doc comment.
fn opener(comment: &str) -> String {
    let word = comment.trim_start().trim_start_matches(['`', '[', '*']);
    let end = word.find(|character: char| !character.is_ascii_alphabetic() && character != '\'');
    word[..end.unwrap_or(word.len())].to_lowercase()
}

/// Returns the name of the type that a line at the margin declares.
fn type_name(line: &str) -> Option<String> {
    let rest = without_visibility(line);
    let kinds = ["struct ", "enum ", "trait "];
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    Some(identifier(rest).to_owned())
}

/// Returns the public name that a line declares: of an item, or of a field.
fn public_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    let mut rest = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub("))?;
    if line.starts_with("pub(") {
        rest = rest.split_once(") ")?.1;
    }
    let mut words = rest.split(' ');
    let kinds = ["fn", "struct", "enum", "trait", "mod", "const", "static", "type", "async", "unsafe"];
    let mut word = words.next()?;
    while kinds.contains(&word) {
        word = words.next()?;
    }
    // What is used under another crate's name is that crate's.
    if word == "use" {
        return None;
    }
    Some(identifier(word).to_owned()).filter(|name| !name.is_empty())
}

fn without_visibility(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else { return line };
    match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => rest.trim_start(),
        None => rest.trim_start(),
    }
}

fn identifier(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Splits a name in snake case or camel case into its words.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before_is_lower = false;
    for character in name.chars() {
        let begins = character.is_uppercase() && before_is_lower;
        if character == '_' {
            words.push(String::new());
        } else {
            if begins || words.is_empty() {
                words.push(String::new());
            }
            words.last_mut().expect("a word was begun").extend(character.to_lowercase());
        }
        before_is_lower = character.is_lowercase() || character.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the lines of bindings of a tuple to a tuple.
fn tuple_lets(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    for (start, _) in text.match_indices("let ") {
        let rest = &text[start + 4..];
        let rest = rest.strip_prefix("mut ").unwrap_or(rest);
        let Some(behind) = rest.strip_prefix('(').and_then(behind_parentheses) else { continue };
        let Some(behind) = behind_type(behind) else { continue };
        if behind.trim_start().starts_with('(') {
            lines.push(text[..start].matches('\n').count() + 1);
        }
    }
    lines
}

/// Skips to behind the parenthesis that closes the one before the text.
fn behind_parentheses(text: &str) -> Option<&str> {
    let mut depth = 1;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[index + 1..]);
        }
    }
    None
}

/// Skips a type and the equals sign of a binding.
fn behind_type(text: &str) -> Option<&str> {
    if let Some(behind) = text.strip_prefix(" =") {
        return (!behind.starts_with(['=', '>'])).then_some(behind);
    }
    let end = text.strip_prefix(':')?.find(['=', ';'])? + 1;
    text[end..].strip_prefix('=')
}

/// Names the public names with a word from the last column of the glossary.
fn forbidden_names(names: &[String]) -> Vec<String> {
    let glossary = fs::read_to_string(root().join("docs/src/glossary.md")).expect("the glossary is there");
    let forbidden = forbidden_words(&glossary);
    assert!(forbidden.contains("source"), "the glossary's last column is not found any more: {forbidden:?}");
    let is_forbidden = |name: &&String| {
        // "Under way" is no way.
        let name = identifier(name).replace("under_way", "");
        words(&name).iter().any(|word| forbidden.contains(word))
    };
    names.iter().filter(is_forbidden).cloned().collect()
}

/// Reads the last column of the glossary's tables.
fn forbidden_words(glossary: &str) -> BTreeSet<String> {
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let words = cells.flat_map(|cell| cell.split(',')).map(|word| word.trim().to_owned());
    words.filter(|word| !word.is_empty() && word != "not" && !word.starts_with("---")).collect()
}

/// Cuts a file off before its tests.
fn without_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(found) = text[from..].find("#[cfg(test)]") {
        let start = from + found;
        let behind = text[start..].trim_start_matches("#[cfg(test)]").trim_start();
        let behind = behind.strip_prefix("pub ").unwrap_or(behind);
        if behind.strip_prefix("mod ").is_some_and(|rest| rest[identifier(rest).len()..].starts_with(" {")) {
            return &text[..start];
        }
        from = start + 1;
    }
    text
}

/// Finds the source files of the workspace and of the modules, but for their tests.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&root(), true, &mut files);
    files.sort();
    files
}

fn collect(folder: &Path, is_root: bool, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.strip_suffix(".rs").unwrap_or(name);
        let is_left_out = ["test", "tests", "benches", "hostile", "fuzz", "target"].contains(&stem)
            || name.starts_with('.')
            || stem.ends_with("_test")
            || stem.ends_with("_tests");
        if is_left_out && !(is_root && name == "tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, false, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies below the root").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measure_sees_what_it_is_for() {
        let text = "/// What is due.\n/// Whether.\npub struct Keyed;\n\n/// Of it.\npub(crate) enum PaneId {}\n\
                    /// Returns it.\npub fn source_count() {\n    let (a, b) = (1, 2);\n    let (c, d): (u8, u8) =\n        \
                    (1, 2);\n    let (e, f) = pair();\n    if let (Some(g), h) = (i, j) {}\n}\n#[cfg(test)]\nmod tests {\n    \
                    let (x, y) = (1, 2);\n}\n";
        let mut measure = LanguageMeasure::default();
        measure.take("a.rs", without_tests(text));
        assert_eq!(measure.doc_comments, 3);
        assert_eq!(measure.relative_openers, ["a.rs:1"]);
        assert_eq!(measure.particle_openers, ["a.rs:5"]);
        assert_eq!(measure.types, ["Keyed", "PaneId"]);
        assert_eq!(measure.tuple_lets, ["a.rs:9", "a.rs:10", "a.rs:13"]);
        let forbidden =
            forbidden_words("| input | in | source, way |\n| word | meaning | not |\n| --- | --- | --- |");
        assert_eq!(forbidden.into_iter().collect::<Vec<_>>(), ["source", "way"]);
        assert_eq!(forbidden_names(&measure.public_names), ["source_count in a.rs:8"]);
        assert_eq!(words("MqttInputError"), ["mqtt", "input", "error"]);
    }
}
