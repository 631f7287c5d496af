//! A result as the line of NDJSON that goes upstream.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::decode::check_json;
use crate::flow::{Event, Timestamp};
use crate::window::Outcome;

#[derive(Serialize)]
struct WindowedLine<'a> {
    agent: &'a str,
    pipeline: &'a str,
    key: &'a str,
    window: WindowLine,
    revision: u32,
    module: &'a str,
    count: u64,
    late: u64,
    rejected: u64,
    value: &'a RawValue,
}

#[derive(Serialize)]
struct WindowLine {
    start: Timestamp,
    end: Timestamp,
}

#[derive(Serialize)]
struct EventLine<'a> {
    agent: &'a str,
    pipeline: &'a str,
    key: &'a str,
    time: Timestamp,
    module: Option<&'a str>,
    value: &'a RawValue,
}

/// The line of a window's result; the aggregate's words and the state where there is none.
pub(super) fn result(
    agent: &str,
    pipeline: &str,
    module: &str,
    outcome: &Outcome,
) -> Result<Vec<u8>, (String, Vec<u8>)> {
    let json = outcome.value.clone()?;
    let value: &RawValue =
        serde_json::from_slice(&json).map_err(|error| (error.to_string(), json.clone()))?;
    let line = encode(&WindowedLine {
        agent,
        pipeline,
        key: &outcome.key,
        window: WindowLine { start: outcome.start, end: outcome.end },
        revision: outcome.revision,
        module,
        count: outcome.count,
        late: outcome.late,
        rejected: outcome.rejected,
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
    let value: &RawValue = serde_json::from_slice(&event.payload)?;
    let line = encode(&EventLine { agent, pipeline, key: &event.key, time: event.time, module, value });
    // A raw value was only skipped over: what no receiver reads must not hold up what comes behind.
    check_json(&line)?;
    Ok(line)
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
        let outcome = Outcome {
            key: "hall \"2\"\n".into(),
            start: Timestamp(60_000_000),
            end: Timestamp(120_000_000),
            revision: 1,
            count: 3,
            late: 1,
            rejected: 2,
            value: Ok(b"{\n  \"mean\": 1.5\r\n}".to_vec()),
        };
        let line = String::from_utf8(result("gw", "t", "sha256:0", &outcome).unwrap()).unwrap();
        let expected = concat!(
            r#"{"agent":"gw","pipeline":"t","key":"hall \"2\"\n","#,
            r#""window":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00Z"},"#,
            r#""revision":1,"module":"sha256:0","count":3,"late":1,"rejected":2,"#,
            r#""value":{   "mean": 1.5  }}"#
        );
        assert_eq!(line, expected);
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
