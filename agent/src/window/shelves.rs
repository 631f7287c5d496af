//! The keys at hand: a bounded cache over what the store holds.
//!
//! When a commit has taken what changed, keys that were not used since the last one go first, then
//! those that were used longest ago, until the rest takes half of what it may.
//!
//! **Limits.** [`BYTES_MAX`] and what changed since the last commit. Beyond it a key costs a read of
//! its rows when it comes again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::codec;
use super::pane::Keyed;
use super::{Config, Error};
use crate::store::EachOf;

/// Bytes of keys kept in memory.
pub const BYTES_MAX: usize = 4 << 20;
/// What a key and a pane take beside their states: estimated from their types, names included.
const KEY_BYTES: usize = 700;
const PANE_BYTES: usize = 250;

/// Takes a row's tail, behind the key, and its value.
pub type Each<'a> = EachOf<'a, Error>;

/// Reads what was committed.
pub trait Cold: fmt::Debug + Send {
    /// Shows the rows of a key, by what stands behind it in the rows' own keys.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&self, key: &str, each: Each<'_>) -> Result<(), Error>;
}

/// Where a key is; it stays there until the next commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot(usize);

/// The keys at hand.
#[derive(Debug)]
pub(super) struct Shelves {
    cold: Box<dyn Cold>,
    spots: HashMap<Arc<str>, Spot>,
    kept: Vec<Option<Kept>>,
    free: Vec<Spot>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    name: Arc<str>,
    keyed: Keyed,
    /// As it was when it was last looked at.
    bytes: usize,
    /// Since the last commit.
    used: bool,
}

impl Shelves {
    pub(super) fn new(cold: Box<dyn Cold>, bytes_max: usize) -> Self {
        let (spots, kept, free) = (HashMap::new(), Vec::new(), Vec::new());
        Self { cold, spots, kept, free, bytes: 0, bytes_max }
    }

    /// Where a key is, that is there or was just made.
    pub(super) fn find(&mut self, config: &Config, key: &str) -> Result<Spot, Error> {
        if let Some(spot) = self.spots.get(key) {
            return Ok(*spot);
        }
        let keyed = codec::keyed(config, |each| self.cold.rows(key, each))?;
        let bytes = weight(&keyed);
        let name: Arc<str> = Arc::from(key);
        self.bytes += bytes;
        let spot = self.free.pop().unwrap_or(Spot(self.kept.len()));
        if spot.0 == self.kept.len() {
            self.kept.push(None);
        }
        self.kept[spot.0] = Some(Kept { name: Arc::clone(&name), keyed, bytes, used: true });
        self.spots.insert(name, spot);
        Ok(spot)
    }

    /// The key at a spot, and its name.
    pub(super) fn at(&mut self, spot: Spot) -> (&Arc<str>, &mut Keyed) {
        let kept = self.kept[spot.0].as_mut().expect("keys stay until the next commit");
        kept.used = true;
        (&kept.name, &mut kept.keyed)
    }

    /// After a commit took what was `changed`, in that order.
    pub(super) fn make_room(&mut self, changed: &[Spot]) {
        for spot in changed {
            let Some(kept) = &mut self.kept[spot.0] else { continue };
            let bytes = weight(&kept.keyed);
            self.bytes = self.bytes + bytes - kept.bytes;
            kept.bytes = bytes;
            if kept.keyed.is_empty() {
                self.drop(*spot);
            }
        }
        if self.bytes > self.bytes_max {
            let unused = |(at, kept): (usize, &Option<Kept>)| {
                kept.as_ref().is_some_and(|kept| !kept.used).then_some(Spot(at))
            };
            let unused: Vec<_> = self.kept.iter().enumerate().filter_map(unused).collect();
            for spot in unused.iter().chain(changed) {
                if self.bytes <= self.bytes_max / 2 {
                    break;
                }
                self.drop(*spot);
            }
        }
        for kept in self.kept.iter_mut().flatten() {
            kept.used = false;
        }
    }

    /// Drops a key, unless its readings wait.
    fn drop(&mut self, spot: Spot) {
        if let Some(kept) = self.kept[spot.0].take_if(|kept| kept.keyed.waiting.is_empty()) {
            self.bytes -= kept.bytes;
            self.spots.remove(&kept.name);
            self.free.push(spot);
        }
    }
}

fn weight(keyed: &Keyed) -> usize {
    KEY_BYTES + keyed.bytes + (keyed.panes.len() + keyed.chunks.len()) * PANE_BYTES
}
