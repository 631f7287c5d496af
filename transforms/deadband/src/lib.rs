//! Report by exception: lets an event through when one of its fields has left the band around the value that was
//! last reported for its key, or nothing was reported for so long, and drops the others.
//!
//! Settings; the step needs `capabilities = ["state"]`:
//!
//! ```toml
//! fields = { temperature = { absolute = 0.5 }, flow = { relative = 0.02 } }   # both in one band: the wider counts
//! every = "10m"                                                               # optional
//! ```
//!
//! Of the temperatures 20.0, 20.4, 20.6, 20.2 of one key, 20.0 and 20.6 go through, as they came, and a temperature
//! ten minutes of event time later whatever it is. A field that appears, or becomes a number or something else than
//! one (`null`, a text), is a change too; one that is left out is none. Refused is an event that has none of the fields.

use headwater_module::{Event, JsonObject, TimeSpan, Transform, export_transform, state};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadbandFilter {
    fields: BTreeMap<String, ValueBand>,
    every: Option<TimeSpan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueBand {
    #[serde(default)]
    absolute: f64,
    #[serde(default)]
    relative: f64,
}

/// The report that a key's events are held against.
#[derive(Debug, Deserialize, Serialize)]
struct LastReport {
    time: u64,
    /// The fields' values; `None` is something else than a number.
    values: BTreeMap<String, Option<f64>>,
}

impl Transform for DeadbandFilter {
    fn prepare(&mut self) -> Result<(), String> {
        if self.fields.is_empty() {
            return Err("`fields` is empty: name at least one".to_owned());
        }
        match self.fields.iter().find(|(_, band)| band.absolute < 0.0 || band.relative < 0.0) {
            Some((field, _)) => Err(format!("the band of `{field}` is negative")),
            None => Ok(()),
        }
    }

    fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let found = self.found(&event.object()?)?;
        let before: Option<LastReport> = state::get(&event.key)?;
        if before
            .as_ref()
            .is_some_and(|before| !self.is_due(before, event.time) && !self.left(before, &found))
        {
            return Ok(None);
        }
        let mut values = before.map(|before| before.values).unwrap_or_default();
        values.retain(|field, _| self.fields.contains_key(field));
        values.extend(found);
        state::set(&event.key, &LastReport { time: event.time, values })?;
        Ok(Some(event))
    }
}
export_transform!(DeadbandFilter);

impl DeadbandFilter {
    /// Returns the watched fields that are there.
    fn found(&self, object: &JsonObject<'_>) -> Result<BTreeMap<String, Option<f64>>, String> {
        let there = self.fields.keys().filter(|field| object.raw(field).is_some());
        let found: BTreeMap<_, _> = there.map(|field| (field.clone(), object.number(field))).collect();
        match found.is_empty() {
            true => Err(format!("none of the fields {:?} is there", self.fields.keys())),
            false => Ok(found),
        }
    }

    fn is_due(&self, before: &LastReport, time: u64) -> bool {
        self.every.is_some_and(|every| time.saturating_sub(before.time) >= every.micros)
    }

    fn left(&self, before: &LastReport, found: &BTreeMap<String, Option<f64>>) -> bool {
        found.iter().any(|(field, value)| match (before.values.get(field), value, self.fields.get(field)) {
            (Some(Some(before)), Some(value), Some(band)) => {
                (value - before).abs() > band.absolute.max(band.relative * before.abs())
            }
            (before, value, _) => before != Some(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_module::testing::{TransformProbe, event};

    /// Checks the indexes of the payloads that go through.
    #[track_caller]
    fn check(config: &str, payloads: &[&str], expected: &[usize]) {
        let mut probe = TransformProbe::<DeadbandFilter>::new(config).unwrap();
        let passes = |payload: &&str| !probe.payloads(payload).unwrap().is_empty();
        let flags: Vec<_> = payloads.iter().map(passes).collect();
        let found: Vec<_> = (0..flags.len()).filter(|index| flags[*index]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn reports_what_left_the_band_around_what_was_last_reported() {
        let config = r#"{"fields":{"t":{"absolute":0.5}}}"#;
        let payloads = [r#"{"t":20.0}"#, r#"{"t":20.4}"#, r#"{"t":20.6}"#, r#"{"t":20.2}"#, r#"{"t":20.0}"#];
        check(config, &payloads, &[0, 2, 4]);
        check(config, &[r#"{"t":1}"#, r#"{"t":1.5}"#, r#"{"t":1.500001}"#], &[0, 2]);
        let relative = r#"{"fields":{"t":{"relative":0.1}}}"#;
        check(relative, &[r#"{"t":-100}"#, r#"{"t":-109}"#, r#"{"t":-111}"#], &[0, 2]);
        check(r#"{"fields":{"t":{}}}"#, &[r#"{"t":1}"#, r#"{"t":1.0}"#, r#"{"t":2}"#], &[0, 2]);
    }

    #[test]
    fn a_field_that_appears_or_is_no_number_any_more_is_a_change() {
        let config = r#"{"fields":{"t":{"absolute":9},"u":{"absolute":9}}}"#;
        let payloads = [
            r#"{"t":1}"#,
            r#"{"t":1,"u":1}"#,
            r#"{"t":1}"#,
            r#"{"u":null}"#,
            r#"{"t":1,"u":null}"#,
            r#"{"u":1}"#,
        ];
        check(config, &payloads, &[0, 1, 3, 5]);
    }

    #[test]
    fn reports_every_so_often_and_each_key_for_itself() {
        let mut probe =
            TransformProbe::<DeadbandFilter>::new(r#"{"fields":{"t":{}},"every":"10s"}"#).unwrap();
        let mut at = |key: &str, seconds: u64| {
            let mut event = event(r#"{"t":1}"#);
            event.key = key.to_owned();
            event.time += seconds * 1_000_000;
            !probe.process(event).unwrap().is_empty()
        };
        assert!(at("a", 100));
        assert!(at("b", 101));
        assert!(!at("a", 109));
        assert!(at("a", 110));
        assert!(!at("a", 50), "a late one is not due");
        assert!(!at("b", 110));
    }

    #[test]
    fn refuses_in_words() {
        let fault = |config: &str| TransformProbe::<DeadbandFilter>::new(config).unwrap_err();
        assert!(fault(r#"{"fields":{}}"#).contains("`fields` is empty"));
        assert!(fault(r#"{"fields":{"t":{"absolute":-1}}}"#).contains("the band of `t` is negative"));
        assert!(fault(r#"{"fields":{"t":{}},"every":"soon"}"#).contains("\"soon\" is no length of time"));
        let mut probe = TransformProbe::<DeadbandFilter>::new(r#"{"fields":{"t":{}}}"#).unwrap();
        assert!(probe.payloads(r#"{"u":1}"#).unwrap_err().contains(r#"none of the fields ["t"] is there"#));
        let mut long = event(r#"{"t":1}"#);
        long.key = "k".repeat(513);
        assert!(probe.process(long).unwrap_err().contains("the name has 513 bytes"));
    }

    #[test]
    fn whatever_comes_it_answers() {
        let config = r#"{"fields":{"t":{"absolute":0.1},"u":{"relative":0.1}},"every":"1s"}"#;
        let samples: [&[u8]; 2] = [br#"{"t":1.5,"u":-3e10,"v":{"t":1}}"#, br#"{"u":null,"t":1e308}"#];
        let mut answers = [0; 2];
        TransformProbe::<DeadbandFilter>::new(config).unwrap().provoke(&samples, 5000, |_, answer| {
            answers[usize::from(answer.is_ok())] += 1;
        });
        assert!(answers.iter().all(|count| *count > 200), "{answers:?}");
    }
}
