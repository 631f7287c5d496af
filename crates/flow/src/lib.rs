//! The nouns that travel: what one stage hands to the next.

#[cfg(any(test, feature = "testing"))]
pub mod cases;
pub mod error_text;
pub mod letter;
mod run;
pub mod topic;

use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use letter::{DeadLetter, Kept, WindowOf};
pub use run::{NO_SPAN, Run, Span};
use serde::{Deserialize, Deserializer, Serialize};

/// Position of a message in the journal: contiguous from 0 within an [`Epoch`].
pub type Seq = u64;

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The host's clock. Only the edges ask for it; everything else takes time as an argument.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// This much later, at most the end of time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This much earlier, at least the Unix epoch.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// Time passed since `earlier`; zero when the clock went back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339, UTC, with what precision it has.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(time) => time.fmt(f),
            Err(_) => jiff::Timestamp::MAX.fmt(f),
        }
    }
}

/// Reads what `Display` writes.
impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: jiff::Timestamp = text.parse()?;
        Ok(Self(u64::try_from(time.as_microsecond()).unwrap_or(0)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A duration in whole microseconds, at most 584,000 years.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// 128 random bits made with a store, and for each outbox with its first result: after a loss
/// the sequence numbers start again, and only this tells the new ones from the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u128);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Reads what `Display` writes, in that one spelling.
impl std::str::FromStr for Epoch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let digits = Some(text).filter(|text| text.len() == 32 && text.bytes().all(hexadecimal));
        let bits = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok());
        bits.map(Self).ok_or("the epoch must be 32 lowercase hexadecimal digits")
    }
}

/// One MQTT publish, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The `[input.NAME]` it came through.
    pub input: Arc<str>,
    /// The topic it was published to.
    pub topic: String,
    /// Its bytes, as received.
    pub payload: bytes::Bytes,
    /// Those of its MQTT 5 user properties that a pipeline asks for.
    pub properties: Properties,
    /// The host's clock when it arrived.
    pub received: Timestamp,
    /// How the broker delivered it.
    pub delivery: Delivery,
}

/// User properties: names and values, each name once.
pub type Properties = Vec<(String, String)>;

impl Message {
    /// The user property of that name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Tells two messages apart: 64 bits of the SHA-256 of topic, payload and properties, since it is kept on disk.
#[must_use]
pub fn digest(topic: &str, payload: &[u8], properties: &[(String, String)]) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update((topic.len() as u64).to_le_bytes());
    hasher.update(topic);
    hasher.update(payload);
    for text in properties.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(text);
        hasher.update((text.len() as u64).to_le_bytes());
    }
    let digest = hasher.finalize();
    u64::from_le_bytes(*digest.first_chunk().expect("it has 32 bytes"))
}

/// What recognises a redelivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker kept it from before the subscription.
    pub retain: bool,
    /// Number of the broker's session with this input: a new one whenever the broker lost the last.
    pub session: u64,
    /// Packet identifier, 0 at QoS 0.
    pub packet: u16,
}

/// A message made usable: what travels through the transforms into the windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The MQTT topic it came from.
    pub topic: String,
    /// What it belongs to: order, windows and state are kept per key.
    pub key: String,
    /// Event time.
    pub time: Timestamp,
    /// Its content: JSON.
    pub payload: Vec<u8>,
}

/// Says upstream which records will never come, or not as they were: a record of the outbox, delivered
/// once like any result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What became of them.
    pub kind: LossKind,
    /// Where they were.
    pub stage: Cow<'static, str>,
    /// How many, where that is known.
    pub count: Option<u64>,
    /// The first one's number in the log of that stage, where it has one.
    pub first: Option<Seq>,
    /// The last one's.
    pub last: Option<Seq>,
    /// The earliest time they speak of, where that is known: event time, in journal and dead letters arrival.
    pub from: Option<Timestamp>,
    /// The latest.
    pub to: Option<Timestamp>,
    /// Why, for people.
    pub reason: String,
}

/// The way in which the records of a [`Report`] were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// Lost by damage to the state folder.
    Lost,
    /// Dropped by the policy of a full quota.
    Dropped,
    /// Merged into wider windows by the policy of a full quota.
    Coarsened,
    /// Dropped because they were too old.
    Expired,
}

impl LossKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Coarsened => "coarsened",
            Self::Expired => "expired",
        }
    }
}
