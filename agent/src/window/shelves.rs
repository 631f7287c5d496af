//! The keys at hand: a bounded cache over what the store holds.
//!
//! Two generations: a key that is used moves to the young one, and when that has half of the
//! bytes, what the old one still holds goes. What changed since the last commit stays.
//!
//! **Limits.** [`BYTES_MAX`] and what changed since the last commit. Beyond it a key costs a read of
//! its rows when it comes again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::codec;
use super::pane::Keyed;
use super::{Config, Error};
use crate::store::Rows;

/// Bytes of keys kept in memory.
pub const BYTES_MAX: usize = 4 << 20;
/// What a key and a pane take beside their states: estimated from their types, names included.
const KEY_BYTES: usize = 700;
const PANE_BYTES: usize = 250;

/// Reads what was committed.
pub trait Cold: fmt::Debug + Send {
    /// Shows the rows of a key, by their own keys and values.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&self, key: &str) -> Result<Rows, Error>;
}

/// The keys at hand.
#[derive(Debug)]
pub(super) struct Shelves {
    cold: Box<dyn Cold>,
    young: HashMap<Arc<str>, Keyed>,
    old: HashMap<Arc<str>, Keyed>,
    /// Of the young, when they came.
    bytes: usize,
    bytes_max: usize,
}

impl Shelves {
    pub(super) fn new(cold: Box<dyn Cold>, bytes_max: usize) -> Self {
        Self { cold, young: HashMap::new(), old: HashMap::new(), bytes: 0, bytes_max }
    }

    /// A key that is there, or was just made.
    pub(super) fn get(&mut self, config: &Config, key: &Arc<str>) -> Result<&mut Keyed, Error> {
        if !self.young.contains_key(key) {
            let keyed = match self.old.remove(key) {
                Some(keyed) => keyed,
                None => codec::keyed(config, &self.cold.rows(key)?)?,
            };
            self.bytes += weight(&keyed);
            if self.bytes > self.bytes_max / 2 {
                self.age();
                self.bytes += weight(&keyed);
            }
            self.young.insert(Arc::clone(key), keyed);
        }
        Ok(self.young.get_mut(key).expect("it was put there"))
    }

    /// The shared name of a key that is at hand.
    pub(super) fn name(&self, key: &str) -> Option<Arc<str>> {
        let known = self.young.get_key_value(key).or_else(|| self.old.get_key_value(key));
        known.map(|(name, _)| Arc::clone(name))
    }

    /// A key that changed since the last commit.
    pub(super) fn changed(&mut self, key: &str) -> Option<&mut Keyed> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    /// Drops a key that holds nothing.
    pub(super) fn drop(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn age(&mut self) {
        let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.young = old.into_iter().filter(|(_, keyed)| keyed.is_listed).collect();
        self.bytes = 0;
    }
}

fn weight(keyed: &Keyed) -> usize {
    KEY_BYTES + keyed.bytes + (keyed.panes.len() + keyed.chunks.len()) * PANE_BYTES
}
