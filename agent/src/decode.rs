//! Payload bytes to an event: its key, its event time, and content that is known to be JSON.
//!
//! Pure: the host's clock travels in the message. A payload is read once, in one pass that checks
//! the whole of it and picks out the fields that the key and the time need. What cannot be used
//! is a reason for the dead letters, never a panic: nesting is bounded by the JSON reader, keys
//! by [`KEY_BYTES_MAX`].

pub(crate) mod fields;
mod template;

use std::time::Duration;

use crate::flow::{Event, Message, Timestamp};
use crate::topic;
pub use fields::check_json;
use fields::{Fields, Scalar};
pub use template::{Template, TemplateError};

/// Longest key, in bytes: keys are part of every stored window.
pub const KEY_BYTES_MAX: usize = 1024;

/// Later than what RFC 3339 can write is no time, and would overflow a window's end.
const TIME_MAX: Timestamp = Timestamp(253_402_207_200_000_000);
/// A host clock before this (2024-01-01) has not been set since the power came: it judges no stamp.
const CLOCK_SET_AFTER: Timestamp = Timestamp(1_704_067_200_000_000);

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
    pub time: Option<TimeField>,
    /// How far ahead of the host's clock a stamp may be; further ahead it is rejected, so that one
    /// fast clock cannot make the others late. Default 5 min.
    pub skew: Duration,
}

/// What payloads are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Any JSON.
    #[default]
    Json,
    /// A plain decimal number: becomes `{"value": number}`.
    Number,
}

/// A field that holds event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeField {
    /// Path of the field, outermost name first.
    pub path: Vec<String>,
    /// What it counts.
    pub unit: TimeUnit,
}

/// What a time field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since the Unix epoch; fractions count.
    Seconds,
    /// Milliseconds since the Unix epoch.
    Millis,
    /// Microseconds since the Unix epoch.
    Micros,
    /// Nanoseconds since the Unix epoch, kept to the microsecond.
    Nanos,
    /// RFC 3339 text with an offset.
    Rfc3339,
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
    /// Ahead of the host's clock by more than the allowed skew.
    #[error("the event time {time} is more than {} s ahead of the host's clock: set the device's clock, or raise `skew`", skew.as_secs())]
    Skew {
        /// The stamp.
        time: Timestamp,
        /// What is allowed.
        skew: Duration,
    },
}

/// The decoder of one pipeline.
#[derive(Debug)]
pub struct Decode {
    config: Config,
    fields: Fields,
    time_slot: Option<usize>,
}

impl Decode {
    /// Prepares the single pass over each payload.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut fields = Fields::strict();
        let time_slot = config.time.as_ref().map(|time| fields.want(&time.path));
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

    /// The message as an event.
    ///
    /// # Errors
    /// When it cannot be used; the caller dead-letters it with the error's words.
    pub fn decode(&self, message: &Message) -> Result<Event, Error> {
        self.decode_at(message, message.received)
    }

    /// As [`Self::decode`], its stamp judged by this `clock`: a message that comes again may have
    /// been ahead of the host when it arrived, and not be so any more.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn decode_at(&self, message: &Message, clock: Timestamp) -> Result<Event, Error> {
        let payload = self.payload(message)?;
        let found = self.fields.pick(&payload).map_err(|error| Error::Json(error.to_string()))?;
        let time = self.time(message, &found)?;
        let field = |path: &[String]| self.fields.slot(path).and_then(|slot| found[slot].as_ref());
        let key = self.config.key.render(&message.topic, field).map_err(Error::Key)?;
        let event = Event { topic: message.topic.clone(), key, time, payload };
        self.check(&event, clock)?;
        Ok(event)
    }

    /// Whether key and time of an event keep to their bounds; `clock` is the host's, when it arrived.
    ///
    /// # Errors
    /// When one does not.
    pub fn check(&self, event: &Event, clock: Timestamp) -> Result<(), Error> {
        let (bytes, time, skew) = (event.key.len(), event.time, self.config.skew);
        if bytes > KEY_BYTES_MAX {
            return Err(Error::Key(format!("it has {bytes} bytes, {KEY_BYTES_MAX} are allowed")));
        }
        if time > TIME_MAX {
            return Err(Error::Time(format!("{} microseconds since 1970 is after the year 9999", time.0)));
        }
        if clock >= CLOCK_SET_AFTER && time > clock.after(skew) {
            return Err(Error::Skew { time, skew });
        }
        Ok(())
    }

    fn payload(&self, message: &Message) -> Result<Vec<u8>, Error> {
        match self.config.format {
            Format::Json => Ok(message.payload.to_vec()),
            Format::Number => {
                let number = number(&message.payload).ok_or(Error::Number)?;
                Ok(format!(r#"{{"value":{number}}}"#).into_bytes())
            }
        }
    }

    fn time(&self, message: &Message, found: &[Option<Scalar>]) -> Result<Timestamp, Error> {
        let (Some(field), Some(slot)) = (&self.config.time, self.time_slot) else {
            return Ok(message.received);
        };
        let name = || field.path.join(".");
        let Some(scalar) = &found[slot] else {
            return Err(Error::Time(format!("field `{}` is missing or not a number or text", name())));
        };
        let time = field.unit.read(scalar).ok_or_else(|| {
            Error::Time(format!(
                "field `{}` holds {scalar}, which is no time in {}",
                name(),
                field.unit.words()
            ))
        })?;
        Ok(time)
    }
}

impl TimeUnit {
    fn read(self, scalar: &Scalar) -> Option<Timestamp> {
        let micros = match (self, scalar) {
            (Self::Rfc3339, Scalar::Text(text)) => {
                let time: jiff::Timestamp = text.parse().ok()?;
                u64::try_from(time.as_microsecond()).ok()?
            }
            (Self::Rfc3339, _) | (_, Scalar::Text(_) | Scalar::Bool(_)) => return None,
            (unit, Scalar::Integer(count)) => unit.integer(*count)?,
            (unit, Scalar::Float(count)) => unit.float(*count)?,
        };
        (micros <= TIME_MAX.0).then_some(Timestamp(micros))
    }

    fn integer(self, count: u64) -> Option<u64> {
        match self {
            Self::Seconds => count.checked_mul(1_000_000),
            Self::Millis => count.checked_mul(1_000),
            Self::Nanos => Some(count / 1_000),
            Self::Micros | Self::Rfc3339 => Some(count),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    fn float(self, count: f64) -> Option<u64> {
        let micros = match self {
            Self::Seconds => count * 1e6,
            Self::Millis => count * 1e3,
            Self::Nanos => count / 1e3,
            Self::Micros | Self::Rfc3339 => count,
        };
        (0.0..9e18).contains(&micros).then(|| micros.round() as u64)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since 1970",
            Self::Millis => "milliseconds since 1970",
            Self::Micros => "microseconds since 1970",
            Self::Nanos => "nanoseconds since 1970",
            Self::Rfc3339 => "RFC 3339 with an offset",
        }
    }
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
mod tests {
    use super::*;
    use crate::flow::Delivery;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn message(payload: &[u8]) -> Message {
        Message {
            input: "plant".into(),
            topic: "plant/hall-2/press/telemetry".into(),
            payload: payload.to_vec().into(),
            received: NOW,
            delivery: Delivery::default(),
        }
    }

    fn config(key: &str, time: Option<(&str, TimeUnit)>) -> Config {
        Config {
            topics: Vec::new(),
            format: Format::Json,
            key: key.parse().unwrap(),
            time: time
                .map(|(path, unit)| TimeField { path: path.split('.').map(str::to_owned).collect(), unit }),
            skew: Duration::from_mins(5),
        }
    }

    #[track_caller]
    fn check_time(unit: TimeUnit, payload: &str, expected: Option<u64>) {
        let decode = Decode::new(config("k", Some(("ts", unit))));
        let time = decode.decode(&message(payload.as_bytes())).ok().map(|event| event.time.0);
        assert_eq!(time, expected, "{payload}");
    }

    #[test]
    fn event_time_is_read_in_its_unit() {
        check_time(TimeUnit::Millis, r#"{"ts":1700000000123}"#, Some(1_700_000_000_123_000));
        check_time(TimeUnit::Seconds, r#"{"ts":1700000000}"#, Some(1_700_000_000_000_000));
        check_time(TimeUnit::Seconds, r#"{"ts":1700000000.25}"#, Some(1_700_000_000_250_000));
        check_time(TimeUnit::Micros, r#"{"ts":1700000000123456}"#, Some(1_700_000_000_123_456));
        check_time(TimeUnit::Nanos, r#"{"ts":1700000000123456789}"#, Some(1_700_000_000_123_456));
        check_time(TimeUnit::Rfc3339, r#"{"ts":"2023-11-14T22:13:20.5Z"}"#, Some(1_700_000_000_500_000));
        check_time(TimeUnit::Rfc3339, r#"{"ts":"2023-11-14T23:13:20+01:00"}"#, Some(1_700_000_000_000_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        check_time(TimeUnit::Millis, r#"{"ts":-5}"#, None);
        check_time(TimeUnit::Millis, r#"{"ts":"1700000000123"}"#, None);
        check_time(TimeUnit::Millis, r#"{"ts":null}"#, None);
        check_time(TimeUnit::Millis, r#"{"ts":{"a":1}}"#, None);
        check_time(TimeUnit::Millis, r#"{"other":1}"#, None);
        check_time(TimeUnit::Millis, "[1]", None);
        check_time(TimeUnit::Seconds, r#"{"ts":1e300}"#, None);
        check_time(TimeUnit::Seconds, r#"{"ts":18446744073709551615}"#, None);
        check_time(TimeUnit::Rfc3339, r#"{"ts":"2023-11-14T22:13:20"}"#, None);
        check_time(TimeUnit::Micros, r#"{"ts":1,"ts":2}"#, None);
    }

    #[test]
    fn a_stamp_beyond_the_skew_is_refused_unless_the_host_clock_is_unset() {
        let ahead = NOW.0 / 1_000 + 6 * 60 * 1_000;
        let payload = format!(r#"{{"ts":{ahead}}}"#);
        check_time(TimeUnit::Millis, &payload, None);
        let decode = Decode::new(config("k", Some(("ts", TimeUnit::Millis))));
        let mut message = message(payload.as_bytes());
        message.received = Timestamp(5_000_000);
        assert_eq!(decode.decode(&message).unwrap().time.0, ahead * 1_000);
    }

    #[test]
    fn what_a_transform_makes_keeps_to_the_same_bounds() {
        let decode = Decode::new(config("k", None));
        let check = |key: &str, micros: u64| {
            let event = Event { key: key.to_owned(), time: Timestamp(micros), ..Event::default() };
            decode.check(&event, NOW).is_ok()
        };
        assert!(check("k", NOW.0) && check("k", NOW.after(Duration::from_mins(5)).0));
        assert!(!check("k", NOW.after(Duration::from_mins(6)).0), "it would make all others late");
        assert!(!check("k", u64::MAX));
        assert!(!check(&"k".repeat(KEY_BYTES_MAX + 1), NOW.0));
    }

    #[test]
    fn poison_is_refused_with_a_reason() {
        let decode = Decode::new(config("{topic[1]}", None));
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let twice = (0..40).map(|n| format!("\"f{n}\":0,")).collect::<String>();
        let twice = format!("{{{twice}\"f39\":1}}");
        for payload in [
            &b""[..],
            b"{",
            b"{}x",
            b"1e999",
            b"{\"a\":\"\xff\"}",
            b"nul",
            br#"{"a":1,"a":1}"#,
            br#"[{"a":1,"\u0061":1}]"#,
            br#"{"a":9007199254740993}"#,
            br#"{"a":-9007199254740993}"#,
            br#"{"a":123456789012345678901}"#,
            br#"{"a":[-123456789012345678901]}"#,
            twice.as_bytes(),
            deep.as_bytes(),
        ] {
            let refused = decode.decode(&message(payload));
            assert!(matches!(refused, Err(Error::Json(_))), "{:?}", String::from_utf8_lossy(payload));
        }
    }

    #[test]
    fn what_only_looks_like_poison_passes() {
        let decode = Decode::new(config("{field.id}", Some(("ts", TimeUnit::Nanos))));
        for payload in [
            r#"{"id":9007199254740992,"ts":1700000000123456789,"a":{"id":1},"b":{"id":1}}"#,
            r#"{"id":18446744073709551615,"ts":1700000000123456789,"a":9007199254740992}"#,
            r#"{"id":"a","ts":1,"a":1e20,"b":123456789012345678901.5,"c":"\"123456789012345678901"}"#,
            r#"{"id":"a","ts":1,"a":12345678901234567890e2,"b":{"a":-9007199254740992}}"#,
        ] {
            decode.decode(&message(payload.as_bytes())).expect(payload);
        }
    }

    #[track_caller]
    fn check_key(template: &str, payload: &str, expected: Option<&str>) {
        let key = Decode::new(config(template, None)).decode(&message(payload.as_bytes()));
        assert_eq!(key.ok().map(|event| event.key).as_deref(), expected, "{template} {payload}");
    }

    #[test]
    fn keys_come_from_topic_and_fields() {
        check_key("{topic[1]}/{topic[2]}", "{}", Some("hall-2/press"));
        check_key("{topic}", "{}", Some("plant/hall-2/press/telemetry"));
        check_key("{field.device}", r#"{"device":"a-7"}"#, Some("a-7"));
        check_key("{field.device}", r#"{"device":7}"#, Some("7"));
        check_key("{field.meta.id}-{topic[2]}", r#"{"meta":{"x":[1],"id":true}}"#, Some("true-press"));
        check_key("{topic[9]}", "{}", None);
        check_key("{field.device}", "{}", None);
        check_key("{field.device}", r#"{"device":[]}"#, None);
        check_key("{field.d}", &format!(r#"{{"d":"{}"}}"#, "x".repeat(KEY_BYTES_MAX + 1)), None);
    }

    #[track_caller]
    fn check_number(payload: &str, expected: Option<&str>) {
        let mut config = config("k", None);
        config.format = Format::Number;
        let event = Decode::new(config).decode(&message(payload.as_bytes())).ok();
        let text = event.map(|event| String::from_utf8(event.payload).unwrap());
        assert_eq!(text.as_deref(), expected, "{payload}");
    }

    #[test]
    fn plain_numbers_become_json() {
        check_number("21.5", Some(r#"{"value":21.5}"#));
        check_number(" +5\n", Some(r#"{"value":5}"#));
        check_number("9007199254740992", Some(r#"{"value":9007199254740992}"#));
        check_number("9007199254740993", None);
        check_number("nan", None);
        check_number("inf", None);
        check_number("1e999", None);
        check_number("21,5", None);
        check_number("", None);
    }
}
