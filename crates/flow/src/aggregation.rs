//! The values that windows and aggregates hand to each other.

use super::Timestamp;

/// A function from the readings of a window to its result: a module or a built-in. The empty state is
/// neutral, and readings give the same state one by one as all at once.
pub trait Aggregate {
    /// Adds the samples of each group to its state, and returns one update for each group, in their order.
    fn update(&mut self, groups: &[Group]) -> Vec<Updated>;
    /// Merges two states of one key, the one with the earlier readings first.
    ///
    /// # Errors
    /// The reason, if the states cannot be merged.
    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String>;
    /// Returns the result of each window as JSON, or the reason for which there is none, in their order.
    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>>;
}

/// The new samples of one key in one window.
#[derive(Clone, Debug)]
pub struct Group {
    /// The key of the samples.
    pub key: String,
    /// The first instant of the window.
    pub start: Timestamp,
    /// The first instant after the window.
    pub end: Timestamp,
    /// The state that the last update returned; empty the first time.
    pub state: Vec<u8>,
    /// The samples: event time and payload.
    pub samples: Vec<(Timestamp, Vec<u8>)>,
}

/// The new state of a group, and the samples that were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// The state to keep and to hand over with the next samples.
    pub state: Vec<u8>,
    /// The refused samples, with their indexes within the group.
    pub rejected: Vec<Rejection>,
}

/// A window whose result is due.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The key of the readings.
    pub key: String,
    /// The first instant of the window.
    pub start: Timestamp,
    /// The first instant after the window.
    pub end: Timestamp,
    /// The state that the last update returned.
    pub state: Vec<u8>,
    /// The number of readings used.
    pub count: u64,
    /// The number of these that came after the window had first closed.
    pub late: u64,
    /// The revision of the result: 0, and one more each time that late readings change it.
    pub revision: u32,
}

/// An input that was refused, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The index in the list of the call.
    pub index: usize,
    /// The reason, in the words of the module or the host.
    pub reason: String,
}
