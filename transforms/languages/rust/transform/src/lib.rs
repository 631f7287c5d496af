//! A temperature in a field of the payload, to degrees Celsius.
use headwater_module::{Event, Transform, export_transform};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Celsius {
    field: String,
    #[serde(default)]
    from: Unit,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    #[default]
    Fahrenheit,
    Kelvin,
    Celsius,
}

impl Transform for Celsius {
    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        event.map_number(&self.field, |t| match self.from {
            Unit::Fahrenheit => (t - 32.0) / 1.8,
            Unit::Kelvin => t - 273.15,
            Unit::Celsius => t,
        })?;
        Ok(Some(event))
    }
}

export_transform!(Celsius);
