//! The state of one key: its panes, and its progress.

use std::collections::BTreeMap;

use super::fold::FoldCache;
use super::panes::PaneQueue;
use headwater_flow::Timestamp;

/// The identity of a pane among those of its key, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PaneId {
    /// The start of the pane, or the number of a chunk of a count window.
    pub(super) at: u64,
    /// Tells those that begin together apart.
    pub(super) tie: u32,
}

impl PaneId {
    pub(super) fn at(at: u64) -> Self {
        Self { at, tie: 0 }
    }
}

/// A result that was emitted for a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EmittedResult {
    pub(super) start: u64,
    pub(super) end: u64,
    /// The revision of the next result with these bounds.
    pub(super) revision: u32,
}

/// Readings of one key that are aggregated together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PaneState {
    pub(super) state: Vec<u8>,
    /// Readings used.
    pub(super) count: u64,
    /// Readings among these that came when the window had closed.
    pub(super) late: u64,
    /// Readings that the aggregate refused.
    pub(super) rejected: u64,
    /// Readings given to it, and their bytes.
    pub(super) taken: u64,
    pub(super) taken_bytes: u64,
    /// Time of the first and of the last reading, where the window's bounds follow from them.
    pub(super) span: Option<(u64, u64)>,
    /// Readings were used since the last result.
    pub(super) changed: bool,
    /// The last result was given before the window's end.
    pub(super) provisional: bool,
    /// The pane takes no more readings, though its window is open.
    pub(super) full: bool,
    /// The watermark at which its next result is due, if not at the window's end.
    pub(super) due: Option<u64>,
    pub(super) shown: Vec<EmittedResult>,
    /// Readings that wait for the aggregate.
    pub(super) samples: Vec<(Timestamp, Vec<u8>)>,
    /// The waiting readings came when the window had closed.
    pub(super) is_late: bool,
    /// Differs from what the store holds.
    pub(super) dirty: bool,
}

impl PaneState {
    /// Returns the watermark at which its next result is due, for a window with this `end`.
    pub(super) fn due(&self, end: u64) -> Option<u64> {
        let changed = self.changed || !self.samples.is_empty();
        if changed { Some(self.due.unwrap_or(end)) } else { self.provisional.then_some(end) }
    }
}

/// A result that was emitted for a window of several panes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EmittedWindow {
    /// The revision of the next result.
    pub(super) revision: u32,
    /// Readings that came when the window had closed.
    pub(super) late: u64,
    /// A result is due, and at which watermark.
    pub(super) due: Option<u64>,
    /// Differs from what the store holds.
    pub(super) dirty: bool,
}

/// The state of one key in a pipeline's windows.
#[derive(Debug, Default)]
pub(super) struct KeyState {
    pub(super) panes: PaneQueue,
    /// The readings of count windows in event-time order, some to a chunk, by its number.
    pub(super) chunks: PaneQueue,
    /// Windows that may be revised, by their end.
    pub(super) emitted: BTreeMap<u64, EmittedWindow>,
    /// Overlapping windows that end by here had their first result.
    pub(super) ended: u64,
    /// The time of its newest reading.
    pub(super) newest: Option<u64>,
    /// Readings counted so far.
    pub(super) counted: u64,
    pub(super) folds: FoldCache,
    /// Panes that have samples.
    pub(super) waiting: Vec<PaneId>,
    /// The watermark at which the key is to be fired.
    pub(super) due: Option<u64>,
    /// The rows that the next commit removes.
    pub(super) removed: Vec<KeyRow>,
    /// `ended`, `newest` or `counted` differ from what the store holds.
    pub(super) dirty: bool,
    /// The store holds a row of these three.
    pub(super) stored: bool,
    /// Changed since the last commit.
    pub(super) is_listed: bool,
    /// Bytes of aggregate state.
    pub(super) bytes: usize,
}

/// A row of a key in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyRow {
    /// The progress of the key.
    Key,
    Pane(PaneId),
    Chunk(PaneId),
    EmittedWindow(u64),
}

impl KeyState {
    /// Reports that the key holds nothing that would be missed.
    pub(super) fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.chunks.is_empty() && self.emitted.is_empty() && self.newest.is_none()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.forget(|_, _| true);
        let chunks = std::mem::take(&mut self.chunks).into_iter();
        self.removed.extend(chunks.map(|(pane_id, _)| KeyRow::Chunk(pane_id)));
        self.removed.extend(std::mem::take(&mut self.emitted).into_keys().map(KeyRow::EmittedWindow));
        self.folds.clear();
        self.ended = 0;
        self.newest = None;
        self.counted = 0;
        self.dirty = true;
        self.bytes = 0;
    }

    /// Empties the key as if it were new, but keeps memory for what most keys hold.
    pub(super) fn renew(&mut self) {
        let mut panes = std::mem::take(&mut self.panes);
        panes.empty();
        *self = Self { panes, ..Self::default() };
    }

    pub(super) fn remove(&mut self, pane_id: PaneId) -> Option<PaneState> {
        let pane = self.panes.remove(&pane_id)?;
        self.bytes -= pane.state.len();
        if !pane.samples.is_empty() {
            self.waiting.retain(|waiting| *waiting != pane_id);
        }
        self.removed.push(KeyRow::Pane(pane_id));
        Some(pane)
    }

    pub(super) fn insert(&mut self, pane_id: PaneId, pane: PaneState) {
        self.bytes += pane.state.len();
        if !pane.samples.is_empty() {
            self.waiting.push(pane_id);
        }
        self.panes.insert(pane_id, PaneState { dirty: true, ..pane });
    }

    /// Removes the panes that are over, from the earliest on.
    pub(super) fn forget(&mut self, is_over: impl Fn(&PaneId, &PaneState) -> bool) {
        while let Some((pane_id, pane)) = self.panes.first() {
            if !is_over(pane_id, pane) {
                return;
            }
            let pane_id = *pane_id;
            self.remove(pane_id);
        }
    }

    /// Gives the pane a reading, which waits for the aggregate.
    pub(super) fn push(
        &mut self,
        pane_id: PaneId,
        sample: (Timestamp, Vec<u8>),
        is_late: bool,
    ) -> &mut PaneState {
        let pane = self.panes.at(pane_id);
        if pane.samples.is_empty() {
            self.waiting.push(pane_id);
            pane.is_late = is_late;
        }
        pane.taken += 1;
        pane.taken_bytes += sample.1.len() as u64;
        pane.dirty = true;
        pane.samples.push(sample);
        pane
    }
}
