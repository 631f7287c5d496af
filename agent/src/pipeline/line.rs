//! A line of an outbox, read back.

use std::borrow::Cow;

use serde::Deserialize;

use super::tally::{LossRun, TimeSpan, UNKNOWN_SPAN};
use crate::flow::{ReportKind, Timestamp};

/// The `kind` of a late reading's line.
const LATE: &str = "late";

/// Whether this line is that of a late reading.
pub(super) fn is_late(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice::<Kind<'_>>(line).is_ok_and(|line| line.kind == LATE)
}

/// What a line in an outbox says of itself.
pub(super) enum Said {
    /// A window's result.
    Window(Window),
    /// An event forwarded on its own.
    Event(Timestamp),
    /// What went.
    Report(Told),
    /// Nothing that this version knows.
    Nothing,
}

/// A window's result, read back.
pub(super) struct Window {
    pub(super) key: String,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) module: String,
    pub(super) count: u64,
    pub(super) late: u64,
    pub(super) rejected: u64,
}

/// A report, read back.
pub(super) struct Told {
    kind: String,
    stage: String,
    pub(super) run: LossRun,
}

impl Told {
    /// Whether it tells of this.
    pub(super) fn is(&self, kind: ReportKind, stage: &str) -> bool {
        self.kind == kind.as_str() && self.stage == stage
    }
}

impl Said {
    /// The time it speaks of.
    pub(super) fn span(&self) -> TimeSpan {
        match self {
            Self::Window(window) => (window.start, window.end),
            Self::Event(time) => (*time, *time),
            Self::Report(told) => told.run.span,
            Self::Nothing => UNKNOWN_SPAN,
        }
    }
}

#[derive(Deserialize)]
struct AnyLine<'a> {
    #[serde(default)]
    key: Option<String>,
    #[serde(borrow, default)]
    window: Option<AnyWindow<'a>>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
    #[serde(default)]
    module: Option<String>,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    late: u64,
    #[serde(default)]
    rejected: u64,
    #[serde(borrow, default)]
    report: Option<AnyReport<'a>>,
}

#[derive(Deserialize)]
struct AnyWindow<'a> {
    #[serde(borrow)]
    start: Cow<'a, str>,
    #[serde(borrow)]
    end: Cow<'a, str>,
}

#[derive(Deserialize)]
struct AnyReport<'a> {
    kind: String,
    stage: String,
    count: Option<u64>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
}

/// Reads a line of this agent's own making back.
pub(super) fn said(line: &[u8]) -> Said {
    let Ok(line) = serde_json::from_slice::<AnyLine<'_>>(line) else { return Said::Nothing };
    let parsed = |text: &str| text.parse::<Timestamp>().ok();
    if let Some(report) = line.report {
        let (from, to) = (report.from.as_deref().and_then(parsed), report.to.as_deref().and_then(parsed));
        let span = from.zip(to).unwrap_or(UNKNOWN_SPAN);
        let run = LossRun { count: report.count.unwrap_or(0), span, ..LossRun::default() };
        return Said::Report(Told { kind: report.kind, stage: report.stage, run });
    }
    let window = line.window.and_then(|window| parsed(&window.start).zip(parsed(&window.end)));
    match (window, line.key, line.module) {
        (Some((start, end)), Some(key), Some(module)) => {
            let (count, late, rejected) = (line.count, line.late, line.rejected);
            Said::Window(Window { key, start, end, module, count, late, rejected })
        }
        _ => line.time.as_deref().and_then(parsed).map_or(Said::Nothing, Said::Event),
    }
}
