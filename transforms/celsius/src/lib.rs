//! A temperature in a field of the payload, to degrees Celsius.
mod unit;
use headwater_module::{Event, Transform, export_transform};

/// Settings: the field, and what it comes in.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Celsius {
    field: String,
    #[serde(default)]
    from: unit::Unit,
}

impl Transform for Celsius {
    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        event.map_number(&self.field, |degrees| self.from.to_celsius(degrees))?;
        Ok(Some(event))
    }
}
export_transform!(Celsius);
