//! What is held of one key: its panes, and where it stands.

use std::collections::BTreeMap;

use super::fold::Folds;
use super::panes::Panes;
use headwater_flow::Timestamp;

/// Where a pane stands among those of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Its start; of a chunk of a count window, its number.
    pub(super) at: u64,
    /// Tells those that begin together apart.
    pub(super) tie: u32,
}

impl Place {
    pub(super) fn at(at: u64) -> Self {
        Self { at, tie: 0 }
    }
}

/// A result that was given for a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Of the next result with these bounds.
    pub(super) revision: u32,
}

/// Readings of one key that are aggregated together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pane {
    pub(super) state: Vec<u8>,
    /// Readings used.
    pub(super) count: u64,
    /// Of these, readings that came when the window had closed.
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
    /// It takes no more readings, though its window is open.
    pub(super) full: bool,
    /// When its next result is due, if not at the window's end.
    pub(super) due: Option<u64>,
    pub(super) shown: Vec<Shown>,
    /// Readings that wait for the aggregate.
    pub(super) samples: Vec<(Timestamp, Vec<u8>)>,
    /// Those came when the window had closed.
    pub(super) is_late: bool,
    /// Differs from what the store holds.
    pub(super) dirty: bool,
}

impl Pane {
    /// When its next result is due, for a window that ends at `end`.
    pub(super) fn due(&self, end: u64) -> Option<u64> {
        let changed = self.changed || !self.samples.is_empty();
        if changed { Some(self.due.unwrap_or(end)) } else { self.provisional.then_some(end) }
    }
}

/// A result that was given for a window of several panes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Of the next result.
    pub(super) revision: u32,
    /// Readings that came when the window had closed.
    pub(super) late: u64,
    /// A result is due, and at which watermark.
    pub(super) due: Option<u64>,
    /// Differs from what the store holds.
    pub(super) dirty: bool,
}

/// One key's part of a pipeline's windows.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    pub(super) panes: Panes,
    /// Of count windows: readings in event-time order, some to a chunk, by its number.
    pub(super) chunks: Panes,
    /// Windows that may be revised, by their end.
    pub(super) given: BTreeMap<u64, Given>,
    /// Of overlapping windows those that end by here had their first result.
    pub(super) ended: u64,
    /// Time of its newest reading.
    pub(super) newest: Option<u64>,
    /// Readings counted so far.
    pub(super) counted: u64,
    pub(super) folds: Folds,
    /// Panes that have samples.
    pub(super) waiting: Vec<Place>,
    /// When something is to be done about it.
    pub(super) due: Option<u64>,
    /// What is on the way out of the store.
    pub(super) removed: Vec<Row>,
    /// `ended`, `newest` or `counted` differ from what the store holds.
    pub(super) dirty: bool,
    /// The store holds a row of these three.
    pub(super) stored: bool,
    /// Changed since the last commit.
    pub(super) is_listed: bool,
    /// Bytes of aggregate state.
    pub(super) bytes: usize,
}

/// What the store holds of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// Where it stands.
    Key,
    Pane(Place),
    Chunk(Place),
    Given(u64),
}

impl Keyed {
    /// Nothing is held that would be missed.
    pub(super) fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.chunks.is_empty() && self.given.is_empty() && self.newest.is_none()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.forget(|_, _| true);
        let chunks = std::mem::take(&mut self.chunks).into_iter();
        self.removed.extend(chunks.map(|(place, _)| Row::Chunk(place)));
        self.removed.extend(std::mem::take(&mut self.given).into_keys().map(Row::Given));
        self.folds.clear();
        (self.ended, self.newest, self.counted, self.dirty, self.bytes) = (0, None, 0, true, 0);
    }

    /// Holds nothing, as a new one, but keeps memory for what most keys hold.
    pub(super) fn renew(&mut self) {
        let mut panes = std::mem::take(&mut self.panes);
        panes.empty();
        *self = Self { panes, ..Self::default() };
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Pane> {
        let pane = self.panes.remove(&place)?;
        self.bytes -= pane.state.len();
        if !pane.samples.is_empty() {
            self.waiting.retain(|waiting| *waiting != place);
        }
        self.removed.push(Row::Pane(place));
        Some(pane)
    }

    pub(super) fn insert(&mut self, place: Place, pane: Pane) {
        self.bytes += pane.state.len();
        if !pane.samples.is_empty() {
            self.waiting.push(place);
        }
        self.panes.insert(place, Pane { dirty: true, ..pane });
    }

    /// Removes the panes for which it holds, from the earliest on.
    pub(super) fn forget(&mut self, is_over: impl Fn(&Place, &Pane) -> bool) {
        while let Some((place, pane)) = self.panes.first() {
            if !is_over(place, pane) {
                return;
            }
            let place = *place;
            self.remove(place);
        }
    }

    /// Gives the pane a reading, which waits for the aggregate.
    pub(super) fn push(&mut self, place: Place, sample: (Timestamp, Vec<u8>), is_late: bool) -> &mut Pane {
        let pane = self.panes.at(place);
        if pane.samples.is_empty() {
            self.waiting.push(place);
            pane.is_late = is_late;
        }
        pane.taken += 1;
        pane.taken_bytes += sample.1.len() as u64;
        pane.dirty = true;
        pane.samples.push(sample);
        pane
    }
}
