//! Scores how far a number is from what its key's numbers were like: online, per key, a few dozen bytes each.
//!
//! Settings; the step needs `capabilities = ["state"]`:
//!
//! ```toml
//! field = "temperature"
//! limit = 5.3       # deviations from the mean at which one reading is anomalous
//! drift = 3.0       # the same for the mean of the recent readings
//! recent = 144      # readings in that mean
//! memory = 10000    # readings after which what was is forgotten: a new normal takes about so many
//! learn = 100       # first readings of a key, which score 0
//! daily = false     # whether the time of day has a mean of its own (UTC, by the hour)
//! prefix = ""       # before the names of the two fields that are added
//! ```
//!
//! All but `field` may be left out; these are the defaults. After readings around 20 with a deviation of 0.5,
//! `{"temperature":22.65}` becomes `{"temperature":22.65,"score":0.5,"anomalous":true}`. The score is from 0 to 1;
//! `anomalous` says that it is 0.5 or more, which is where a limit is reached. Refused is an event whose field is
//! missing, no number, or beyond 1e100. Settings may change while it runs; what was learnt stays.
//!
//! The method is in `model.rs`; `RESULTS.md` says how it does on recorded series, beside a plain z-score.

pub mod model;

use headwater_module::{Event, ObjectWriter, Transform, export_transform, state};
use model::{KeyModel, ScoreParameters};
use serde::Deserialize;

/// The largest amount of a number: squares up to it have room in a double.
const NUMBER_MAX: f64 = 1e100;

/// The score from which on a reading is anomalous.
pub const ANOMALOUS: f64 = 0.5;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnomalyScore {
    field: String,
    #[serde(default)]
    prefix: String,
    #[serde(flatten)]
    parameters: ScoreParameters,
    #[serde(skip)]
    names: [String; 2],
}

impl Transform for AnomalyScore {
    fn prepare(&mut self) -> Result<(), String> {
        self.names = ["score", "anomalous"].map(|name| format!("{}{name}", self.prefix));
        self.parameters.check()
    }

    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let object = event.object()?;
        let field = &self.field;
        let value = object.raw(field).ok_or_else(|| format!("field `{field}` is missing"))?;
        let number = object.number(field).filter(|number| number.abs() <= NUMBER_MAX);
        let number =
            number.ok_or_else(|| format!("field `{field}` is no number up to 1e100: {value:.40}"))?;
        let mut model: KeyModel = state::get(&event.key)?.unwrap_or_default();
        let score = model.score(event.time, number, &self.parameters);
        let mut payload = ObjectWriter::new();
        for (name, value) in object.members().filter(|(name, _)| self.names.iter().all(|added| added != name))
        {
            payload.raw(name, value);
        }
        payload.value(&self.names[0], &score)?;
        payload.value(&self.names[1], &(score >= ANOMALOUS))?;
        state::set(&event.key, &model)?;
        event.payload = payload.finish();
        Ok(Some(event))
    }
}
export_transform!(AnomalyScore);

#[cfg(test)]
mod tests;
