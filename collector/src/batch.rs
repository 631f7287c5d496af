//! The nouns that travel: a batch, its key, its lines.
//!
//! All of it is checked when it is made: whatever holds a [`Batch`] holds one that may be stored.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Longest name of an agent or a pipeline, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest key of a result, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// SHA-256.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Identity of a batch: `agent/epoch/first-last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// Who sent it.
    pub agent: String,
    /// The outbox it comes from: 32 hexadecimal digits.
    pub epoch: String,
    /// Sequence number of the first line.
    pub first: u64,
    /// Sequence number of the last line.
    pub last: u64,
}

impl BatchKey {
    /// Number of lines the batch must have.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl fmt::Display for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}-{}", self.agent, self.epoch, self.first, self.last)
    }
}

/// Reads the header's value: the key as a string of RFC 8941, so with its double quotes.
impl FromStr for BatchKey {
    type Err = &'static str;

    fn from_str(header: &str) -> Result<Self, Self::Err> {
        let text = unquote(header.trim()).ok_or("it is not a string in double quotes")?;
        let mut parts = text.rsplitn(3, '/');
        let (Some(range), Some(epoch), Some(agent)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it is not agent/epoch/first-last");
        };
        if agent.is_empty() || agent.len() > NAME_BYTES_MAX {
            return Err("the agent must have 1 to 256 bytes");
        }
        let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if epoch.len() != 32 || !epoch.bytes().all(hexadecimal) {
            return Err("the epoch must be 32 lowercase hexadecimal digits");
        }
        let (first, last) = range.split_once('-').ok_or("the range is not first-last")?;
        let (first, last) = (sequence(first)?, sequence(last)?);
        if first > last {
            return Err("the range ends before it begins");
        }
        Ok(Self { agent: agent.to_owned(), epoch: epoch.to_owned(), first, last })
    }
}

/// One spelling per number, or one batch would have several keys; SQLite's integers are signed.
fn sequence(digits: &str) -> Result<u64, &'static str> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return Err("a sequence number must be plain decimal digits");
    }
    let number = digits.parse::<i64>().map_err(|_| "a sequence number is 2^63 or more")?;
    Ok(number.unsigned_abs())
}

/// The content of an RFC 8941 string.
fn unquote(header: &str) -> Option<String> {
    let inner = header.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            ' '..='~' if c != '"' => text.push(c),
            _ => return None,
        }
    }
    Some(text)
}

/// A batch that may be stored.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its identity.
    pub key: BatchKey,
    /// Of the decoded body: the same key with another digest is a conflict.
    pub digest: [u8; 32],
    /// In order: the first has the sequence number `key.first`.
    pub lines: Vec<Line>,
}

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// What was measured.
    Result(Measured),
    /// What will never come, or not as it was.
    Report(Report),
}

/// An agent's word on records that it lost, dropped, merged or gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The pipeline it concerns; `None`: all of them.
    pub pipeline: Option<String>,
    /// When the agent noticed, in microseconds since the Unix epoch.
    pub time: i64,
    /// `lost`, `dropped`, `coarsened`, `expired`, or what a newer agent calls it.
    pub kind: String,
    /// How many records, where that is known.
    pub count: Option<i64>,
    /// The report as it was sent.
    pub value: String,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The pipeline that made it.
    pub pipeline: String,
    /// What it belongs to.
    pub key: String,
    /// What it says about time.
    pub span: Span,
    /// Digest of the module that made it.
    pub module: Option<String>,
    /// JSON, as it was sent.
    pub value: String,
}

/// What a result says about time, in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Identity: (agent, pipeline, key, start, end); the highest revision stays.
    Window(Window),
    /// Event time. Identity: (agent, epoch, sequence number).
    Event(i64),
}

/// A window and what went into its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Belongs to the window.
    pub start: i64,
    /// Does not.
    pub end: i64,
    /// Grows when late readings change the result.
    pub revision: u32,
    /// Readings used.
    pub count: i64,
    /// Of these, readings that came after the window had first closed.
    pub late: i64,
    /// Readings refused by the aggregate.
    pub rejected: i64,
}

/// Why a body is no batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A line cannot be read.
    #[error("failed to read line {line}: {reason}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line contradicts the key.
    #[error("failed to match line {line} with the key: its agent is not the key's")]
    Agent {
        /// Counted from 1.
        line: usize,
    },
    /// The number of lines contradicts the key.
    #[error("failed to match the body with the key: it has {found} lines, the key says {expected}")]
    Count {
        /// As the key says.
        expected: u64,
        /// Lines in the body.
        found: usize,
    },
}

impl Batch {
    /// Reads a decoded body.
    ///
    /// # Errors
    /// When a line is malformed, or the body contradicts its key.
    pub fn parse(key: BatchKey, body: &[u8]) -> Result<Self, BatchError> {
        let lines = body.strip_suffix(b"\n").unwrap_or(body).split(|&b| b == b'\n');
        let found = if body.is_empty() { 0 } else { lines.clone().count() };
        if found as u64 != key.lines() {
            return Err(BatchError::Count { expected: key.lines(), found });
        }
        let lines = lines
            .enumerate()
            .map(|(index, line)| Line::parse(&key.agent, index + 1, line))
            .collect::<Result<_, _>>()?;
        Ok(Self { digest: digest(body), key, lines })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(rename = "agent")]
    _agent: String,
    pipeline: String,
    key: String,
    window: Option<RawWindow>,
    time: Option<String>,
    revision: Option<u32>,
    module: Option<String>,
    count: Option<u64>,
    late: Option<u64>,
    rejected: Option<u64>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    start: String,
    end: String,
}

/// What every line has, and what tells a report from a result.
#[derive(Deserialize)]
struct Head {
    agent: String,
    report: Option<RawKind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReport<'a> {
    #[serde(rename = "agent")]
    _agent: String,
    pipeline: Option<String>,
    time: String,
    #[serde(borrow)]
    report: &'a RawValue,
}

/// What is looked at of a report; the rest of it is stored as it came.
#[derive(Deserialize)]
struct RawKind {
    kind: String,
    count: Option<u64>,
}

impl Line {
    fn parse(agent: &str, number: usize, line: &[u8]) -> Result<Self, BatchError> {
        let malformed = |reason| BatchError::Malformed { line: number, reason };
        let unread = |error: serde_json::Error| malformed(plain(&error));
        let text = str::from_utf8(line).map_err(|error| malformed(error.to_string()))?;
        let head: Head = serde_json::from_str(text).map_err(unread)?;
        if head.agent != agent {
            return Err(BatchError::Agent { line: number });
        }
        match head.report {
            Some(kind) => {
                let raw: RawReport<'_> = serde_json::from_str(text).map_err(unread)?;
                raw.check(kind).map(Self::Report).map_err(malformed)
            }
            None => {
                let raw: Raw<'_> = serde_json::from_str(text).map_err(unread)?;
                raw.check().map(Self::Result).map_err(malformed)
            }
        }
    }
}

impl RawReport<'_> {
    fn check(self, head: RawKind) -> Result<Report, String> {
        self.pipeline.as_deref().map_or(Ok(()), check_pipeline)?;
        if head.kind.is_empty() || head.kind.len() > NAME_BYTES_MAX {
            return Err("report.kind must have 1 to 256 bytes".to_owned());
        }
        Ok(Report {
            pipeline: self.pipeline,
            time: micros(&self.time)?,
            kind: head.kind,
            count: head.count.map(number).transpose()?,
            value: sound(self.report)?,
        })
    }
}

fn check_pipeline(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err("pipeline must have 1 to 256 bytes".to_owned());
    }
    Ok(())
}

/// The value as it was sent, if every reader can take it.
fn sound(value: &RawValue) -> Result<String, String> {
    serde_json::from_str::<Sound>(value.get()).map_err(|error| format!("value: {}", plain(&error)))?;
    Ok(value.get().to_owned())
}

/// By the digest of a module's file, or of the configuration of built-ins.
fn names_an_aggregate(module: &str) -> bool {
    let digits =
        |prefix| module.strip_prefix(prefix).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    digits("sha256:").is_some_and(|hex| hex.len() == 64)
        || digits("builtin:").is_some_and(|hex| hex.len() == 16)
}

impl Raw<'_> {
    fn check(self) -> Result<Measured, String> {
        check_pipeline(&self.pipeline)?;
        if self.key.len() > KEY_BYTES_MAX {
            return Err("key must have at most 1024 bytes".to_owned());
        }
        if self.module.as_deref().is_some_and(|module| !names_an_aggregate(module)) {
            let words = "module must be sha256: and 64 hexadecimal digits, or builtin: and 16";
            return Err(words.to_owned());
        }
        Ok(Measured {
            span: self.span()?,
            value: sound(self.value)?,
            pipeline: self.pipeline,
            key: self.key,
            module: self.module,
        })
    }

    fn span(&self) -> Result<Span, String> {
        match (&self.window, &self.time) {
            (Some(window), None) => {
                let (Some(revision), Some(count), Some(late), Some(rejected)) =
                    (self.revision, self.count, self.late, self.rejected)
                else {
                    return Err("a window needs revision, count, late and rejected".to_owned());
                };
                let (start, end) = (micros(&window.start)?, micros(&window.end)?);
                if start >= end {
                    return Err("window.end must be after window.start".to_owned());
                }
                let (count, late, rejected) = (number(count)?, number(late)?, number(rejected)?);
                Ok(Span::Window(Window { start, end, revision, count, late, rejected }))
            }
            (None, Some(time)) => {
                let counts = [self.count, self.late, self.rejected];
                if self.revision.is_some() || counts.iter().any(Option::is_some) {
                    return Err("revision, count, late and rejected need a window".to_owned());
                }
                Ok(Span::Event(micros(time)?))
            }
            _ => Err("exactly one of window and time is needed".to_owned()),
        }
    }
}

/// Microseconds of an RFC 3339 time.
pub(crate) fn micros(text: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| format!("{text:?} is not a time of RFC 3339"))?;
    Ok(time.as_microsecond())
}

fn number(count: u64) -> Result<i64, String> {
    i64::try_from(count).map_err(|_| "a count is 2^63 or more".to_owned())
}

/// The error without its place: there is one line, and it is named already.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} at column {}", &text[..at], error.column()),
        None => text,
    }
}

/// JSON that every reader can take: a raw value alone may nest without end or hold numbers like
/// 1e999. Parsing it applies the depth limit (128) and the range of doubles, and keeps nothing.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> serde::de::Visitor<'de> for Walk {
    type Value = Sound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Sound, A::Error> {
        while items.next_element::<Sound>()?.is_some() {}
        Ok(Sound)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Sound, A::Error> {
        while fields.next_entry::<Sound, Sound>()?.is_some() {}
        Ok(Sound)
    }
}

#[cfg(test)]
mod tests;
