//! Payload bytes to an event: its key, its event time, and content that is known to be JSON, unless a
//! transform is to make it so.
//!
//! Pure: the host's clock travels in the message. A payload is read once, in one pass that checks
//! the whole of it and picks out the fields that the key and the time need. What cannot be used
//! is a reason for the dead letters, never a panic: nesting is bounded by the JSON reader, keys
//! by [`KEY_BYTES_MAX`].

mod guard;
mod stamp;
mod template;

use std::time::Duration;

pub use crate::flow::json::check_json;
use crate::flow::json::{JsonScalar, WantedFields};
use crate::flow::{Event, Message, Timestamp};
use crate::topic;
use guard::TIME_MAX;
pub use guard::{Arrival, Clock, Found, Guard, WhenOff};
pub use stamp::{Place, Stamp, TimeUnit, WhenMissing};
pub use template::{Template, TemplateError};

/// Longest key, in bytes: keys are part of every stored window.
pub const KEY_BYTES_MAX: usize = 1024;

/// How a pipeline reads its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Topic filters of the messages taken out of the input; empty takes all.
    pub topics: Vec<String>,
    /// What payloads are.
    pub format: Format,
    /// What an event belongs to.
    pub key: Template,
    /// Where event time stands; `None` takes the time of arrival.
    pub time: Option<Stamp>,
    /// How far from its arrival it may be, so that one wrong clock cannot make the others late.
    pub guard: Guard,
}

/// What payloads are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Any JSON.
    #[default]
    Json,
    /// A plain decimal number: becomes `{"value": number}`.
    Number,
    /// Any bytes, which a transform makes JSON of; they have no fields for key and time.
    Bytes,
}

/// Why a message cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the JSON that the pipeline expects.
    #[error("failed to read the payload as JSON: {0}")]
    Json(String),
    /// Not a number.
    #[error("failed to read the payload as a finite decimal number")]
    Number,
    /// The key names a topic segment or field that this message lacks.
    #[error("failed to make the key: {0}")]
    Key(String),
    /// No usable event time.
    #[error("failed to read the event time: {0}")]
    Time(String),
    /// Ahead of its arrival by more than the allowed skew.
    #[error("the event time {time} is more than {} s ahead of its arrival: set the device's clock, raise `skew`, or see `when_ahead`", skew.as_secs())]
    Ahead {
        /// The stamp.
        time: Timestamp,
        /// What is allowed.
        skew: Duration,
    },
    /// Behind its arrival by more than is allowed.
    #[error("the event time {time} is more than {} s before its arrival: set the device's clock, correct the `unit`, raise `past`, or see `when_past`", past.as_secs())]
    Past {
        /// The stamp.
        time: Timestamp,
        /// What is allowed.
        past: Duration,
    },
}

impl Error {
    /// What the stamp was found to be, if that is why.
    #[must_use]
    pub fn found(&self) -> Found {
        match self {
            Self::Ahead { .. } => Found::Ahead(WhenOff::Reject),
            Self::Past { .. } => Found::Past(WhenOff::Reject),
            _ => Found::Good,
        }
    }
}

/// The decoder of one pipeline.
#[derive(Debug)]
pub struct Decode {
    config: Config,
    fields: WantedFields,
    time_slot: Option<usize>,
}

impl Decode {
    /// Prepares the single pass over each payload.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut fields = WantedFields::strict();
        let time_slot = match config.time.as_ref().map(|stamp| &stamp.place) {
            Some(Place::Field(path)) => Some(fields.want_exactly(path)),
            _ => None,
        };
        for path in config.key.paths() {
            fields.want(path);
        }
        Self { config, fields, time_slot }
    }

    /// Whether the pipeline takes messages of this topic.
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        let filters = &self.config.topics;
        filters.is_empty() || filters.iter().any(|filter| topic::matches(topic, filter))
    }

    /// The message as an event, and what its stamp was found to be. A message that comes again may have
    /// been ahead of the host when it arrived, and not be so any more.
    ///
    /// # Errors
    /// When it cannot be used; the caller dead-letters it with the error's words.
    pub fn decode(&self, message: &Message, arrival: Arrival) -> Result<(Event, Found), Error> {
        let payload = self.payload(message)?;
        let found = match self.config.format {
            Format::Bytes => Vec::new(),
            _ => self.fields.pick(&payload).map_err(|error| Error::Json(error.to_string()))?,
        };
        let (time, stamp) = self.time(message, &found, arrival)?;
        let field = |path: &[String]| found.get(self.fields.slot(path)?)?.as_ref();
        let key = self.config.key.render(&message.topic, field).map_err(Error::Key)?;
        let event = Event { topic: message.topic.clone(), key, time, payload };
        check_bounds(&event)?;
        Ok((event, stamp))
    }

    /// Holds an event that a transform made to the bounds of key and time; a stamp too far ahead becomes
    /// what it would at [`Self::decode`]. How far behind it is is the module's to know.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn check(&self, event: &mut Event, arrival: Arrival) -> Result<Found, Error> {
        let guard = Guard { past: None, ..self.config.guard.clone() };
        let micros = i64::try_from(event.time.0).unwrap_or(i64::MAX);
        let (time, stamp) = guard.judge(micros, arrival)?;
        if stamp != Found::Good {
            event.time = time;
        }
        check_bounds(event)?;
        Ok(stamp)
    }

    fn payload(&self, message: &Message) -> Result<Vec<u8>, Error> {
        match self.config.format {
            Format::Json | Format::Bytes => Ok(message.payload.to_vec()),
            Format::Number => {
                let number = number(&message.payload).ok_or(Error::Number)?;
                Ok(format!(r#"{{"value":{number}}}"#).into_bytes())
            }
        }
    }

    fn time(
        &self,
        message: &Message,
        found: &[Option<JsonScalar>],
        arrival: Arrival,
    ) -> Result<(Timestamp, Found), Error> {
        let Some(stamp) = &self.config.time else { return Ok((arrival.time, Found::Good)) };
        let field = self.time_slot.and_then(|slot| found.get(slot)?.as_ref());
        match (stamp.read(message, field)?, stamp.when_missing) {
            (Some(micros), _) => self.config.guard.judge(micros, arrival),
            (None, WhenMissing::Arrival) => Ok((arrival.time, Found::Missing)),
            (None, WhenMissing::Reject) => {
                let place = &stamp.place;
                Err(Error::Time(format!("{place} is missing, or no number or text; see `time.missing`")))
            }
        }
    }
}

fn check_bounds(event: &Event) -> Result<(), Error> {
    let (bytes, time) = (event.key.len(), event.time);
    if bytes > KEY_BYTES_MAX {
        return Err(Error::Key(format!("it has {bytes} bytes, {KEY_BYTES_MAX} are allowed")));
    }
    if time > TIME_MAX {
        return Err(Error::Time(format!("{} microseconds since 1970 is after the year 9999", time.0)));
    }
    Ok(())
}

/// A number's JSON text; integers keep all their digits, and are judged by them.
fn number(payload: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(payload).ok()?.trim();
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.to_string());
    }
    let number: f64 = text.parse().ok()?;
    Some(serde_json::Number::from_f64(number)?.to_string())
}

#[cfg(test)]
mod tests;
