//! A temperature in a field of the payload, to degrees Celsius.
use headwater_module::{Event, Transform, choice, export_transform};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Celsius {
    field: String,
    from: Unit,
}

choice!(Unit: Fahrenheit, Kelvin, Celsius);

impl Transform for Celsius {
    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        event.map_number(&self.field, |t| [(t - 32.0) / 1.8, t - 273.15, t][self.from as usize])?;
        Ok(Some(event))
    }
}

export_transform!(Celsius);
