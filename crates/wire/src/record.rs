//! The typed record: what waits in an outbox, whatever the destination is going to be sent of it.
//!
//! Fields borrow where they can: a record is made from what a pipeline has at hand, and read from the bytes
//! of an outbox, without a copy.

mod binary;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use headwater_flow::{LossReport, ReportKind, TimeSpan, Timestamp, UNKNOWN_SPAN};

use crate::digest::ModuleDigest;
use crate::json::JsonText;

/// One record on its way to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The result of a window.
    Window(WindowResult<'a>),
    /// An event that is forwarded on its own.
    Event(EventResult<'a>),
    /// An event that came too late for its window.
    Late(LateReading<'a>),
    /// A report of records that will never come, or not as they were.
    Report(AgentReport<'a>),
    /// A line that no type describes.
    Opaque(OpaqueLine<'a>),
}

/// The result of a window. Identity: (agent, pipeline, key, start, end, part).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowResult<'a> {
    /// The agent that made it.
    pub agent: Cow<'a, str>,
    /// The pipeline that made it.
    pub pipeline: Cow<'a, str>,
    /// The key that the window belongs to.
    pub key: Cow<'a, str>,
    /// First instant of the window.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// Tells results of the same bounds apart: parts of a window that was full, and count windows.
    pub part: u32,
    /// Grows when the result changes: the highest one counts.
    pub revision: u32,
    /// Whether the window has closed.
    pub state: ResultState,
    /// Digest of the aggregate that made the value.
    pub module: Option<ModuleDigest<'a>>,
    /// Readings used.
    pub count: u64,
    /// Readings among these that came after the window had first closed.
    pub late: u64,
    /// Readings that the aggregate refused.
    pub rejected: u64,
    /// The event time up to which the agent had counted.
    pub watermark: Option<Timestamp>,
    /// The aggregate's value.
    pub value: JsonText<'a>,
}

/// The state of a window that a result speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultState {
    /// The window has closed.
    #[default]
    Closed,
    /// The window is still open: the value is provisional.
    Early,
    /// The window is no more: its readings are part of another window's result.
    Retracted,
}

/// An event that is forwarded on its own. Identity: (agent, epoch, number in the outbox).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventResult<'a> {
    /// The agent that made it.
    pub agent: Cow<'a, str>,
    /// The pipeline that made it.
    pub pipeline: Cow<'a, str>,
    /// The key that it belongs to.
    pub key: Cow<'a, str>,
    /// Event time.
    pub time: Timestamp,
    /// Digest of the last module that changed it.
    pub module: Option<ModuleDigest<'a>>,
    /// Its content.
    pub value: JsonText<'a>,
}

/// An event that came too late for its window. Identity: (agent, epoch, number in the outbox).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateReading<'a> {
    /// The agent that received it.
    pub agent: Cow<'a, str>,
    /// The pipeline that it was too late for.
    pub pipeline: Cow<'a, str>,
    /// The topic that it was published to.
    pub topic: Cow<'a, str>,
    /// The key that it belongs to.
    pub key: Cow<'a, str>,
    /// Event time.
    pub time: Timestamp,
    /// Digest of the last module that changed it.
    pub module: Option<ModuleDigest<'a>>,
    /// Its content.
    pub value: JsonText<'a>,
}

/// An agent's report of records that it lost, dropped, merged or gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentReport<'a> {
    /// The agent that reports.
    pub agent: Cow<'a, str>,
    /// The pipeline that it concerns; `None` where it concerns all of them.
    pub pipeline: Option<Cow<'a, str>>,
    /// The time of the report.
    pub time: Timestamp,
    /// Its content.
    pub report: LossReport,
}

/// A line that is sent as it is: written by an older agent, or mended by hand and replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueLine<'a> {
    /// The pipeline that it is from, as far as that is known.
    pub pipeline: Cow<'a, str>,
    /// The key that it belongs to, as far as that is known.
    pub key: Cow<'a, str>,
    /// Its bytes, without a line feed.
    pub line: Cow<'a, [u8]>,
}

/// The reason why bytes are no record of any version up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a record: {0}")]
pub struct RecordError(pub(crate) &'static str);

impl<'a> Record<'a> {
    /// Earliest and latest time that it speaks of; [`UNKNOWN_SPAN`] where it names none.
    #[must_use]
    pub fn span(&self) -> TimeSpan {
        match self {
            Self::Window(result) => (result.start, result.end),
            Self::Event(event) => (event.time, event.time),
            Self::Late(reading) => (reading.time, reading.time),
            Self::Report(report) => report.report.from.zip(report.report.to).unwrap_or(UNKNOWN_SPAN),
            Self::Opaque(_) => UNKNOWN_SPAN,
        }
    }

    /// The pipeline that it is from; empty where it is not of one.
    #[must_use]
    pub fn pipeline(&self) -> &str {
        match self {
            Self::Window(result) => &result.pipeline,
            Self::Event(event) => &event.pipeline,
            Self::Late(reading) => &reading.pipeline,
            Self::Report(report) => report.pipeline.as_deref().unwrap_or_default(),
            Self::Opaque(opaque) => &opaque.pipeline,
        }
    }

    /// The key that it belongs to; empty where it has none.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Window(result) => &result.key,
            Self::Event(event) => &event.key,
            Self::Late(reading) => &reading.key,
            Self::Report(_) => "",
            Self::Opaque(opaque) => &opaque.key,
        }
    }

    /// Digest of the module that made it.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleDigest<'a>> {
        match self {
            Self::Window(result) => result.module.as_ref(),
            Self::Event(event) => event.module.as_ref(),
            Self::Late(reading) => reading.module.as_ref(),
            Self::Report(_) | Self::Opaque(_) => None,
        }
    }

    /// Whether it is a report of that kind from that stage.
    #[must_use]
    pub fn is_report(&self, kind: ReportKind, stage: &str) -> bool {
        matches!(self, Self::Report(report) if report.report.kind == kind && report.report.stage == stage)
    }

    /// Copies what it borrows.
    #[must_use]
    pub fn into_owned(self) -> Record<'static> {
        match self {
            Self::Window(result) => Record::Window(WindowResult {
                agent: owned(result.agent),
                pipeline: owned(result.pipeline),
                key: owned(result.key),
                module: result.module.map(ModuleDigest::into_owned),
                value: result.value.into_owned(),
                ..result
            }),
            Self::Event(event) => Record::Event(EventResult {
                agent: owned(event.agent),
                pipeline: owned(event.pipeline),
                key: owned(event.key),
                module: event.module.map(ModuleDigest::into_owned),
                value: event.value.into_owned(),
                ..event
            }),
            Self::Late(reading) => Record::Late(LateReading {
                agent: owned(reading.agent),
                pipeline: owned(reading.pipeline),
                topic: owned(reading.topic),
                key: owned(reading.key),
                module: reading.module.map(ModuleDigest::into_owned),
                value: reading.value.into_owned(),
                ..reading
            }),
            Self::Report(report) => Record::Report(AgentReport {
                agent: owned(report.agent),
                pipeline: report.pipeline.map(owned),
                ..report
            }),
            Self::Opaque(opaque) => Record::Opaque(OpaqueLine {
                pipeline: owned(opaque.pipeline),
                key: owned(opaque.key),
                line: Cow::Owned(opaque.line.into_owned()),
            }),
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}
