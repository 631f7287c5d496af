//! How a line of version 1 is read, and what of it is accepted.
//!
//! A receiver stores what is accepted here: every field is known and within its bounds, and every value is
//! JSON that any reader takes. What is stored of a value or a report is its text as it was sent.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::parsed::{ParsedLate, ParsedLine, ParsedReport, ParsedResult, ResultSpan, WindowFacts};
use crate::json;
use crate::record::ResultState;

/// Longest name of an agent or a pipeline, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Longest key of a result, in bytes.
const KEY_BYTES_MAX: usize = 1024;
/// Longest topic, in bytes: as MQTT has it.
const TOPIC_BYTES_MAX: usize = 65_535;
/// The `kind` of a late reading.
pub(crate) const LATE: &str = "late";

/// A line of which only the head was read.
#[derive(Debug)]
pub struct UnparsedLine<'a> {
    text: &'a str,
    head: Head<'a>,
}

/// The reason why a line is not accepted, for its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LineError(pub(super) String);

impl<'a> UnparsedLine<'a> {
    /// Reads the head of a line.
    ///
    /// # Errors
    /// When it is no JSON object with an agent.
    pub fn read(line: &'a [u8]) -> Result<Self, LineError> {
        let text = str::from_utf8(line).map_err(|error| LineError(error.to_string()))?;
        Ok(Self { text, head: object(text)? })
    }

    /// The agent that it says it is from.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.head.agent
    }

    /// Reads the rest of it.
    ///
    /// # Errors
    /// Names the first thing that is not accepted.
    pub fn parse(self) -> Result<ParsedLine, LineError> {
        let checked = match (self.head.report, self.head.kind.as_deref()) {
            (Some(kind), _) => object::<RawReport<'_>>(self.text)?.check(kind).map(ParsedLine::Report),
            (None, Some(LATE)) => object::<RawLate<'_>>(self.text)?.check().map(ParsedLine::Late),
            // One that is not known is an unknown field of a result.
            (None, _) => object::<RawResult<'_>>(self.text)?.check().map(ParsedLine::Result),
        };
        checked.map_err(LineError)
    }
}

/// Microseconds of an RFC 3339 time.
///
/// # Errors
/// When it is none.
pub fn micros(text: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| format!("{text:?} is not a time of RFC 3339"))?;
    Ok(time.as_microsecond())
}

/// The fields that every line has, and those that tell a report and a late reading from a result.
#[derive(Debug, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    agent: Cow<'a, str>,
    #[serde(borrow)]
    report: Option<RawKind<'a>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResult<'a> {
    #[serde(borrow, rename = "agent")]
    _agent: Cow<'a, str>,
    pipeline: String,
    key: String,
    #[serde(borrow)]
    window: Option<RawWindow<'a>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    revision: Option<u32>,
    module: Option<String>,
    count: Option<u64>,
    late: Option<u64>,
    rejected: Option<u64>,
    #[serde(default)]
    early: bool,
    #[serde(default)]
    retracted: bool,
    #[serde(borrow)]
    watermark: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow<'a> {
    #[serde(borrow)]
    start: Cow<'a, str>,
    #[serde(borrow)]
    end: Cow<'a, str>,
    #[serde(default)]
    part: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLate<'a> {
    #[serde(borrow, rename = "agent")]
    _agent: Cow<'a, str>,
    #[serde(borrow, rename = "kind")]
    _kind: Cow<'a, str>,
    pipeline: String,
    key: String,
    topic: String,
    #[serde(borrow)]
    time: Cow<'a, str>,
    module: Option<String>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReport<'a> {
    #[serde(borrow, rename = "agent")]
    _agent: Cow<'a, str>,
    pipeline: Option<String>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    report: &'a RawValue,
}

/// The fields of a report that are looked at; the rest of it is stored as it came.
#[derive(Debug, Deserialize)]
struct RawKind<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    count: Option<u64>,
}

impl RawReport<'_> {
    fn check(self, head: RawKind<'_>) -> Result<ParsedReport, String> {
        self.pipeline.as_deref().map_or(Ok(()), check_pipeline)?;
        if head.kind.is_empty() || head.kind.len() > NAME_BYTES_MAX {
            return Err("report.kind must have 1 to 256 bytes".to_owned());
        }
        Ok(ParsedReport {
            pipeline: self.pipeline,
            time: micros(&self.time)?,
            kind: head.kind.into_owned(),
            count: head.count.map(number).transpose()?,
            value: sound(self.report)?,
        })
    }
}

impl RawLate<'_> {
    fn check(self) -> Result<ParsedLate, String> {
        check_names(&self.pipeline, &self.key, self.module.as_deref())?;
        if self.topic.len() > TOPIC_BYTES_MAX {
            return Err(format!("topic must have at most {TOPIC_BYTES_MAX} bytes"));
        }
        let time = micros(&self.time)?;
        let value = sound(self.value)?;
        let Self { pipeline, key, topic, module, .. } = self;
        Ok(ParsedLate { pipeline, key, topic, time, module, value })
    }
}

impl RawResult<'_> {
    fn check(self) -> Result<ParsedResult, String> {
        check_names(&self.pipeline, &self.key, self.module.as_deref())?;
        Ok(ParsedResult {
            span: self.span()?,
            value: sound(self.value)?,
            pipeline: self.pipeline,
            key: self.key,
            module: self.module,
        })
    }

    fn span(&self) -> Result<ResultSpan, String> {
        match (&self.window, &self.time) {
            (Some(window), None) => self.window(window).map(ResultSpan::Window),
            (None, Some(time)) => {
                let counts = [self.count, self.late, self.rejected];
                if self.revision.is_some() || counts.iter().any(Option::is_some) {
                    return Err("revision, count, late and rejected need a window".to_owned());
                }
                if self.early || self.retracted || self.watermark.is_some() {
                    return Err("early, retracted and watermark need a window".to_owned());
                }
                Ok(ResultSpan::Event(micros(time)?))
            }
            _ => Err("exactly one of window and time is needed".to_owned()),
        }
    }

    fn window(&self, bounds: &RawWindow<'_>) -> Result<WindowFacts, String> {
        let (Some(revision), Some(count), Some(late), Some(rejected)) =
            (self.revision, self.count, self.late, self.rejected)
        else {
            return Err("a window needs revision, count, late and rejected".to_owned());
        };
        let start = micros(&bounds.start)?;
        let end = micros(&bounds.end)?;
        if start >= end {
            return Err("window.end must be after window.start".to_owned());
        }
        Ok(WindowFacts {
            start,
            end,
            part: bounds.part,
            revision,
            count: number(count)?,
            late: number(late)?,
            rejected: number(rejected)?,
            state: self.state()?,
            watermark: self.watermark.as_deref().map(micros).transpose()?,
        })
    }

    fn state(&self) -> Result<ResultState, String> {
        let nothing = [self.count, self.late, self.rejected].iter().all(|count| *count == Some(0));
        match (self.early, self.retracted) {
            (false, false) => Ok(ResultState::Closed),
            (true, false) => Ok(ResultState::Early),
            (true, true) => Err("a result is early or retracted, not both".to_owned()),
            (false, true) if nothing && self.value.get() == "null" => Ok(ResultState::Retracted),
            (false, true) => Err("what is retracted has counts of 0 and the value null".to_owned()),
        }
    }
}

/// Checks the names of a result or a late reading.
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
    json::check(value.get().as_bytes()).map_err(|error| format!("value: {}", plain(&error)))?;
    Ok(value.get().to_owned())
}

/// Whether it is the digest of a module's file, or of the configuration of built-ins.
fn names_an_aggregate(module: &str) -> bool {
    let digits =
        |prefix| module.strip_prefix(prefix).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    digits("sha256:").is_some_and(|hex| hex.len() == 64)
        || digits("builtin:").is_some_and(|hex| hex.len() == 16)
}

fn number(count: u64) -> Result<i64, String> {
    i64::try_from(count).map_err(|_| "a count is 2^63 or more".to_owned())
}

pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, LineError> {
    serde_json::from_str(text).map_err(|error| LineError(plain(&error)))
}

/// The error without its place: there is one line, and it is named already.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} at column {}", &text[..at], error.column()),
        None => text,
    }
}
