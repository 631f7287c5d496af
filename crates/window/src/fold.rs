//! Merges runs of panes in amortised constant time per pane.
//!
//! The time line is cut into blocks as long as a window. A window then is the end of one block
//! and the beginning of the next: merging from the right once for all ends of a block, and from
//! the left as panes come, each window costs one more merge, three a pane in all. This is the
//! running-extremum method of M. van Herk ("A fast algorithm for local minimum and maximum filters
//! on rectangular and octagonal kernels", Pattern Recognition Letters 13, 1992) and J. Gil and M.
//! Werman ("Computing 2-D min, median, and max filters", IEEE TPAMI 15, 1993); and it is the
//! two-stacks method (K. Tangwongsan, M. Hirzel, S. Schneider, K.-L. Wu, "General incremental
//! sliding-window aggregation", VLDB 2015) with its flips at fixed places, so that the order of merges,
//! and with it every bit of a result, does not depend on batches and restarts.
//!
//! **Invariant:** a fold is a function of the panes and the bounds alone: what is kept here only
//! saves merges, and may be dropped at any time.

use std::ops::Range;

use super::Aggregate;
use super::pane::{Pane, Place};
use super::panes::Panes;

/// Readings of several panes as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) state: Vec<u8>,
    pub(super) count: u64,
    pub(super) rejected: u64,
}

impl Part {
    pub(super) fn of(pane: &Pane) -> Self {
        Self { state: pane.state.clone(), count: pane.count, rejected: pane.rejected }
    }

    /// This one and a later one.
    pub(super) fn and(&self, later: &Self, aggregate: &mut dyn Aggregate) -> Result<Self, String> {
        let state = merge(&self.state, &later.state, aggregate)?;
        Ok(Self { state, count: self.count + later.count, rejected: self.rejected + later.rejected })
    }
}

/// The empty state is neutral.
pub(super) fn merge(a: &[u8], b: &[u8], aggregate: &mut dyn Aggregate) -> Result<Vec<u8>, String> {
    match (a, b) {
        ([], state) | (state, []) => Ok(state.to_vec()),
        (a, b) => aggregate.merge(a, b),
    }
}

/// From a pane to its block's end, or why that cannot be merged.
type Suffix = (Place, Result<Part, String>);

/// What is merged already of the two blocks that windows now lie in.
#[derive(Clone, Debug, Default)]
pub(super) struct Folds {
    /// From a block's start, up to a place.
    prefix: Option<(u64, u64, Part)>,
    /// Of a block, from each pane to its end, ascending.
    suffixes: Option<(u64, Vec<Suffix>)>,
}

impl Folds {
    /// Forgets what was merged: a pane that may be in it has changed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The panes within `range` as one. A range is at most as long as a block, and one that begins
    /// within a block and ends in it begins where it does.
    pub(super) fn fold(
        &mut self,
        panes: &Panes,
        range: Range<u64>,
        block: Blocks,
        aggregate: &mut dyn Aggregate,
    ) -> Result<Part, String> {
        let (first, last) = (block.of(range.start), block.of(range.end - 1));
        let prefix = self.prefix(panes, last, range.end, block, aggregate)?;
        if first == last {
            return Ok(prefix);
        }
        if self.suffixes.as_ref().is_none_or(|(of, _)| *of != first) {
            self.suffixes = Some((first, suffixes(panes, block.range(first), aggregate)));
        }
        let suffixes = self.suffixes.as_ref().map_or(&[][..], |(_, suffixes)| suffixes);
        let from = suffixes.partition_point(|(place, _)| place.at < range.start);
        match suffixes.get(from) {
            Some((_, Ok(suffix))) => suffix.and(&prefix, aggregate),
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Ok(prefix),
        }
    }

    fn prefix(
        &mut self,
        panes: &Panes,
        of: u64,
        upto: u64,
        block: Blocks,
        aggregate: &mut dyn Aggregate,
    ) -> Result<Part, String> {
        let start = block.range(of).start;
        // Taken out, so that it is not kept half done when a merge fails.
        let known = self.prefix.take().filter(|(known, done, _)| *known == of && *done <= upto);
        let (_, done, mut part) = known.unwrap_or((of, start, Part::default()));
        for pane in panes.range(Place::at(done)..Place::at(upto)).map(|(_, pane)| pane) {
            part = part.and(&Part::of(pane), aggregate)?;
        }
        self.prefix = Some((of, upto, part.clone()));
        Ok(part)
    }
}

fn suffixes(panes: &Panes, range: Range<u64>, aggregate: &mut dyn Aggregate) -> Vec<Suffix> {
    let mut suffixes: Vec<Suffix> = Vec::new();
    for (place, pane) in panes.range(Place::at(range.start)..Place::at(range.end)).rev() {
        let part = match suffixes.last() {
            Some((_, Ok(later))) => Part::of(pane).and(later, aggregate),
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Ok(Part::of(pane)),
        };
        suffixes.push((*place, part));
    }
    suffixes.reverse();
    suffixes
}

/// Where blocks lie: one begins at `offset`, the others at multiples of `len` from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) len: u64,
    pub(super) offset: u64,
}

impl Blocks {
    /// Blocks are counted from the one that holds 0, which may be cut short.
    fn of(self, at: u64) -> u64 {
        at.saturating_add(self.len - self.offset % self.len) / self.len
    }

    fn range(self, number: u64) -> Range<u64> {
        let shift = self.len - self.offset % self.len;
        let start = number.saturating_mul(self.len).saturating_sub(shift);
        start..number.saturating_add(1).saturating_mul(self.len).saturating_sub(shift)
    }
}
