//! Dead letters, and the line of JSON in which people and tools read them. A line reads back exactly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Seq, Timestamp, UserProperties};

/// A message, event or result that a stage could not use, with the reason and all that a replay needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The pipeline that refused it; empty for a result that names none.
    pub pipeline: String,
    /// The stage that refused it: `decode`, `transform[0]`, `check`, `aggregate`, `encode`, `finish`, `output`.
    pub stage: String,
    /// The reason, which names place and remedy.
    pub reason: String,
    /// The digest of the module that refused it, if one did.
    pub module: Option<String>,
    /// The name of the `[input.NAME]` it came through; empty if that is not known.
    pub input: String,
    /// The MQTT topic it came from; empty if it was made of several messages.
    pub topic: String,
    /// The key it belongs to; empty if that was not known yet.
    pub key: String,
    /// The time at which it was refused, in microseconds since the Unix epoch.
    pub time: u64,
    /// The arrival of its message; behind the first transform, that of the last message of its slice.
    /// Zero if that is not known.
    pub received: Timestamp,
    /// The event time, once that was known.
    pub event_time: Option<Timestamp>,
    /// The window that could not be finished; the payload is its state.
    pub window: Option<UnfinishedWindow>,
    /// The letter whose replay made this one.
    pub replay_of: Option<Seq>,
    /// The user properties of the message, if the payload is a message's.
    pub properties: UserProperties,
    /// The bytes: of the message up to the first transform, then those that the stage was given.
    pub payload: Vec<u8>,
}

/// The stage of letters that a destination refused, and the name that letters kept by older versions have for it.
const OUTPUT_STAGE: [&str; 2] = ["output", "forward"];

impl DeadLetter {
    /// Returns whether the letter was refused at a stage; `output` is also the stage of letters that say `forward`.
    #[must_use]
    pub fn is_of_stage(&self, stage: &str) -> bool {
        self.stage == stage || [stage, self.stage.as_str()] == OUTPUT_STAGE
    }
}

/// The window of a result that could not be finished, with the counts that the result would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfinishedWindow {
    /// The first instant of the window.
    #[serde(with = "text")]
    pub start: Timestamp,
    /// The first instant after the window.
    #[serde(with = "text")]
    pub end: Timestamp,
    /// A number that tells windows with the same bounds apart.
    #[serde(default)]
    pub part: u32,
    /// The revision of the result, from 0.
    pub revision: u32,
    /// The number of readings used.
    pub count: u64,
    /// The number of these that came after the window had first closed.
    pub late: u64,
    /// The number of readings that the aggregate refused.
    pub rejected: u64,
}

/// A dead letter as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "LetterLine", try_from = "LetterLine")]
pub struct StoredLetter {
    /// The position of the letter in its log.
    pub number: Seq,
    /// True once a replay was given the letter.
    pub replayed: bool,
    /// The letter itself.
    pub letter: DeadLetter,
}

#[derive(Serialize, Deserialize)]
struct LetterLine {
    number: Seq,
    #[serde(with = "text")]
    time: Timestamp,
    pipeline: String,
    stage: String,
    reason: String,
    module: Option<String>,
    input: String,
    topic: String,
    key: String,
    #[serde(with = "optional_text")]
    received: Option<Timestamp>,
    #[serde(with = "optional_text")]
    event_time: Option<Timestamp>,
    window: Option<UnfinishedWindow>,
    replay_of: Option<Seq>,
    replayed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    properties: UserProperties,
    payload: Option<String>,
    payload_base64: Option<String>,
}

impl StoredLetter {
    /// Returns the letter as one line of JSON, without its line feed. A payload that is no UTF-8 is in
    /// `payload_base64`.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("plain fields can be written")
    }

    /// Reads the letter back from its line, to the byte.
    ///
    /// # Errors
    /// When it is no such line.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

impl From<StoredLetter> for LetterLine {
    fn from(StoredLetter { number, replayed, letter }: StoredLetter) -> Self {
        let (payload, payload_base64) = match String::from_utf8(letter.payload) {
            Ok(text) => (Some(text), None),
            Err(other) => (None, Some(BASE64.encode(other.as_bytes()))),
        };
        Self {
            number,
            time: Timestamp(letter.time),
            pipeline: letter.pipeline,
            stage: letter.stage,
            reason: letter.reason,
            module: letter.module,
            input: letter.input,
            topic: letter.topic,
            key: letter.key,
            received: Some(letter.received).filter(|received| received.0 > 0),
            event_time: letter.event_time,
            window: letter.window,
            replay_of: letter.replay_of,
            replayed,
            properties: letter.properties,
            payload,
            payload_base64,
        }
    }
}

impl TryFrom<LetterLine> for StoredLetter {
    type Error = base64::DecodeError;

    fn try_from(line: LetterLine) -> Result<Self, Self::Error> {
        let payload = match (line.payload, line.payload_base64) {
            (_, Some(base64)) => BASE64.decode(base64)?,
            (text, None) => text.unwrap_or_default().into_bytes(),
        };
        let letter = DeadLetter {
            pipeline: line.pipeline,
            stage: line.stage,
            reason: line.reason,
            module: line.module,
            input: line.input,
            topic: line.topic,
            key: line.key,
            time: line.time.0,
            received: line.received.unwrap_or_default(),
            event_time: line.event_time,
            window: line.window,
            replay_of: line.replay_of,
            properties: line.properties,
            payload,
        };
        Ok(Self { number: line.number, replayed: line.replayed, letter })
    }
}

/// Writes a time as RFC 3339, or as microseconds since 1970 if that is out of the range of RFC 3339.
mod text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        let plain =
            i64::try_from(time.0).is_ok_and(|micros| jiff::Timestamp::from_microsecond(micros).is_ok());
        if plain { serializer.collect_str(time) } else { serializer.collect_str(&time.0) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
        if let Ok(micros) = text.parse() {
            return Ok(Timestamp(micros));
        }
        let time: jiff::Timestamp = text.parse().map_err(|error| format!("{text:?} is no time: {error}"))?;
        u64::try_from(time.as_microsecond()).map(Timestamp).map_err(|_| format!("{text:?} is before 1970"))
    }
}

mod optional_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => text::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text::parse(&text)).transpose().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_letter;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_reads_back_exactly(number in any::<u64>(), replayed in any::<bool>(), letter in any_letter()) {
            let stored = StoredLetter { number, replayed, letter };
            let line = stored.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(StoredLetter::from_line(&line).unwrap(), stored);
        }
    }
}
