//! A dead letter, and the line of JSON that people and tools read and that reads back exactly.

use super::{Properties, Seq, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something that cannot be used, with its original bytes, the reason, and what a replay needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The pipeline that refused it; empty for a result that names none.
    pub pipeline: String,
    /// Where: `decode`, `transform[0]`, `check`, `aggregate`, `encode`, `finish`, `output`.
    pub stage: String,
    /// Why, naming the place and the remedy.
    pub reason: String,
    /// Digest of the module that refused it, if one did.
    pub module: Option<String>,
    /// The `[input.NAME]` it came through; empty where that is not known.
    pub input: String,
    /// The MQTT topic it came from; empty where several made it.
    pub topic: String,
    /// What it belongs to; empty where that was not known yet.
    pub key: String,
    /// When it was refused, in microseconds since the Unix epoch.
    pub time: u64,
    /// When its message arrived; behind the first transform, the last message of its slice. Zero
    /// where that is not known.
    pub received: Timestamp,
    /// Its event time, once that was known.
    pub event_time: Option<Timestamp>,
    /// The window that could not be finished; the payload is its state.
    pub window: Option<WindowOf>,
    /// The letter whose replay made this one.
    pub replay_of: Option<Seq>,
    /// Of its message, where that is what it holds.
    pub properties: Properties,
    /// Its bytes: of the message up to the first transform, then those the stage was given.
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

/// What a result says of its window, beside its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowOf {
    /// First instant.
    #[serde(with = "text")]
    pub start: Timestamp,
    /// First instant after it.
    #[serde(with = "text")]
    pub end: Timestamp,
    /// Tells windows with the same bounds apart.
    #[serde(default)]
    pub part: u32,
    /// Of the result.
    pub revision: u32,
    /// Readings used.
    pub count: u64,
    /// Of these, readings that came after the window had first closed.
    pub late: u64,
    /// Readings that the aggregate refused.
    pub rejected: u64,
}

/// A dead letter in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Line", try_from = "Line")]
pub struct Kept {
    /// Its number.
    pub number: Seq,
    /// Whether it was given to a replay.
    pub replayed: bool,
    /// What is kept.
    pub letter: DeadLetter,
}

#[derive(Serialize, Deserialize)]
struct Line {
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
    window: Option<WindowOf>,
    replay_of: Option<Seq>,
    replayed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    properties: Properties,
    payload: Option<String>,
    payload_base64: Option<String>,
}

impl Kept {
    /// One line of JSON, without its line feed. Bytes that are no UTF-8 are in `payload_base64`.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("plain fields can be written")
    }

    /// The letter that a line was made of, to the byte.
    ///
    /// # Errors
    /// When it is no such line.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

impl From<Kept> for Line {
    fn from(Kept { number, replayed, letter }: Kept) -> Self {
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

impl TryFrom<Line> for Kept {
    type Error = base64::DecodeError;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
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

/// RFC 3339; microseconds since 1970 where that cannot say it.
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
        let words = Option::<String>::deserialize(deserializer)?;
        words.map(|words| text::parse(&words)).transpose().map_err(serde::de::Error::custom)
    }
}

#[cfg(any(test, feature = "testing"))]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_window()(
            (start, end) in any::<(u64, u64)>(),
            revision in any::<u32>(),
            (count, late, rejected) in any::<(u64, u64, u64)>(),
        ) -> WindowOf {
            WindowOf { start: Timestamp(start), end: Timestamp(end), part: revision / 2, revision, count, late, rejected }
        }
    }

    prop_compose! {
        /// Any dead letter at all.
        pub fn any_letter()(
            texts in [".{0,9}", ".{0,9}", ".{0,90}", ".{0,9}", ".{0,40}", ".{0,40}"],
            module in proptest::option::of(".{0,70}"),
            (time, received) in any::<(u64, u64)>(),
            event_time in any::<Option<u64>>(),
            window in proptest::option::of(any_window()),
            replay_of in any::<Option<u64>>(),
            properties in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..3),
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                ".{0,80}".prop_map(String::into_bytes),
            ],
        ) -> DeadLetter {
            let [pipeline, stage, reason, input, topic, key] = texts;
            let (received, event_time) = (Timestamp(received), event_time.map(Timestamp));
            DeadLetter {
                pipeline, stage, reason, module, input, topic, key, time, received, event_time, window,
                replay_of, properties, payload,
            }
        }
    }

    proptest! {
        #[test]
        fn a_line_reads_back_exactly(number in any::<u64>(), replayed in any::<bool>(), letter in any_letter()) {
            let kept = Kept { number, replayed, letter };
            let line = kept.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Kept::from_line(&line).unwrap(), kept);
        }
    }
}
