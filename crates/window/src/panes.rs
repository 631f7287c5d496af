//! Panes in their order: most keys have one, those of sliding windows come at the end and go at the
//! beginning, so this is a queue and not a tree, whose smallest node would take a dozen times as much.

use std::collections::{VecDeque, vec_deque};
use std::ops::RangeBounds;

use super::pane::{PaneId, PaneState};

/// Panes by their identities, ascending.
#[derive(Debug, Default)]
pub(super) struct PaneQueue(VecDeque<(PaneId, PaneState)>);

impl PaneQueue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all, and keeps memory for one.
    pub(super) fn empty(&mut self) {
        self.0.clear();
        if self.0.capacity() > 1 {
            self.0 = VecDeque::new();
        }
    }

    pub(super) fn first(&self) -> Option<(&PaneId, &PaneState)> {
        self.0.front().map(|(pane_id, pane)| (pane_id, pane))
    }

    pub(super) fn get(&self, pane_id: &PaneId) -> Option<&PaneState> {
        self.find(pane_id).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, pane_id: &PaneId) -> Option<&mut PaneState> {
        self.find(pane_id).ok().map(|at| &mut self.0[at].1)
    }

    /// Returns the pane with this identity, made if it is not there.
    pub(super) fn at(&mut self, pane_id: PaneId) -> &mut PaneState {
        let at = self.find(&pane_id).unwrap_or_else(|at| {
            self.put(at, pane_id, PaneState::default());
            at
        });
        &mut self.0[at].1
    }

    pub(super) fn insert(&mut self, pane_id: PaneId, pane: PaneState) {
        match self.find(&pane_id) {
            Ok(at) => self.0[at].1 = pane,
            Err(at) => self.put(at, pane_id, pane),
        }
    }

    pub(super) fn remove(&mut self, pane_id: &PaneId) -> Option<PaneState> {
        let at = self.find(pane_id).ok()?;
        self.0.remove(at).map(|(_, pane)| pane)
    }

    pub(super) fn range(
        &self,
        range: impl RangeBounds<PaneId>,
    ) -> impl DoubleEndedIterator<Item = (&PaneId, &PaneState)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match range.start_bound() {
            Included(start) => self.0.partition_point(|(pane_id, _)| pane_id < start),
            Excluded(start) => self.0.partition_point(|(pane_id, _)| pane_id <= start),
            Unbounded => 0,
        };
        let to = match range.end_bound() {
            Included(end) => self.0.partition_point(|(pane_id, _)| pane_id <= end),
            Excluded(end) => self.0.partition_point(|(pane_id, _)| pane_id < end),
            Unbounded => self.0.len(),
        };
        self.0.range(from..to.max(from)).map(|(pane_id, pane)| (pane_id, pane))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PaneId, &PaneState)> {
        self.0.iter().map(|(pane_id, pane)| (pane_id, pane))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PaneId, &mut PaneState)> {
        self.0.iter_mut().map(|(pane_id, pane)| (&*pane_id, pane))
    }

    fn find(&self, pane_id: &PaneId) -> Result<usize, usize> {
        // Readings come in their order, mostly.
        match self.0.back() {
            Some((last, _)) if last < pane_id => Err(self.0.len()),
            Some((last, _)) if last == pane_id => Ok(self.0.len() - 1),
            _ => self.0.binary_search_by_key(pane_id, |(pane_id, _)| *pane_id),
        }
    }

    fn put(&mut self, at: usize, pane_id: PaneId, pane: PaneState) {
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.insert(at, (pane_id, pane));
    }
}

impl IntoIterator for PaneQueue {
    type Item = (PaneId, PaneState);
    type IntoIter = vec_deque::IntoIter<(PaneId, PaneState)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
