//! The decoded form of a message.

use crate::Timestamp;

/// A decoded message, as it travels through the transforms into the windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The MQTT topic of the message.
    pub topic: String,
    /// The key: order, windows and state are kept for each key by itself.
    pub key: String,
    /// The event time, at which the device measured.
    pub time: Timestamp,
    /// The content, as JSON.
    pub payload: Vec<u8>,
}
