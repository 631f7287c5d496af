//! Panes in their order: most keys have one, those of sliding windows come at the end and go at the
//! beginning, so this is a queue and not a tree, whose smallest node would take a dozen times as much.

use std::collections::{VecDeque, vec_deque};
use std::ops::RangeBounds;

use super::pane::{Pane, Place};

/// Panes by their places, ascending.
#[derive(Debug, Default)]
pub(super) struct Panes(VecDeque<(Place, Pane)>);

impl Panes {
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

    pub(super) fn first(&self) -> Option<(&Place, &Pane)> {
        self.0.front().map(|(place, pane)| (place, pane))
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Pane> {
        self.find(place).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, place: &Place) -> Option<&mut Pane> {
        self.find(place).ok().map(|at| &mut self.0[at].1)
    }

    /// The pane of a place, made if it is not there.
    pub(super) fn at(&mut self, place: Place) -> &mut Pane {
        let at = self.find(&place).unwrap_or_else(|at| {
            self.put(at, place, Pane::default());
            at
        });
        &mut self.0[at].1
    }

    pub(super) fn insert(&mut self, place: Place, pane: Pane) {
        match self.find(&place) {
            Ok(at) => self.0[at].1 = pane,
            Err(at) => self.put(at, place, pane),
        }
    }

    pub(super) fn remove(&mut self, place: &Place) -> Option<Pane> {
        let at = self.find(place).ok()?;
        self.0.remove(at).map(|(_, pane)| pane)
    }

    pub(super) fn range(
        &self,
        range: impl RangeBounds<Place>,
    ) -> impl DoubleEndedIterator<Item = (&Place, &Pane)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match range.start_bound() {
            Included(start) => self.0.partition_point(|(place, _)| place < start),
            Excluded(start) => self.0.partition_point(|(place, _)| place <= start),
            Unbounded => 0,
        };
        let to = match range.end_bound() {
            Included(end) => self.0.partition_point(|(place, _)| place <= end),
            Excluded(end) => self.0.partition_point(|(place, _)| place < end),
            Unbounded => self.0.len(),
        };
        self.0.range(from..to.max(from)).map(|(place, pane)| (place, pane))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Pane)> {
        self.0.iter().map(|(place, pane)| (place, pane))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Place, &mut Pane)> {
        self.0.iter_mut().map(|(place, pane)| (&*place, pane))
    }

    fn find(&self, place: &Place) -> Result<usize, usize> {
        // Readings come in their order, mostly.
        match self.0.back() {
            Some((last, _)) if last < place => Err(self.0.len()),
            Some((last, _)) if last == place => Ok(self.0.len() - 1),
            _ => self.0.binary_search_by_key(place, |(place, _)| *place),
        }
    }

    fn put(&mut self, at: usize, place: Place, pane: Pane) {
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.insert(at, (place, pane));
    }
}

impl IntoIterator for Panes {
    type Item = (Place, Pane);
    type IntoIter = vec_deque::IntoIter<(Place, Pane)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
