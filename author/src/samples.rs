//! Samples: one event a line, `{"topic":"a/b","key":"b","time":"2026-01-01T00:00:00Z","payload":{"t":1}}`.
//!
//! `time` is RFC 3339, or microseconds since the Unix epoch; `"bytes":"<base64>"` stands in for a `payload` that is
//! no JSON. All but these two may be left out.

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use headwater_agent::flow::{Event, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs;
use std::path::Path;

/// The time of samples that have none: 2026-01-01T00:00:00Z.
const TIME: Timestamp = Timestamp(1_767_225_600_000_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleLine {
    #[serde(default)]
    topic: String,
    #[serde(default)]
    key: String,
    time: Option<SampleTime>,
    payload: Option<Box<RawValue>>,
    bytes: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SampleTime {
    Micros(u64),
    Text(String),
}

/// Reads the file's events.
///
/// # Errors
/// The line at fault, and its fault.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Event>> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            event(line).with_context(|| format!("failed to read {}, line {number}", file.display()))
        })
        .collect()
}

fn event(line: &str) -> anyhow::Result<Event> {
    let line: SampleLine = serde_json::from_str(line).map_err(|error| {
        anyhow!("expected {{\"topic\",\"key\",\"time\",\"payload\"}} as one line of JSON: {error}")
    })?;
    let time = match line.time {
        None => TIME,
        Some(SampleTime::Micros(micros)) => Timestamp(micros),
        Some(SampleTime::Text(text)) => text.parse().with_context(|| format!("`time` is {text:?}"))?,
    };
    let payload = match (line.payload, line.bytes) {
        (Some(payload), None) => payload.get().into(),
        (None, Some(bytes)) => BASE64_STANDARD.decode(bytes).context("`bytes` is no base64")?,
        _ => bail!("expected one of `payload` (JSON) and `bytes` (base64)"),
    };
    Ok(Event { topic: line.topic, key: line.key, time, payload })
}

/// Returns the name and the value of a payload: the payload if it is JSON, else its bytes.
pub(super) fn payload(payload: &[u8]) -> (&'static str, serde_json::Value) {
    match serde_json::from_slice(payload) {
        Ok(value) => ("payload", value),
        Err(_) => ("bytes", BASE64_STANDARD.encode(payload).into()),
    }
}
