//! A message as it was published, and the marks that recognise a redelivery of it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Timestamp;

/// An MQTT publish, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The name of the `[input.NAME]` it came through.
    pub input: Arc<str>,
    /// The topic it was published to.
    pub topic: String,
    /// The bytes, as received.
    pub payload: bytes::Bytes,
    /// Those of its MQTT 5 user properties that a pipeline asks for.
    pub properties: UserProperties,
    /// The host's clock when it arrived.
    pub received: Timestamp,
    /// The circumstances of its delivery, by which a redelivery is recognised.
    pub delivery: MqttDelivery,
}

impl Message {
    /// Returns the value of the user property with this name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// MQTT 5 user properties: names and values, each name once.
pub type UserProperties = Vec<(String, String)>;

/// The circumstances in which the broker delivered a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MqttDelivery {
    /// Quality of service: 0, 1 or 2.
    pub qos: u8,
    /// True when the broker kept the message from before the subscription.
    pub retain: bool,
    /// The number of the broker's session with this input: a new one whenever the broker lost the last.
    pub session: u64,
    /// The packet identifier; 0 at QoS 0.
    pub packet: u16,
}

/// Returns 64 bits of the SHA-256 of topic, payload and properties, which tell two messages apart.
/// The digest is kept on disk, so its algorithm must not change.
#[must_use]
pub fn message_digest(topic: &str, payload: &[u8], properties: &[(String, String)]) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update((topic.len() as u64).to_le_bytes());
    hasher.update(topic);
    hasher.update(payload);
    for text in properties.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(text);
        hasher.update((text.len() as u64).to_le_bytes());
    }
    let digest = hasher.finalize();
    u64::from_le_bytes(*digest.first_chunk().expect("a SHA-256 has 32 bytes"))
}
