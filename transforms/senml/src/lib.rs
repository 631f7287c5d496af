//! SenML (RFC 8428), JSON or CBOR, to one event a record, with the base fields resolved into each.
//!
//! Settings:
//!
//! ```toml
//! key = "name"        # the event's key becomes the record's name (default); "keep" leaves it as it is
//! ```
//!
//! `[{"bn":"urn:dev:ow:1:","bt":1.7e9,"n":"temp","u":"Cel","v":23.1},{"n":"open","t":5,"vb":false}]` becomes
//! `{"name":"urn:dev:ow:1:temp","unit":"Cel","value":23.1}` at 1,700,000,000 s and
//! `{"name":"urn:dev:ow:1:open","value":false}` five seconds later. `value` is a number, a text, `true` or `false`, or
//! the base64url text of `vd`; `sum` and `update_time` are there where the record has them. A time below 2^28 is
//! relative to the event's own. SenML in CBOR needs `format = "bytes"` in the pipeline.
//!
//! A pack is taken whole or refused whole, with the first record at fault (the first is 0): without name or value,
//! with two values, of a version above 10, or with a field that ends in `_` and so must be understood.

mod pack;
mod record;

use headwater_module::{Event, ObjectWriter, Transform, export_transform};
use record::{RecordValue, ResolvedRecord, SenmlRecord};
use serde::Deserialize;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SenmlDecoder {
    #[serde(default)]
    key: KeyChoice,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyChoice {
    #[default]
    Name,
    Keep,
}

impl Transform for SenmlDecoder {
    fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let records = pack::read(&event.payload)?;
        let mut base = SenmlRecord::default();
        let mut events = Vec::with_capacity(records.len());
        for (index, record) in records.into_iter().enumerate() {
            let resolved = record::resolve(&mut base, record, event.time);
            let resolved = resolved.and_then(|resolved| self.event(&event, resolved));
            events.push(resolved.map_err(|reason| format!("record {index}: {reason}"))?);
        }
        Ok(events)
    }
}
export_transform!(SenmlDecoder);

impl SenmlDecoder {
    fn event(&self, of: &Event, resolved: ResolvedRecord) -> Result<Event, String> {
        let mut object = ObjectWriter::new();
        object.value("name", &resolved.name)?;
        if let Some(unit) = &resolved.unit {
            object.value("unit", unit)?;
        }
        match &resolved.value {
            Some(RecordValue::Number(number)) => object.value("value", number)?,
            Some(RecordValue::Text(text) | RecordValue::Data(text)) => object.value("value", text)?,
            Some(RecordValue::Flag(flag)) => object.value("value", flag)?,
            None => {}
        }
        if let Some(sum) = &resolved.sum {
            object.value("sum", sum)?;
        }
        if let Some(update_time) = &resolved.update_time {
            object.value("update_time", update_time)?;
        }
        let key = match self.key {
            KeyChoice::Name => resolved.name,
            KeyChoice::Keep => of.key.clone(),
        };
        Ok(Event { topic: of.topic.clone(), key, time: resolved.time, payload: object.finish() })
    }
}

#[cfg(test)]
mod tests;
