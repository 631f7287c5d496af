//! A temperature in a field of the payload, to degrees Celsius.
use headwater_module::{Event, Transform, choice, export_transform};
use std::iter::repeat_n;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ToCelsius {
    field: String,
    from: TemperatureUnit,
    #[serde(default = "once")]
    repeat: u8,
}

choice!(TemperatureUnit: Fahrenheit, Kelvin, Celsius);

fn once() -> u8 {
    1
}

impl Transform for ToCelsius {
    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        event.map_number(&self.field, |t| [(t - 32.0) / 1.8, t - 273.15, t][self.from as usize])?;
        // No event, one or several: here one a second (in microseconds).
        let events = repeat_n(event, self.repeat.into()).zip(0..);
        Ok(events.map(|(event, n)| Event { time: event.time + n * 1_000_000, ..event }))
    }
}

export_transform!(ToCelsius);
