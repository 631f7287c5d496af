//! The nouns that travel: a batch, its key, its lines.
//!
//! All of it is checked when it is made: whatever holds a [`Batch`] holds one that may be stored.

mod key;
mod sound;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

pub use key::BatchKey;
use sound::Sound;

/// Longest name of an agent or a pipeline, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest key of a result, in bytes.
const KEY_BYTES_MAX: usize = 1024;
/// Longest topic, in bytes: as MQTT has it.
const TOPIC_BYTES_MAX: usize = 65_535;
/// The `kind` of a late reading.
const LATE: &str = "late";

/// SHA-256.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
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
    /// A reading that no window's result has in it.
    Late(Late),
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

/// A reading that came too late for its windows. Identity: (agent, epoch, sequence number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The pipeline that it was too late for.
    pub pipeline: String,
    /// What it belongs to.
    pub key: String,
    /// Where it was published.
    pub topic: String,
    /// Event time, in microseconds since the Unix epoch.
    pub time: i64,
    /// Digest of the last module that changed it.
    pub module: Option<String>,
    /// JSON, as it was sent.
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
    /// Identity: (agent, pipeline, key, start, end, part); the highest revision stays.
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
    /// Tells results of the same bounds apart: parts of a window that was full, and count windows.
    pub part: u32,
    /// Grows when the result changes.
    pub revision: u32,
    /// Whether this is its last word, as far as the agent knows.
    pub state: State,
    /// The event time up to which the agent had counted, in microseconds since the Unix epoch.
    pub watermark: Option<i64>,
    /// Readings used.
    pub count: i64,
    /// Of these, readings that came after the window had first closed.
    pub late: i64,
    /// Readings refused by the aggregate.
    pub rejected: i64,
}

/// What a result says about its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has closed.
    Closed,
    /// It is open still: the value is provisional.
    Early,
    /// It is no more: its readings are part of another window's result.
    Retracted,
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
    #[serde(default)]
    early: bool,
    #[serde(default)]
    retracted: bool,
    watermark: Option<String>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    start: String,
    end: String,
    #[serde(default)]
    part: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLate<'a> {
    #[serde(rename = "agent")]
    _agent: String,
    #[serde(rename = "kind")]
    _kind: String,
    pipeline: String,
    key: String,
    topic: String,
    time: String,
    module: Option<String>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// What every line has, and what tells a report and a late reading from a result.
#[derive(Deserialize)]
struct Head {
    agent: String,
    report: Option<RawKind>,
    kind: Option<String>,
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
        match (head.report, head.kind.as_deref()) {
            (Some(kind), _) => {
                let raw: RawReport<'_> = serde_json::from_str(text).map_err(unread)?;
                raw.check(kind).map(Self::Report).map_err(malformed)
            }
            (None, Some(LATE)) => {
                let raw: RawLate<'_> = serde_json::from_str(text).map_err(unread)?;
                raw.check().map(Self::Late).map_err(malformed)
            }
            // One that is not known is an unknown field of a result.
            (None, _) => {
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

impl RawLate<'_> {
    fn check(self) -> Result<Late, String> {
        check_names(&self.pipeline, &self.key, self.module.as_deref())?;
        if self.topic.len() > TOPIC_BYTES_MAX {
            return Err(format!("topic must have at most {TOPIC_BYTES_MAX} bytes"));
        }
        let (time, value) = (micros(&self.time)?, sound(self.value)?);
        let Self { pipeline, key, topic, module, .. } = self;
        Ok(Late { pipeline, key, topic, time, module, value })
    }
}

/// Of whatever was measured.
fn check_names(pipeline: &str, key: &str, module: Option<&str>) -> Result<(), String> {
    check_pipeline(pipeline)?;
    if key.len() > KEY_BYTES_MAX {
        return Err("key must have at most 1024 bytes".to_owned());
    }
    if module.is_some_and(|module| !names_an_aggregate(module)) {
        let words = "module must be sha256: and 64 hexadecimal digits, or builtin: and 16";
        return Err(words.to_owned());
    }
    Ok(())
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
        check_names(&self.pipeline, &self.key, self.module.as_deref())?;
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
            (Some(window), None) => self.window(window).map(Span::Window),
            (None, Some(time)) => {
                let counts = [self.count, self.late, self.rejected];
                if self.revision.is_some() || counts.iter().any(Option::is_some) {
                    return Err("revision, count, late and rejected need a window".to_owned());
                }
                if self.early || self.retracted || self.watermark.is_some() {
                    return Err("early, retracted and watermark need a window".to_owned());
                }
                Ok(Span::Event(micros(time)?))
            }
            _ => Err("exactly one of window and time is needed".to_owned()),
        }
    }

    fn window(&self, bounds: &RawWindow) -> Result<Window, String> {
        let (Some(revision), Some(count), Some(late), Some(rejected)) =
            (self.revision, self.count, self.late, self.rejected)
        else {
            return Err("a window needs revision, count, late and rejected".to_owned());
        };
        let (start, end) = (micros(&bounds.start)?, micros(&bounds.end)?);
        if start >= end {
            return Err("window.end must be after window.start".to_owned());
        }
        let (count, late, rejected) = (number(count)?, number(late)?, number(rejected)?);
        let (part, state) = (bounds.part, self.state()?);
        let watermark = self.watermark.as_deref().map(micros).transpose()?;
        Ok(Window { start, end, part, revision, state, watermark, count, late, rejected })
    }

    fn state(&self) -> Result<State, String> {
        let nothing = [self.count, self.late, self.rejected].iter().all(|count| *count == Some(0));
        match (self.early, self.retracted) {
            (false, false) => Ok(State::Closed),
            (true, false) => Ok(State::Early),
            (true, true) => Err("a result is early or retracted, not both".to_owned()),
            (false, true) if nothing && self.value.get() == "null" => Ok(State::Retracted),
            (false, true) => Err("what is retracted has counts of 0 and the value null".to_owned()),
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

#[cfg(test)]
mod tests;
