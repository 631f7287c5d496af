//! Tells a retained message that was stored already; pure.
//!
//! A broker sends the retained message of each topic at a SUBSCRIBE, marked as retained. When a session
//! was lost, or filters were added, it may be what is in the journal already: then it is acknowledged and
//! not stored again. It is recognised by being equal to the last message of its topic, whether that
//! came as retained or live.
//!
//! **Bound**: the last message of [`TOPICS_MAX`] topics, 2 MiB; after a restart of those among the messages
//! that the journal still has to recognise redeliveries. A replay of any other topic is stored, and counts again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::flow::UserProperties;

/// Topics whose last message is remembered.
const TOPICS_MAX: usize = 65_536;

/// The last message of each topic, as digests.
#[derive(Debug, Default)]
pub(super) struct Replay {
    last: HashMap<u64, u64>,
    hasher: RandomState,
}

impl Replay {
    /// A message was stored, or is about to be.
    pub(super) fn stored(&mut self, topic: &str, payload: &[u8], properties: &UserProperties) {
        let (topic, digest) = self.digests(topic, payload, properties);
        if self.last.len() < TOPICS_MAX || self.last.contains_key(&topic) {
            self.last.insert(topic, digest);
        }
    }

    /// Whether a retained message is the topic's last.
    pub(super) fn is_known(&self, topic: &str, payload: &[u8], properties: &UserProperties) -> bool {
        let (topic, digest) = self.digests(topic, payload, properties);
        self.last.get(&topic) == Some(&digest)
    }

    fn digests(&self, topic: &str, payload: &[u8], properties: &UserProperties) -> (u64, u64) {
        (self.hasher.hash_one(topic), self.hasher.hash_one((payload, properties)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_a_topic_is_known_and_no_other() {
        let mut replay = Replay::default();
        assert!(!replay.is_known("t", b"", &Vec::new()));
        replay.stored("t", b"on", &Vec::new());
        assert!(replay.is_known("t", b"on", &Vec::new()));
        assert!(!replay.is_known("u", b"on", &Vec::new()));
        replay.stored("t", b"off", &Vec::new());
        assert!(!replay.is_known("t", b"on", &Vec::new()), "it was on, off, and on again");
        assert!(replay.is_known("t", b"off", &Vec::new()));
        let stamped = vec![("ts".to_owned(), "5".to_owned())];
        assert!(!replay.is_known("t", b"off", &stamped), "of another time");
    }

    #[test]
    fn topics_beyond_the_bound_are_not_remembered() {
        let mut replay = Replay::default();
        for topic in 0..=TOPICS_MAX {
            replay.stored(&topic.to_string(), b"on", &Vec::new());
        }
        assert!(replay.is_known("0", b"on", &Vec::new()));
        assert!(!replay.is_known(&TOPICS_MAX.to_string(), b"on", &Vec::new()));
        replay.stored("0", b"off", &Vec::new());
        assert!(replay.is_known("0", b"off", &Vec::new()));
    }
}
