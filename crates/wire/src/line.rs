//! Version 1 of the line of NDJSON: how a record is written; `line/parse.rs` is how it is read.
//!
//! ```text
//! window  {"agent","pipeline","key","window":{"start","end"[,"part"]},"revision"[,"early":true][,"retracted":true],
//!          "module","count","late","rejected","watermark","value"}
//! event   {"agent","pipeline","key","time","module","value"}
//! late    {"agent","pipeline","kind":"late","topic","key","time","module","value"}
//! report  {"agent","pipeline","report":{"count","first","from","kind","last","reason","stage","to"},"time"}
//! ```
//!
//! Times are RFC 3339, UTC, with what precision they have; those beyond the year 9999 are written as its end.
//! `module` is null where there is none.

mod parse;
mod parsed;

use std::fmt::Display;
use std::io::Write as _;

use headwater_flow::{LossReport, Timestamp};

pub(crate) use parse::{LATE, NAME_BYTES_MAX};
pub use parse::{LineError, UnparsedLine, micros};
pub use parsed::{ParsedLate, ParsedLine, ParsedReport, ParsedResult, ResultSpan, WindowFacts};

use crate::digest::ModuleDigest;
use crate::record::{AgentReport, EventResult, LateReading, OpaqueLine, Record, ResultState, WindowResult};

/// The reason why `expect` holds.
const TO_VEC: &str = "writing to memory cannot fail";

impl<'a> Record<'a> {
    /// Its line of NDJSON, without the line feed.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        self.put_line(&mut line);
        line
    }

    /// Appends its line of NDJSON, without the line feed.
    pub fn put_line(&self, out: &mut Vec<u8>) {
        match self {
            Self::Window(result) => put_window(out, result),
            Self::Event(event) => put_event(out, event),
            Self::Late(reading) => put_late(out, reading),
            Self::Report(report) => put_report(out, report),
            Self::Opaque(opaque) => out.extend_from_slice(&opaque.line),
        }
    }

    /// The record of a line that is to be sent again as it is: one that gives the same bytes, typed where
    /// that is possible. `pipeline` is the one that the line is known to be from.
    #[must_use]
    pub fn of_line(line: &'a [u8], pipeline: &'a str) -> Self {
        match Record::from_line(line) {
            Ok(record) if record.to_line() == line => record,
            _ => Self::Opaque(OpaqueLine { pipeline: pipeline.into(), key: "".into(), line: line.into() }),
        }
    }
}

fn put_window(out: &mut Vec<u8>, result: &WindowResult<'_>) {
    out.extend_from_slice(b"{\"agent\":");
    put_text(out, &result.agent);
    put_named_text(out, "pipeline", &result.pipeline);
    put_named_text(out, "key", &result.key);
    out.extend_from_slice(b",\"window\":{\"start\":");
    put_time(out, result.start);
    put_named_time(out, "end", result.end);
    if result.part > 0 {
        put_number(out, "part", result.part);
    }
    out.push(b'}');
    put_number(out, "revision", result.revision);
    match result.state {
        ResultState::Closed => {}
        ResultState::Early => out.extend_from_slice(b",\"early\":true"),
        ResultState::Retracted => out.extend_from_slice(b",\"retracted\":true"),
    }
    put_module(out, result.module.as_ref());
    put_number(out, "count", result.count);
    put_number(out, "late", result.late);
    put_number(out, "rejected", result.rejected);
    if let Some(watermark) = result.watermark {
        put_named_time(out, "watermark", watermark);
    }
    put_value(out, result.value.as_str());
}

fn put_event(out: &mut Vec<u8>, event: &EventResult<'_>) {
    out.extend_from_slice(b"{\"agent\":");
    put_text(out, &event.agent);
    put_named_text(out, "pipeline", &event.pipeline);
    put_named_text(out, "key", &event.key);
    put_named_time(out, "time", event.time);
    put_module(out, event.module.as_ref());
    put_value(out, event.value.as_str());
}

fn put_late(out: &mut Vec<u8>, reading: &LateReading<'_>) {
    out.extend_from_slice(b"{\"agent\":");
    put_text(out, &reading.agent);
    put_named_text(out, "pipeline", &reading.pipeline);
    put_named_text(out, "kind", LATE);
    put_named_text(out, "topic", &reading.topic);
    put_named_text(out, "key", &reading.key);
    put_named_time(out, "time", reading.time);
    put_module(out, reading.module.as_ref());
    put_value(out, reading.value.as_str());
}

fn put_report(out: &mut Vec<u8>, report: &AgentReport<'_>) {
    out.extend_from_slice(b"{\"agent\":");
    put_text(out, &report.agent);
    put_optional_text(out, "pipeline", report.pipeline.as_deref());
    let LossReport { kind, stage, count, first, last, from, to, reason } = &report.report;
    out.extend_from_slice(b",\"report\":{\"count\":");
    put_optional_number(out, *count);
    out.extend_from_slice(b",\"first\":");
    put_optional_number(out, *first);
    put_optional_text(out, "from", from.map(|time| time.to_string()).as_deref());
    put_named_text(out, "kind", kind.as_str());
    out.extend_from_slice(b",\"last\":");
    put_optional_number(out, *last);
    put_named_text(out, "reason", reason);
    put_named_text(out, "stage", stage);
    put_optional_text(out, "to", to.map(|time| time.to_string()).as_deref());
    out.push(b'}');
    put_named_time(out, "time", report.time);
    out.push(b'}');
}

/// The last field, and the end of the line.
fn put_value(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(b",\"value\":");
    out.extend_from_slice(value.as_bytes());
    out.push(b'}');
}

fn put_module(out: &mut Vec<u8>, module: Option<&ModuleDigest<'_>>) {
    match module {
        // Their digits need no escapes.
        Some(digest @ (ModuleDigest::Sha256(_) | ModuleDigest::Builtin(_))) => {
            write!(out, ",\"module\":\"{digest}\"").expect(TO_VEC);
        }
        Some(ModuleDigest::Text(text)) => put_named_text(out, "module", text),
        None => out.extend_from_slice(b",\"module\":null"),
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn put_named_text(out: &mut Vec<u8>, name: &str, text: &str) {
    put_name(out, name);
    put_text(out, text);
}

fn put_optional_text(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    put_name(out, name);
    match text {
        Some(text) => put_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn put_number(out: &mut Vec<u8>, name: &str, number: impl Display) {
    put_name(out, name);
    write!(out, "{number}").expect(TO_VEC);
}

fn put_optional_number(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => write!(out, "{number}").expect(TO_VEC),
        None => out.extend_from_slice(b"null"),
    }
}

fn put_named_time(out: &mut Vec<u8>, name: &str, time: Timestamp) {
    put_name(out, name);
    put_time(out, time);
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    write!(out, "\"{time}\"").expect(TO_VEC);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect(TO_VEC);
}
