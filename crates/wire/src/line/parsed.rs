//! The content of a line, as a receiver stores it and as a record.

use std::borrow::Cow;

use headwater_flow::{LossReport, Timestamp};

use super::parse::{LineError, UnparsedLine, object};
use crate::digest::ModuleDigest;
use crate::json::JsonText;
use crate::record::{AgentReport, EventResult, LateReading, Record, ResultState, WindowResult};

/// The content of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedLine {
    /// A result.
    Result(ParsedResult),
    /// A reading that no window's result has in it.
    Late(ParsedLate),
    /// A report of records that will never come, or not as they were.
    Report(ParsedReport),
}

/// A result as a receiver stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedResult {
    /// The pipeline that made it.
    pub pipeline: String,
    /// The key that it belongs to.
    pub key: String,
    /// The time that it speaks of.
    pub span: ResultSpan,
    /// Digest of the module that made it.
    pub module: Option<String>,
    /// JSON, as it was sent.
    pub value: String,
}

/// The time that a result speaks of, in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultSpan {
    /// Identity: (agent, pipeline, key, start, end, part); the highest revision stays.
    Window(WindowFacts),
    /// Event time. Identity: (agent, epoch, sequence number).
    Event(i64),
}

/// A window and what went into its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFacts {
    /// First instant.
    pub start: i64,
    /// First instant after it.
    pub end: i64,
    /// Tells results of the same bounds apart: parts of a window that was full, and count windows.
    pub part: u32,
    /// Grows when the result changes.
    pub revision: u32,
    /// Whether this is its last word, as far as the agent knows.
    pub state: ResultState,
    /// The event time up to which the agent had counted, in microseconds since the Unix epoch.
    pub watermark: Option<i64>,
    /// Readings used.
    pub count: i64,
    /// Readings among these that came after the window had first closed.
    pub late: i64,
    /// Readings refused by the aggregate.
    pub rejected: i64,
}

/// A reading that came too late for its windows. Identity: (agent, epoch, sequence number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedLate {
    /// The pipeline that it was too late for.
    pub pipeline: String,
    /// The key that it belongs to.
    pub key: String,
    /// The topic that it was published to.
    pub topic: String,
    /// Event time, in microseconds since the Unix epoch.
    pub time: i64,
    /// Digest of the last module that changed it.
    pub module: Option<String>,
    /// JSON, as it was sent.
    pub value: String,
}

/// An agent's report of records that it lost, dropped, merged or gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedReport {
    /// The pipeline that it concerns; `None`: all of them.
    pub pipeline: Option<String>,
    /// The time of the report, in microseconds since the Unix epoch.
    pub time: i64,
    /// `lost`, `dropped`, `coarsened`, `expired`, or what a newer agent calls it.
    pub kind: String,
    /// Number of records, where that is known.
    pub count: Option<i64>,
    /// The report as it was sent.
    pub value: String,
}

impl Record<'static> {
    /// Reads a line, and only one that a receiver accepts.
    ///
    /// # Errors
    /// Names the first thing that is not accepted, or that a record cannot hold: a time before 1970, a kind of
    /// report that is not known.
    pub fn from_line(line: &[u8]) -> Result<Self, LineError> {
        let unparsed = UnparsedLine::read(line)?;
        let agent = Cow::Owned(unparsed.agent().to_owned());
        Ok(match unparsed.parse()? {
            ParsedLine::Result(line) => {
                let pipeline = Cow::Owned(line.pipeline);
                let key = Cow::Owned(line.key);
                let module = digest(line.module);
                let value = kept(line.value);
                match line.span {
                    ResultSpan::Event(time) => {
                        let time = timestamp(time)?;
                        Record::Event(EventResult { agent, pipeline, key, time, module, value })
                    }
                    ResultSpan::Window(window) => Record::Window(WindowResult {
                        agent,
                        pipeline,
                        key,
                        start: timestamp(window.start)?,
                        end: timestamp(window.end)?,
                        part: window.part,
                        revision: window.revision,
                        state: window.state,
                        module,
                        count: window.count.unsigned_abs(),
                        late: window.late.unsigned_abs(),
                        rejected: window.rejected.unsigned_abs(),
                        watermark: window.watermark.map(timestamp).transpose()?,
                        value,
                    }),
                }
            }
            ParsedLine::Late(line) => Record::Late(LateReading {
                agent,
                pipeline: Cow::Owned(line.pipeline),
                topic: Cow::Owned(line.topic),
                key: Cow::Owned(line.key),
                time: timestamp(line.time)?,
                module: digest(line.module),
                value: kept(line.value),
            }),
            ParsedLine::Report(line) => Record::Report(AgentReport {
                agent,
                pipeline: line.pipeline.map(Cow::Owned),
                time: timestamp(line.time)?,
                report: object::<LossReport>(&line.value)?,
            }),
        })
    }
}

fn timestamp(micros: i64) -> Result<Timestamp, LineError> {
    u64::try_from(micros).map(Timestamp).map_err(|_| LineError("a time is before 1970".to_owned()))
}

fn digest(module: Option<String>) -> Option<ModuleDigest<'static>> {
    module.map(|module| ModuleDigest::from(&*module).into_owned())
}

/// A value that was checked with its line.
fn kept(value: String) -> JsonText<'static> {
    JsonText::kept(Cow::Owned(value))
}
