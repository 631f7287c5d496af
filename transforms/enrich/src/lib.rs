//! Fields from a table, by the event's key or by a field of its payload.
//!
//! Settings:
//!
//! ```toml
//! field = "sensor"                # what to look up; without it, the event's key
//! missing = "reject"              # what is not in the table: "reject" (default), "pass" as it is, or "drop"
//! table = { s1 = { site = "north", gain = 2 }, s2 = { site = "south", gain = 3 } }
//! ```
//!
//! `{"sensor":"s1","v":4}` becomes `{"sensor":"s1","v":4,"gain":2,"site":"north"}`. A field of the table takes the
//! place of one that has its name already. A number is looked up as it is written: `7`, not `7.0`.

use headwater_module::{Event, ObjectWriter, Transform, export_transform};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableLookup {
    field: Option<String>,
    #[serde(default)]
    missing: MissingPolicy,
    table: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// The table's fields, with their values as JSON.
    #[serde(skip)]
    written: BTreeMap<String, Vec<(String, String)>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MissingPolicy {
    #[default]
    Reject,
    Pass,
    Drop,
}

impl Transform for TableLookup {
    fn prepare(&mut self) -> Result<(), String> {
        let table = std::mem::take(&mut self.table).into_iter();
        self.written = table.map(|(name, fields)| (name, written(fields))).collect();
        Ok(())
    }

    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let name = self.name(&event)?;
        let Some(fields) = self.written.get(name.as_ref()) else {
            return match self.missing {
                MissingPolicy::Reject => Err(format!("{name:.80?} is not in the table")),
                MissingPolicy::Pass => Ok(Some(event)),
                MissingPolicy::Drop => Ok(None),
            };
        };
        let mut object = ObjectWriter::new();
        for (name, value) in event.object()?.members() {
            if fields.iter().all(|(added, _)| added != name) {
                object.raw(name, value);
            }
        }
        for (name, value) in fields {
            object.raw(name, value);
        }
        let payload = object.finish();
        drop(name);
        event.payload = payload;
        Ok(Some(event))
    }
}
export_transform!(TableLookup);

impl TableLookup {
    /// Returns the name to look up.
    fn name<'a>(&self, event: &'a Event) -> Result<Cow<'a, str>, String> {
        let Some(field) = &self.field else { return Ok(Cow::Borrowed(&event.key)) };
        let object = event.object()?;
        let value = object.raw(field).ok_or_else(|| format!("field `{field}` is missing"))?;
        match value.as_bytes().first() {
            Some(b'"') => serde_json::from_str(value)
                .map(Cow::Owned)
                .map_err(|error| format!("failed to read field `{field}`: {error}")),
            Some(b'{' | b'[') => Err(format!("field `{field}` is no text or number: {value:.40}")),
            _ => Ok(Cow::Borrowed(value)),
        }
    }
}

fn written(fields: BTreeMap<String, serde_json::Value>) -> Vec<(String, String)> {
    fields.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_module::JsonObject;
    use headwater_module::testing::{TransformProbe, event};

    const TABLE: &str = r#""table":{"s1":{"site":"north","gain":2},"7":{"v":null},"k":{"by":"key"}}"#;

    #[track_caller]
    fn check(settings: &str, payload: &str, expected: Result<&[&str], &str>) {
        let mut probe = TransformProbe::<TableLookup>::new(&format!("{{{settings}{TABLE}}}")).unwrap();
        match (probe.payloads(payload), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, _) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn adds_the_fields_of_the_table() {
        let sensor = r#""field":"sensor","#;
        let expected = r#"{"sensor":"s1","v":4,"gain":2,"site":"north"}"#;
        check(sensor, r#"{"sensor":"s1","v":4}"#, Ok(&[expected]));
        check(sensor, r#"{"sensor":7,"v":4}"#, Ok(&[r#"{"sensor":7,"v":null}"#]));
        check(
            sensor,
            r#"{"sensor":"\u0073\u0031"}"#,
            Ok(&[r#"{"sensor":"\u0073\u0031","gain":2,"site":"north"}"#]),
        );
        check("", r#"{"v":4}"#, Ok(&[r#"{"v":4,"by":"key"}"#]));
    }

    #[test]
    fn says_what_is_not_there() {
        let sensor = r#""field":"sensor","#;
        check(sensor, r#"{"sensor":"s9"}"#, Err(r#""s9" is not in the table"#));
        check(sensor, r#"{"v":1}"#, Err("field `sensor` is missing"));
        check(sensor, r#"{"sensor":[1]}"#, Err("field `sensor` is no text or number: [1]"));
        check(sensor, r#"{"sensor":"\ud800"}"#, Err("failed to read field `sensor`: "));
        check("", "[]", Err("not a JSON object"));
        check(r#""missing":"pass","field":"v","#, r#"{"v":1}"#, Ok(&[r#"{"v":1}"#]));
        check(r#""missing":"drop","field":"v","#, r#"{"v":1}"#, Ok(&[]));
    }

    #[test]
    fn refuses_settings_that_are_none() {
        assert!(TransformProbe::<TableLookup>::new("{}").unwrap_err().contains("missing field `table`"));
        let fault = TransformProbe::<TableLookup>::new(r#"{"table":{},"missing":"skip"}"#).unwrap_err();
        assert!(fault.contains("unknown variant `skip`"), "{fault}");
    }

    #[test]
    fn whatever_comes_it_answers_with_json_or_a_reason() {
        let mut probe =
            TransformProbe::<TableLookup>::new(&format!(r#"{{"field":"sensor",{TABLE}}}"#)).unwrap();
        let samples: [&[u8]; 2] = [br#"{"sensor":"s1","v":[1,{"a":"\u00e9"}]}"#, br#"{"v":1e3,"sensor":7}"#];
        let mut taken = 0;
        probe.provoke(&samples, 5000, |payload, answer| {
            if let Ok(events) = answer {
                JsonObject::parse(&events[0].payload).unwrap_or_else(|error| panic!("{error}: {payload:?}"));
                taken += 1;
            }
        });
        assert!(taken > 100, "{taken}");
        assert!(probe.process(event(b"\xff")).unwrap_err().contains("not UTF-8"));
    }
}
