//! The keys at hand: a bounded cache over what the store holds.
//!
//! When a commit has taken what changed, keys that were not used since the last one go first, then
//! those that were used longest ago, until the rest takes half of what it may.
//!
//! **Limits.** The bytes given to [`KeyCache::new`], and what changed since the last commit. Beyond them a key costs
//! a read of its rows when it comes again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::codec;
use super::pane::KeyState;
use super::{WindowConfig, WindowError};
use headwater_flow::rows::EachOf;

/// The bytes that a key and a pane take beside their states: estimated from their types, names included.
const KEY_BYTES: usize = 700;
const PANE_BYTES: usize = 250;

/// Takes a row's tail, behind the key, and its value.
pub type RowVisitor<'a> = EachOf<'a, WindowError>;

/// The committed rows of a pipeline's windows.
pub trait WindowStore: fmt::Debug + Send {
    /// Hands out the rows of a key: the tail of each row's own key, and its value.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&self, key: &str, each: RowVisitor<'_>) -> Result<(), WindowError>;
}

/// The position of a key in the cache; it stays there until the next commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotId(usize);

/// The keys at hand.
#[derive(Debug)]
pub(super) struct KeyCache {
    store: Box<dyn WindowStore>,
    slots: HashMap<Arc<str>, SlotId>,
    cached: Vec<CachedKey>,
    free: Vec<SlotId>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct CachedKey {
    /// The key's name, or `None` in a free slot, whose memory is for the next key.
    name: Option<Arc<str>>,
    key_state: KeyState,
    /// The weight of the key when it was last measured.
    bytes: usize,
    /// The key was used since the last commit.
    used: bool,
}

impl KeyCache {
    pub(super) fn new(store: Box<dyn WindowStore>, bytes_max: usize) -> Self {
        Self { store, slots: HashMap::new(), cached: Vec::new(), free: Vec::new(), bytes: 0, bytes_max }
    }

    /// Returns the bytes that the keys take, as they were after the last commit or when they came.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the position of a key, which is read from the store if it is not at hand.
    pub(super) fn find(&mut self, config: &WindowConfig, key: &str) -> Result<SlotId, WindowError> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(*slot);
        }
        let slot = self.free.pop().unwrap_or(SlotId(self.cached.len()));
        if slot.0 == self.cached.len() {
            self.cached.push(CachedKey::default());
        }
        let cached = &mut self.cached[slot.0];
        if let Err(error) = codec::fill(&mut cached.key_state, config, |each| self.store.rows(key, each)) {
            cached.key_state.renew();
            self.free.push(slot);
            return Err(error);
        }
        let name: Arc<str> = Arc::from(key);
        cached.name = Some(Arc::clone(&name));
        cached.bytes = weight(&cached.key_state);
        cached.used = true;
        self.bytes += cached.bytes;
        self.slots.insert(name, slot);
        Ok(slot)
    }

    /// Returns the key at a position, and its name.
    pub(super) fn at(&mut self, slot: SlotId) -> (&Arc<str>, &mut KeyState) {
        let cached = &mut self.cached[slot.0];
        cached.used = true;
        (cached.name.as_ref().expect("keys stay until the next commit"), &mut cached.key_state)
    }

    /// Makes room after a commit took the `changed` keys, in that order.
    pub(super) fn make_room(&mut self, changed: &[SlotId]) {
        for slot in changed {
            let cached = &mut self.cached[slot.0];
            let bytes = weight(&cached.key_state);
            self.bytes = self.bytes + bytes - cached.bytes;
            cached.bytes = bytes;
            if cached.key_state.is_empty()
                && let Some(name) = self.drop(*slot)
            {
                self.slots.remove(&name);
            }
        }
        if self.bytes > self.bytes_max {
            let unused = |(at, cached): (usize, &CachedKey)| {
                (cached.name.is_some() && !cached.used).then_some(SlotId(at))
            };
            let unused: Vec<_> = self.cached.iter().enumerate().filter_map(unused).collect();
            for slot in unused.iter().chain(changed) {
                if self.bytes <= self.bytes_max / 2 {
                    break;
                }
                self.drop(*slot);
            }
            // Half of them went, at least: that is sooner done than to look each up.
            self.slots.retain(|_, slot| self.cached[slot.0].name.is_some());
        }
        for cached in &mut self.cached {
            cached.used = false;
        }
    }

    /// Drops a key, unless its readings wait. The caller has to forget its name.
    fn drop(&mut self, slot: SlotId) -> Option<Arc<str>> {
        let cached = &mut self.cached[slot.0];
        if !cached.key_state.waiting.is_empty() {
            return None;
        }
        let name = cached.name.take()?;
        self.bytes -= std::mem::take(&mut cached.bytes);
        cached.key_state.renew();
        self.free.push(slot);
        Some(name)
    }
}

fn weight(key_state: &KeyState) -> usize {
    KEY_BYTES + key_state.bytes + (key_state.panes.len() + key_state.chunks.len()) * PANE_BYTES
}
