//! The records that a pipeline makes of its results, its events and its late readings.

use crate::flow::Event;
use crate::window::WindowOutcome;
use crate::wire::{EventResult, JsonText, LateReading, ModuleDigest, Record, ResultState, WindowResult};

/// The result of a window; the aggregate's words and the state where there is none.
pub(super) fn window<'a>(
    agent: &'a str,
    pipeline: &'a str,
    module: &'a str,
    outcome: &'a WindowOutcome,
) -> Result<Record<'a>, (String, Vec<u8>)> {
    let json = outcome.value.as_ref().map_err(Clone::clone)?;
    let value = JsonText::checked(json).map_err(|error| (error.to_string(), json.clone()))?;
    Ok(Record::Window(WindowResult {
        agent: agent.into(),
        pipeline: pipeline.into(),
        key: (&*outcome.key).into(),
        start: outcome.start,
        end: outcome.end,
        part: outcome.part,
        revision: outcome.revision,
        state: match outcome {
            WindowOutcome { retracted: true, .. } => ResultState::Retracted,
            WindowOutcome { early: true, .. } => ResultState::Early,
            _ => ResultState::Closed,
        },
        module: Some(ModuleDigest::from(module)),
        count: outcome.count,
        late: outcome.late,
        rejected: outcome.rejected,
        watermark: Some(outcome.watermark),
        value,
    }))
}

/// An event that is forwarded on its own.
pub(super) fn event<'a>(
    agent: &'a str,
    pipeline: &'a str,
    module: Option<&'a str>,
    event: &'a Event,
) -> Result<Record<'a>, serde_json::Error> {
    Ok(Record::Event(EventResult {
        agent: agent.into(),
        pipeline: pipeline.into(),
        key: (&*event.key).into(),
        time: event.time,
        module: module.map(ModuleDigest::from),
        value: JsonText::checked(&event.payload)?,
    }))
}

/// An event that came after its window could no longer change.
pub(super) fn late<'a>(
    agent: &'a str,
    pipeline: &'a str,
    module: Option<&'a str>,
    event: &'a Event,
) -> Result<Record<'a>, serde_json::Error> {
    Ok(Record::Late(LateReading {
        agent: agent.into(),
        pipeline: pipeline.into(),
        topic: (&*event.topic).into(),
        key: (&*event.key).into(),
        time: event.time,
        module: module.map(ModuleDigest::from),
        value: JsonText::checked(&event.payload)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Timestamp;

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
        let record = window("gw", "t", "sha256:0", &outcome).unwrap();
        let expected = concat!(
            r#"{"agent":"gw","pipeline":"t","key":"hall \"2\"\n","#,
            r#""window":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00Z"},"#,
            r#""revision":1,"module":"sha256:0","count":3,"late":1,"rejected":2,"#,
            r#""watermark":"1970-01-01T00:02:01Z","value":{   "mean": 1.5  }}"#
        );
        assert_eq!(String::from_utf8(record.to_line()).unwrap(), expected);
        let early = WindowOutcome { early: true, ..outcome.clone() };
        let retracted = WindowOutcome { retracted: true, ..outcome.clone() };
        for (outcome, word) in [(early, "\"early\":true,"), (retracted, "\"retracted\":true,")] {
            let line = window("gw", "t", "sha256:0", &outcome).unwrap().to_line();
            assert!(String::from_utf8(line).unwrap().contains(word));
        }
        let garbled = WindowOutcome { value: Ok(b"{} {}".to_vec()), ..outcome.clone() };
        assert_eq!(window("gw", "t", "sha256:0", &garbled).unwrap_err().1, b"{} {}");
        let failed = WindowOutcome { value: Err(("why".to_owned(), b"state".to_vec())), ..outcome };
        assert_eq!(
            window("gw", "t", "sha256:0", &failed).unwrap_err(),
            ("why".to_owned(), b"state".to_vec())
        );
    }

    #[test]
    fn an_event_that_is_no_json_has_no_record() {
        let mut event = Event { payload: b"{\"a\":1}".to_vec(), ..Event::default() };
        let line = super::event("gw", "t", None, &event).unwrap().to_line();
        assert!(line.ends_with(br#""time":"1970-01-01T00:00:00Z","module":null,"value":{"a":1}}"#));
        event.payload = b"{} {}".to_vec();
        assert!(super::event("gw", "t", None, &event).is_err());
    }
}
