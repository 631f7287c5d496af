//! The keys at hand: a bounded cache over what the store holds.
//!
//! When a commit has taken what changed, keys that were not used since the last one go first, then
//! those that were used longest ago, until the rest takes half of what it may.
//!
//! **Limits.** The bytes given to [`Shelves::new`], and what changed since the last commit. Beyond them a key costs
//! a read of its rows when it comes again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::codec;
use super::pane::Keyed;
use super::{Config, Error};
use headwater_flow::rows::EachOf;

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
    kept: Vec<Kept>,
    free: Vec<Spot>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// None of a spot that is free: its memory is for the next one.
    name: Option<Arc<str>>,
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

    /// Bytes that the keys take, as they were after the last commit or when they came.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a key is, that is there or was just made.
    pub(super) fn find(&mut self, config: &Config, key: &str) -> Result<Spot, Error> {
        if let Some(spot) = self.spots.get(key) {
            return Ok(*spot);
        }
        let spot = self.free.pop().unwrap_or(Spot(self.kept.len()));
        if spot.0 == self.kept.len() {
            self.kept.push(Kept::default());
        }
        let kept = &mut self.kept[spot.0];
        if let Err(error) = codec::fill(&mut kept.keyed, config, |each| self.cold.rows(key, each)) {
            kept.keyed.renew();
            self.free.push(spot);
            return Err(error);
        }
        let name: Arc<str> = Arc::from(key);
        (kept.name, kept.bytes, kept.used) = (Some(Arc::clone(&name)), weight(&kept.keyed), true);
        self.bytes += kept.bytes;
        self.spots.insert(name, spot);
        Ok(spot)
    }

    /// The key at a spot, and its name.
    pub(super) fn at(&mut self, spot: Spot) -> (&Arc<str>, &mut Keyed) {
        let kept = &mut self.kept[spot.0];
        kept.used = true;
        (kept.name.as_ref().expect("keys stay until the next commit"), &mut kept.keyed)
    }

    /// After a commit took what was `changed`, in that order.
    pub(super) fn make_room(&mut self, changed: &[Spot]) {
        for spot in changed {
            let kept = &mut self.kept[spot.0];
            let bytes = weight(&kept.keyed);
            self.bytes = self.bytes + bytes - kept.bytes;
            kept.bytes = bytes;
            if kept.keyed.is_empty()
                && let Some(name) = self.drop(*spot)
            {
                self.spots.remove(&name);
            }
        }
        if self.bytes > self.bytes_max {
            let unused = |(at, kept): (usize, &Kept)| (kept.name.is_some() && !kept.used).then_some(Spot(at));
            let unused: Vec<_> = self.kept.iter().enumerate().filter_map(unused).collect();
            for spot in unused.iter().chain(changed) {
                if self.bytes <= self.bytes_max / 2 {
                    break;
                }
                self.drop(*spot);
            }
            // Half of them went, at least: that is sooner done than to look each up.
            self.spots.retain(|_, spot| self.kept[spot.0].name.is_some());
        }
        for kept in &mut self.kept {
            kept.used = false;
        }
    }

    /// Drops a key, unless its readings wait. What is left to do is to forget its name.
    fn drop(&mut self, spot: Spot) -> Option<Arc<str>> {
        let kept = &mut self.kept[spot.0];
        if !kept.keyed.waiting.is_empty() {
            return None;
        }
        let name = kept.name.take()?;
        self.bytes -= std::mem::take(&mut kept.bytes);
        kept.keyed.renew();
        self.free.push(spot);
        Some(name)
    }
}

fn weight(keyed: &Keyed) -> usize {
    KEY_BYTES + keyed.bytes + (keyed.panes.len() + keyed.chunks.len()) * PANE_BYTES
}
