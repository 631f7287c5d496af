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
use super::pane::{PaneId, PaneState};
use super::panes::PaneQueue;

/// Readings of several panes as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FoldedPanes {
    pub(super) state: Vec<u8>,
    pub(super) count: u64,
    pub(super) rejected: u64,
}

impl FoldedPanes {
    pub(super) fn of(pane: &PaneState) -> Self {
        Self { state: pane.state.clone(), count: pane.count, rejected: pane.rejected }
    }

    /// Merges this one and a later one.
    pub(super) fn and(&self, later: &Self, aggregate: &mut dyn Aggregate) -> Result<Self, String> {
        let state = merge(&self.state, &later.state, aggregate)?;
        Ok(Self { state, count: self.count + later.count, rejected: self.rejected + later.rejected })
    }
}

/// Merges two states. The empty state is neutral.
pub(super) fn merge(a: &[u8], b: &[u8], aggregate: &mut dyn Aggregate) -> Result<Vec<u8>, String> {
    match (a, b) {
        ([], state) | (state, []) => Ok(state.to_vec()),
        (a, b) => aggregate.merge(a, b),
    }
}

/// The panes from one to its block's end, merged, or the reason why they cannot be.
type BlockSuffix = (PaneId, Result<FoldedPanes, String>);

/// The merges already made in the two blocks that windows now lie in.
#[derive(Clone, Debug, Default)]
pub(super) struct FoldCache {
    /// The panes from a block's start up to a time.
    prefix: Option<(u64, u64, FoldedPanes)>,
    /// The panes of a block from each pane to its end, ascending.
    suffixes: Option<(u64, Vec<BlockSuffix>)>,
}

impl FoldCache {
    /// Forgets what was merged: a pane that may be in it has changed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Merges the panes within `range`. A range is at most as long as a block, and one that begins
    /// within a block and ends in it begins where it does.
    pub(super) fn fold(
        &mut self,
        panes: &PaneQueue,
        range: Range<u64>,
        block: FoldBlocks,
        aggregate: &mut dyn Aggregate,
    ) -> Result<FoldedPanes, String> {
        let first = block.of(range.start);
        let last = block.of(range.end - 1);
        let prefix = self.prefix(panes, last, range.end, block, aggregate)?;
        if first == last {
            return Ok(prefix);
        }
        if self.suffixes.as_ref().is_none_or(|(of, _)| *of != first) {
            self.suffixes = Some((first, suffixes(panes, block.range(first), aggregate)));
        }
        let suffixes = self.suffixes.as_ref().map_or(&[][..], |(_, suffixes)| suffixes);
        let from = suffixes.partition_point(|(pane_id, _)| pane_id.at < range.start);
        match suffixes.get(from) {
            Some((_, Ok(suffix))) => suffix.and(&prefix, aggregate),
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Ok(prefix),
        }
    }

    fn prefix(
        &mut self,
        panes: &PaneQueue,
        of: u64,
        upto: u64,
        block: FoldBlocks,
        aggregate: &mut dyn Aggregate,
    ) -> Result<FoldedPanes, String> {
        let start = block.range(of).start;
        // Taken out, so that it is not kept half done when a merge fails.
        let known = self.prefix.take().filter(|(known, done, _)| *known == of && *done <= upto);
        let (_, done, mut part) = known.unwrap_or((of, start, FoldedPanes::default()));
        for pane in panes.range(PaneId::at(done)..PaneId::at(upto)).map(|(_, pane)| pane) {
            part = part.and(&FoldedPanes::of(pane), aggregate)?;
        }
        self.prefix = Some((of, upto, part.clone()));
        Ok(part)
    }
}

fn suffixes(panes: &PaneQueue, range: Range<u64>, aggregate: &mut dyn Aggregate) -> Vec<BlockSuffix> {
    let mut suffixes: Vec<BlockSuffix> = Vec::new();
    for (pane_id, pane) in panes.range(PaneId::at(range.start)..PaneId::at(range.end)).rev() {
        let part = match suffixes.last() {
            Some((_, Ok(later))) => FoldedPanes::of(pane).and(later, aggregate),
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Ok(FoldedPanes::of(pane)),
        };
        suffixes.push((*pane_id, part));
    }
    suffixes.reverse();
    suffixes
}

/// The positions of blocks: one begins at `offset`, the others at multiples of `len` from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoldBlocks {
    pub(super) len: u64,
    pub(super) offset: u64,
}

impl FoldBlocks {
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
