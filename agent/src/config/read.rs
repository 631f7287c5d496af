//! Reads a TOML tree key by key and keeps every fault, with its place and its remedy.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Everything that is wrong with one configuration file.
#[derive(Debug)]
pub struct Faults {
    file: PathBuf,
    text: String,
    faults: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    span: Range<usize>,
    message: String,
    remedy: String,
}

impl Faults {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), faults: Vec::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.faults.len()
    }

    /// Line and column, counted from 1, columns in characters.
    fn place(&self, at: usize) -> (usize, usize, &str) {
        let at = at.min(self.text.len());
        let start = self.text[..at].rfind('\n').map_or(0, |feed| feed + 1);
        let line = self.text[..at].matches('\n').count() + 1;
        let column = self.text[start..at].chars().count() + 1;
        let end = self.text[at..].find('\n').map_or(self.text.len(), |feed| at + feed);
        (line, column, &self.text[start..end])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            let (line, column, source) = self.place(fault.span.start);
            let width = self
                .text
                .get(fault.span.clone())
                .map_or(1, |text| text.lines().next().map_or(1, |first| first.chars().count()).max(1));
            writeln!(f, "{}:{line}:{column}: {}", self.file.display(), fault.message)?;
            if !source.trim().is_empty() {
                let gutter = line.to_string();
                writeln!(f, "  {gutter} | {source}")?;
                writeln!(f, "  {:1$} | {2:3$}{4}", "", gutter.len(), "", column - 1, "^".repeat(width))?;
            }
            writeln!(f, "  remedy: {}", fault.remedy)?;
        }
        let faults = if self.faults.len() == 1 { "fault" } else { "faults" };
        write!(f, "{}: {} {faults}", self.file.display(), self.faults.len())
    }
}

impl std::error::Error for Faults {}

/// Collects faults from many borrowers at once.
pub(super) struct Report(RefCell<Faults>);

impl Report {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        Self(RefCell::new(Faults::new(file, text)))
    }

    pub(super) fn fault(&self, span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) {
        let fault = Fault { span, message: message.into(), remedy: remedy.into() };
        self.0.borrow_mut().faults.push(fault);
    }

    /// The faults in the order of the file, `None` if there are none.
    pub(super) fn finish(self) -> Option<Faults> {
        let mut faults = self.0.into_inner();
        faults.faults.sort_by_key(|fault| fault.span.start);
        (!faults.faults.is_empty()).then_some(faults)
    }
}

/// A value, or why there is none and what to write instead.
pub(super) type Read<T> = Result<T, (String, String)>;

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Section<'a> {
    report: &'a Report,
    /// Dotted path for messages, empty at the root.
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
    /// Old names that were found, and reported.
    renamed: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(report: &'a Report, path: String, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { report, path, span, table, known: Vec::new(), renamed: Vec::new() }
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn fault(&self, message: impl fmt::Display, remedy: impl Into<String>) {
        self.report.fault(self.span(), format!("{} {message}", self.place()), remedy);
    }

    fn place(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.path) }
    }

    /// A fault of what its parts say together.
    pub(super) fn fault_of_all(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.report.fault(self.span(), message, remedy);
    }

    pub(super) fn fault_at(&self, key: &'static str, message: impl fmt::Display, remedy: impl Into<String>) {
        let span = self.table.get(key).map_or(self.span(), Spanned::span);
        self.report.fault(span, format!("`{}` {message}", self.name(key)), remedy);
    }

    /// The value of a key that must be there; a fault otherwise.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'a>) -> Read<T>,
    ) -> Option<T> {
        let value = self.take(key);
        if value.is_none() {
            self.fault(format_args!("has no `{key}`"), format!("add `{key} = ...`"));
        }
        self.read(key, value?, read)
    }

    /// The value of a key, or its default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl Fn(&DeValue<'a>) -> Read<T>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The value of a key that may be missing.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'a>) -> Read<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        self.read(key, value, read)
    }

    /// Reports a key by a name that it had once.
    pub(super) fn renamed(&mut self, old: &'static str, new: &'static str) {
        if self.has(old) {
            self.fault_at(old, format!("is now called `{new}`"), format!("write `{new}`"));
            self.renamed.push(old);
        }
    }

    /// Whether there is something under that key, right or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The text under a key that may hold something else.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.table.get(key)?.get_ref().as_str()
    }

    /// A table that must be there.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let section = self.optional_section(key);
        if !self.table.contains_key(key) {
            let remedy = if self.path.is_empty() {
                format!("add a [{key}] table")
            } else {
                format!("add `{key} = {{ ... }}`")
            };
            self.fault(format_args!("has no `{key}`"), remedy);
        }
        section
    }

    /// A table that may be missing.
    pub(super) fn optional_section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        self.as_section(self.name(key), value)
    }

    /// The tables of an array that may be missing.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.fault_at(key, "is no array", format!("write `{key} = [{{ ... }}]`"));
            return Vec::new();
        };
        let named =
            items.iter().enumerate().map(|(index, item)| (format!("{}[{index}]", self.name(key)), item));
        named.filter_map(|(name, item)| self.as_section(name, item)).collect()
    }

    /// What an array that must be there, and not empty, holds.
    pub(super) fn items(&mut self, key: &'static str) -> Vec<Item<'a>> {
        let Some(items) = self.take(key).and_then(|value| value.get_ref().as_array()) else {
            self.fault_at(key, "is no array", format!("write `{key} = [ ... ]`"));
            return Vec::new();
        };
        if items.is_empty() {
            self.fault_at(key, "is empty", "write at least one");
        }
        let name = |index: usize| format!("{}[{index}]", self.name(key));
        items
            .iter()
            .enumerate()
            .map(|(at, value)| Item { report: self.report, name: name(at), value })
            .collect()
    }

    /// The tables `[key.NAME]`, by name.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(table) = self.section(key) else { return Vec::new() };
        let mut named = Vec::new();
        for (name, value) in table.table {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.get_ref().is_empty() || name.get_ref().len() > 64 || !name.get_ref().bytes().all(plain) {
                let message = format!("`{}` is no name for one of [{key}]", name.get_ref());
                self.report.fault(name.span(), message, "use up to 64 letters, digits, `-` and `_`");
            }
            let path = format!("{key}.{}", name.get_ref());
            named.extend(self.as_section(path, value).map(|section| (name.get_ref().to_string(), section)));
        }
        if table.table.is_empty() {
            table.fault("is empty", format!("add a [{key}.NAME] table"));
        }
        named
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) || self.renamed.contains(&name) {
                continue;
            }
            let close = self.known.iter().map(|known| (strsim::damerau_levenshtein(known, name), known));
            let remedy = match close.min() {
                Some((distance, known)) if distance <= 2 => format!("did you mean `{known}`?"),
                _ => format!("remove it; known here are: {}", self.known.join(", ")),
            };
            self.report.fault(key.span(), format!("`{}` is unknown", self.name(name)), remedy);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn read<T>(
        &self,
        key: &'static str,
        value: &'a Spanned<DeValue<'a>>,
        read: impl Fn(&DeValue<'a>) -> Read<T>,
    ) -> Option<T> {
        match read(value.get_ref()) {
            Ok(value) => Some(value),
            Err((message, remedy)) => {
                self.report.fault(value.span(), format!("`{}` {message}", self.name(key)), remedy);
                None
            }
        }
    }

    fn as_section(&self, path: String, value: &'a Spanned<DeValue<'a>>) -> Option<Section<'a>> {
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(self.report, path, value.span(), table)),
            None => {
                let message = format!("`{path}` is {}, not a table", kind(value.get_ref()));
                self.report.fault(value.span(), message, "write `{ key = value, ... }`");
                None
            }
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// One value of an array.
pub(super) struct Item<'a> {
    report: &'a Report,
    name: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    pub(super) fn fault(&self, message: impl fmt::Display, remedy: impl Into<String>) {
        self.report.fault(self.value.span(), format!("`{}` {message}", self.name), remedy);
    }

    /// The table that it must be.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let Some(table) = self.value().as_table() else {
            self.fault(
                format_args!("is {}, not a table", kind(self.value())),
                "write `{ key = value, ... }`",
            );
            return None;
        };
        Some(Section::new(self.report, self.name.clone(), self.value.span(), table))
    }
}

pub(super) fn kind(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// Text that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Read<String> {
    match value.as_str() {
        Some("") => Err(("is empty".into(), "write some text between the quotes".into())),
        Some(text) => Ok(text.to_owned()),
        None => Err((format!("is {}, not text", kind(value)), "put it in quotes".into())),
    }
}

/// A list of texts with at least one.
pub(super) fn texts(value: &DeValue<'_>) -> Read<Vec<String>> {
    let remedy = || r#"write a list of texts: ["one", "two"]"#.to_owned();
    let Some(items) = value.as_array() else {
        return Err((format!("is {}, not a list", kind(value)), remedy()));
    };
    let items: Option<Vec<String>> = items
        .iter()
        .map(|item| item.get_ref().as_str().filter(|text| !text.is_empty()).map(str::to_owned))
        .collect();
    match items {
        Some(items) if !items.is_empty() => Ok(items),
        Some(_) => Err(("is empty".into(), remedy())),
        None => Err(("holds something that is no text".into(), remedy())),
    }
}

pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| (format!("is {}", kind(value)), "write true or false".into()))
}

/// A whole number within bounds.
pub(super) fn integer(range: std::ops::RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Read<u64> {
    move |value| {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = value.as_integer() else { return Err((format!("is {}", kind(value)), remedy)) };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(number),
            None => Err((format!("is {}, which is out of range", integer.as_str()), remedy)),
        }
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Read<T> {
    move |value| {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        let is = value.as_str().map_or_else(|| kind(value), |text| format!("{text:?}"));
        found
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| (format!("is {is}"), format!("use {}", known.join(" or "))))
    }
}

/// A duration within bounds: a whole number and a unit.
pub(super) fn duration(min: Duration, max: Duration) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    const UNITS: [(&str, u64); 6] = [
        ("us", 1),
        ("ms", 1_000),
        ("s", 1_000_000),
        ("m", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ];
    move |value| {
        let remedy = format!(
            "write a duration from {min:?} to {max:?} such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"7d\""
        );
        let micros = value.as_str().and_then(|text| scaled(text, &UNITS));
        let Some(duration) = micros.map(Duration::from_micros) else {
            return Err(("is no duration".into(), remedy));
        };
        if (min..=max).contains(&duration) { Ok(duration) } else { Err(("is out of range".into(), remedy)) }
    }
}

/// A size within bounds, in bytes: a whole number and a unit.
pub(super) fn size(min: usize, max: usize) -> impl Fn(&DeValue<'_>) -> Read<usize> {
    const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    move |value| {
        let remedy =
            format!("write a size from {} to {} such as \"64 KiB\" or \"8 MiB\"", bytes(min), bytes(max));
        let size = value.as_str().and_then(|text| scaled(text, &UNITS));
        let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else {
            return Err(("is no size".into(), remedy));
        };
        if (min..=max).contains(&size) { Ok(size) } else { Err(("is out of range".into(), remedy)) }
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn bytes(size: usize) -> String {
    match size {
        size if size >= 1 << 30 && size % (1 << 30) == 0 => format!("{} GiB", size >> 30),
        size if size >= 1 << 20 && size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 && size % (1 << 10) == 0 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}
