//! What windows and aggregates hand to each other.

use super::Timestamp;

/// What a window's readings become: a module, or a built-in. The empty state is neutral, and readings
/// given one by one come to the same state as given at once.
pub trait Aggregate {
    /// New states, one for each group, in their order.
    fn update(&mut self, groups: &[Group]) -> Vec<Updated>;
    /// Two states of one key as one, or why not; the earlier readings are in the first.
    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String>;
    /// The results' JSON, or why there is none, one for each window, in their order.
    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>>;
}

/// New samples of one (key, window).
#[derive(Clone, Debug)]
pub struct Group {
    /// What the samples belong to.
    pub key: String,
    /// The window's first moment.
    pub start: Timestamp,
    /// The first moment after the window.
    pub end: Timestamp,
    /// What the last update of it returned; empty the first time.
    pub state: Vec<u8>,
    /// Event times and payloads.
    pub samples: Vec<(Timestamp, Vec<u8>)>,
}

/// A group's new state and the samples refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// To be kept, and handed over with the next samples.
    pub state: Vec<u8>,
    /// Indexes count within the group's samples.
    pub rejected: Vec<Rejection>,
}

/// A window to be turned into its result.
#[derive(Clone, Debug)]
pub struct Closed {
    /// What the readings belong to.
    pub key: String,
    /// The window's first moment.
    pub start: Timestamp,
    /// The first moment after the window.
    pub end: Timestamp,
    /// What the last update of it returned.
    pub state: Vec<u8>,
    /// Readings used.
    pub count: u64,
    /// Of these, readings that came after the window had first closed.
    pub late: u64,
    /// 0 the first time, then one more with each time late readings change the result.
    pub revision: u32,
}

/// An input the module refused, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Position in the call's list.
    pub index: usize,
    /// The module's or the host's words.
    pub reason: String,
}
