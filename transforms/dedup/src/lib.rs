//! Drops an event whose id its key had among its last ones: what a device or a bridge sends twice under new packets.
//!
//! Settings; the step needs `capabilities = ["state"]`:
//!
//! ```toml
//! field = "id"        # a text or number of the payload
//! last = 100          # ids remembered for each key: 100 by default, at most 900
//! ```
//!
//! Of `{"id":1}`, `{"id":2}`, `{"id":1}` the third is dropped. Ids are compared as they are written, so `1` and
//! `1.0` are two. Refused is an event without an id, or with one of more than 64 bytes.

use headwater_module::{Event, Transform, export_transform, state};
use serde::Deserialize;
use std::collections::VecDeque;

/// The number of ids of the greatest length that fit into a value of the state.
const LAST_MAX: usize = 900;
const ID_BYTES_MAX: usize = 64;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatFilter {
    field: String,
    #[serde(default = "last")]
    last: usize,
}

fn last() -> usize {
    100
}

impl Transform for RepeatFilter {
    fn prepare(&mut self) -> Result<(), String> {
        match self.last {
            1..=LAST_MAX => Ok(()),
            other => Err(format!("`last` is {other}: 1 to {LAST_MAX} ids can be remembered")),
        }
    }

    fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let id = self.id(&event)?;
        let mut ids: VecDeque<String> = state::get(&event.key)?.unwrap_or_default();
        if ids.contains(&id) {
            return Ok(None);
        }
        ids.push_back(id);
        ids.drain(..ids.len().saturating_sub(self.last));
        state::set(&event.key, &ids)?;
        Ok(Some(event))
    }
}
export_transform!(RepeatFilter);

impl RepeatFilter {
    fn id(&self, event: &Event) -> Result<String, String> {
        let field = &self.field;
        let id = event.object()?.raw(field).ok_or_else(|| format!("field `{field}` is missing"))?;
        match id.as_bytes() {
            [b'"' | b'-' | b'0'..=b'9', ..] if id.len() <= ID_BYTES_MAX => Ok(id.to_owned()),
            [b'"' | b'-' | b'0'..=b'9', ..] => {
                Err(format!("field `{field}` has {} bytes: an id has at most {ID_BYTES_MAX}", id.len()))
            }
            _ => Err(format!("field `{field}` is no text or number: {id:.40}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_module::testing::{TransformProbe, event};

    fn passes(probe: &mut TransformProbe<RepeatFilter>, key: &str, id: &str) -> Result<bool, String> {
        let mut event = event(format!(r#"{{"id":{id}}}"#));
        event.key = key.to_owned();
        Ok(!probe.process(event)?.is_empty())
    }

    #[test]
    fn drops_an_id_that_is_among_the_last_of_its_key() {
        let mut probe = TransformProbe::<RepeatFilter>::new(r#"{"field":"id","last":2}"#).unwrap();
        for (key, id, expected) in [
            ("a", "1", true),
            ("a", "1", false),
            ("b", "1", true),
            ("a", "\"1\"", true),
            ("a", "1", false),
            ("a", "2", true),
            ("a", "1", true),
            ("a", "2", false),
        ] {
            assert_eq!(passes(&mut probe, key, id), Ok(expected), "{key} {id}");
        }
    }

    #[test]
    fn fewer_ids_in_new_settings_are_the_last_ones() {
        let mut probe = TransformProbe::<RepeatFilter>::new(r#"{"field":"id"}"#).unwrap();
        for id in 0..50 {
            assert_eq!(passes(&mut probe, "a", &id.to_string()), Ok(true));
        }
        let mut probe = TransformProbe::<RepeatFilter>::again(r#"{"field":"id","last":2}"#).unwrap();
        assert_eq!(passes(&mut probe, "a", "48"), Ok(false));
        assert_eq!(passes(&mut probe, "a", "50"), Ok(true));
        assert_eq!(passes(&mut probe, "a", "48"), Ok(true));
    }

    #[test]
    fn as_many_of_the_longest_as_may_be_are_kept() {
        let mut probe = TransformProbe::<RepeatFilter>::new(r#"{"field":"id","last":900}"#).unwrap();
        for id in 0..1000 {
            assert_eq!(passes(&mut probe, "a", &format!("\"{id:062}\"")), Ok(true));
        }
    }

    #[test]
    fn refuses_in_words() {
        let fault = |config: &str| TransformProbe::<RepeatFilter>::new(config).unwrap_err();
        assert!(fault(r#"{"field":"id","last":0}"#).contains("`last` is 0"));
        assert!(fault(r#"{"field":"id","last":901}"#).contains("1 to 900"));
        let mut probe = TransformProbe::<RepeatFilter>::new(r#"{"field":"id"}"#).unwrap();
        let mut reason = |id: &str| passes(&mut probe, "a", id).unwrap_err();
        assert_eq!(reason("[1]"), "field `id` is no text or number: [1]");
        assert_eq!(reason("null"), "field `id` is no text or number: null");
        assert_eq!(reason(&"1".repeat(65)), "field `id` has 65 bytes: an id has at most 64");
        assert_eq!(probe.payloads("{}").unwrap_err(), "field `id` is missing");
    }

    #[test]
    fn whatever_comes_it_answers() {
        let samples: [&[u8]; 2] = [br#"{"id":17,"v":[1]}"#, br#"{"v":"\u00e9","id":"a-b"}"#];
        let mut answers = [0; 2];
        TransformProbe::<RepeatFilter>::new(r#"{"field":"id"}"#).unwrap().provoke(
            &samples,
            5000,
            |_, answer| {
                answers[usize::from(answer.is_ok())] += 1;
            },
        );
        assert!(answers.iter().all(|count| *count > 200), "{answers:?}");
    }
}
