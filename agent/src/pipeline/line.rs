//! A result as the line of NDJSON that goes upstream.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tally::{LossRun, TimeSpan, UNKNOWN_SPAN};
use crate::decode::check_json;
use crate::flow::{Event, ReportKind, Timestamp};
use crate::window::WindowOutcome;

#[derive(Serialize)]
struct WindowedLine<'a> {
    agent: &'a str,
    pipeline: &'a str,
    key: &'a str,
    window: WindowLine,
    revision: u32,
    #[serde(skip_serializing_if = "is_false")]
    early: bool,
    #[serde(skip_serializing_if = "is_false")]
    retracted: bool,
    module: &'a str,
    count: u64,
    late: u64,
    rejected: u64,
    watermark: Timestamp,
    value: &'a RawValue,
}

#[derive(Serialize)]
struct WindowLine {
    start: Timestamp,
    end: Timestamp,
    #[serde(skip_serializing_if = "is_first")]
    part: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(it: &bool) -> bool {
    !*it
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_first(part: &u32) -> bool {
    *part == 0
}

#[derive(Serialize)]
struct EventLine<'a> {
    agent: &'a str,
    pipeline: &'a str,
    #[serde(flatten)]
    late: Option<LateLine<'a>>,
    key: &'a str,
    time: Timestamp,
    module: Option<&'a str>,
    value: &'a RawValue,
}

/// What tells a late reading from an event that is forwarded on its own.
#[derive(Serialize)]
struct LateLine<'a> {
    kind: &'static str,
    topic: &'a str,
}

/// The `kind` of a late reading's line.
const LATE: &str = "late";

/// The line of a window's result; the aggregate's words and the state where there is none.
pub(super) fn result(
    agent: &str,
    pipeline: &str,
    module: &str,
    outcome: &WindowOutcome,
) -> Result<Vec<u8>, (String, Vec<u8>)> {
    let json = outcome.value.clone()?;
    let value: &RawValue =
        serde_json::from_slice(&json).map_err(|error| (error.to_string(), json.clone()))?;
    let line = encode(&WindowedLine {
        agent,
        pipeline,
        key: &outcome.key,
        window: WindowLine { start: outcome.start, end: outcome.end, part: outcome.part },
        revision: outcome.revision,
        early: outcome.early,
        retracted: outcome.retracted,
        module,
        count: outcome.count,
        late: outcome.late,
        rejected: outcome.rejected,
        watermark: outcome.watermark,
        value,
    });
    check_json(&line).map_err(|error| (error.to_string(), json.clone()))?;
    Ok(line)
}

/// The line of an event that is forwarded on its own.
pub(super) fn event(
    agent: &str,
    pipeline: &str,
    module: Option<&str>,
    event: &Event,
) -> Result<Vec<u8>, serde_json::Error> {
    of_event(agent, pipeline, module, event, None)
}

/// The line of an event that came after its window could no longer change.
pub(super) fn late(
    agent: &str,
    pipeline: &str,
    module: Option<&str>,
    event: &Event,
) -> Result<Vec<u8>, serde_json::Error> {
    of_event(agent, pipeline, module, event, Some(LateLine { kind: LATE, topic: &event.topic }))
}

/// Whether this line is that of a late reading.
pub(super) fn is_late(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice::<Kind<'_>>(line).is_ok_and(|line| line.kind == LATE)
}

fn of_event(
    agent: &str,
    pipeline: &str,
    module: Option<&str>,
    event: &Event,
    late: Option<LateLine<'_>>,
) -> Result<Vec<u8>, serde_json::Error> {
    let value: &RawValue = serde_json::from_slice(&event.payload)?;
    let (key, time) = (&event.key, event.time);
    let line = encode(&EventLine { agent, pipeline, late, key, time, module, value });
    // A raw value was only skipped over: what no receiver reads must not hold up what comes behind.
    check_json(&line)?;
    Ok(line)
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

fn encode(line: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(line).expect("plain fields and checked JSON can be written");
    // A line feed can stand only between the tokens of a raw value, where a space means the same.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_one_line_whatever_the_module_writes() {
        let outcome = WindowOutcome {
            key: "hall \"2\"\n".into(),
            start: Timestamp(60_000_000),
            end: Timestamp(120_000_000),
            part: 0,
            revision: 1,
            count: 3,
            late: 1,
            rejected: 2,
            watermark: Timestamp(121_000_000),
            early: false,
            retracted: false,
            value: Ok(b"{\n  \"mean\": 1.5\r\n}".to_vec()),
            state: Vec::new(),
        };
        let line = String::from_utf8(result("gw", "t", "sha256:0", &outcome).unwrap()).unwrap();
        let expected = concat!(
            r#"{"agent":"gw","pipeline":"t","key":"hall \"2\"\n","#,
            r#""window":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00Z"},"#,
            r#""revision":1,"module":"sha256:0","count":3,"late":1,"rejected":2,"#,
            r#""watermark":"1970-01-01T00:02:01Z","value":{   "mean": 1.5  }}"#
        );
        assert_eq!(line, expected);
        let Said::Window(window) = said(line.as_bytes()) else { panic!("it is a window's") };
        assert_eq!(
            (window.key.as_str(), window.start, window.end),
            ("hall \"2\"\n", outcome.start, outcome.end)
        );
        assert_eq!((window.count, window.late, window.rejected, &*window.module), (3, 1, 2, "sha256:0"));
    }

    #[test]
    fn an_event_that_is_no_json_has_no_line() {
        let mut event = Event { payload: b"{\"a\":1}".to_vec(), ..Event::default() };
        let line = super::event("gw", "t", None, &event).unwrap();
        assert!(line.ends_with(br#""time":"1970-01-01T00:00:00Z","module":null,"value":{"a":1}}"#));
        event.payload = b"{} {}".to_vec();
        assert!(super::event("gw", "t", None, &event).is_err());
    }
}
