//! The steps that hopping and sliding windows share: each window is a run of panes, merged when it closes.
//!
//! A reading counts in those of its windows that still take it; it is late when none does.

use std::ops::Range;

use super::super::context::KeyContext;
use super::super::fold::{FoldBlocks, FoldedPanes};
use super::super::pane::{EmittedWindow, KeyRow, KeyState, PaneId};
use super::super::panes::PaneQueue;
use super::super::{ObservedReading, WindowConfig};
use headwater_flow::Timestamp;

/// The layout of overlapping windows over their panes.
pub(super) trait OverlapLayout: Copy {
    /// Returns the length of a window.
    fn size(self) -> u64;

    /// Returns the start of the pane that holds a time.
    fn pane_start(self, at: u64) -> u64;

    /// Returns the end of the last window that a pane belongs to, or could belong to.
    fn last_end(self, pane: u64) -> u64;

    /// Reports that some window holds a time: none begins before the first.
    fn holds(self, at: u64) -> bool;

    /// Returns the end of the last window that a reading of this time can still be used in.
    fn closes(self, at: u64) -> u64;

    /// Returns the ends, ascending, of the windows whose results a reading of this time changes after they closed.
    fn revised_ends(self, at: u64) -> impl Iterator<Item = u64>;

    /// Returns the blocks in which panes are merged.
    fn blocks(self) -> FoldBlocks;

    /// Returns the end of the first window after those that end by `ended` that holds a pane.
    fn next_end(self, panes: &PaneQueue, ended: u64) -> Option<u64>;

    /// Returns the window with this end.
    fn window(self, end: u64) -> Range<u64> {
        end.saturating_sub(self.size())..end
    }
}

/// Puts a reading into its pane.
pub(super) fn assign<L: OverlapLayout>(
    layout: L,
    context: &KeyContext<'_>,
    key_state: &mut KeyState,
    time: Timestamp,
    payload: Vec<u8>,
) -> ObservedReading {
    if context.is_over(layout.closes(time.0)) || !layout.holds(time.0) {
        return ObservedReading::Late(payload);
    }
    if time.0 < context.lost_before {
        return ObservedReading::Lost(payload);
    }
    if time.0 < context.watermark {
        // Windows that have closed had their result, or have none; this reading is for those after them.
        key_state.ended = key_state.ended.max(context.watermark);
        key_state.dirty = true;
    }
    let pane_id = PaneId::at(layout.pane_start(time.0));
    key_state.push(pane_id, (time, payload), false);
    if pane_id.at < key_state.ended {
        key_state.folds.clear();
    }
    let closed = layout.revised_ends(time.0).take_while(|end| *end <= context.watermark);
    for end in closed.filter(|end| !context.is_over(*end)) {
        let emitted = key_state.emitted.entry(end).or_default();
        emitted.late += 1;
        emitted.due.get_or_insert(context.watermark);
        emitted.dirty = true;
    }
    key_state.due = due(layout, context.config, key_state);
    ObservedReading::Used
}

/// Emits all results that are due, and forgets the windows that are over.
pub(super) fn fire<L: OverlapLayout>(layout: L, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
    let revised = key_state.emitted.iter().filter(|(_, emitted)| emitted.due.is_some());
    let revised: Vec<_> = revised.map(|(end, _)| *end).collect();
    for end in revised {
        emit(layout, context, key_state, end);
    }
    while let Some(end) =
        layout.next_end(&key_state.panes, key_state.ended).filter(|end| *end <= context.watermark)
    {
        key_state.ended = end;
        key_state.dirty = true;
        emit(layout, context, key_state, end);
    }
    key_state.forget(|pane_id, _| context.is_over(layout.last_end(pane_id.at)));
    while let Some(first) = key_state.emitted.first_entry().filter(|first| context.is_over(*first.key())) {
        key_state.removed.push(KeyRow::EmittedWindow(first.remove_entry().0));
    }
    if key_state.panes.is_empty() && key_state.emitted.is_empty() {
        // Readings that come from here on are in windows that end later.
        key_state.ended = 0;
        key_state.dirty = true;
        key_state.folds.clear();
    }
}

fn emit<L: OverlapLayout>(layout: L, context: &mut KeyContext<'_>, key_state: &mut KeyState, end: u64) {
    let window = layout.window(end);
    let revises = !context.config.revise.is_zero();
    let known = key_state.emitted.get(&end).copied().unwrap_or_default();
    let folded = key_state.folds.fold(&key_state.panes, window.clone(), layout.blocks(), context.aggregate);
    if revises {
        let revision = known.revision.saturating_add(1);
        let next = EmittedWindow { revision, late: known.late, due: None, dirty: true };
        key_state.emitted.insert(end, next);
    }
    let due = known.due.unwrap_or(end);
    let whole = window.start >= context.lost_before;
    match folded {
        Ok(part) if part.count > 0 && whole => {
            context.give(part, known.late, (window.start, end), 0, known.revision, false, due);
        }
        Ok(_) => {}
        Err(reason) => {
            context.fail(FoldedPanes::default(), (window.start, end), 0, known.revision, reason, due);
        }
    }
}

/// Returns the watermark at which a key is to be fired next.
pub(super) fn due<L: OverlapLayout>(layout: L, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
    let first = key_state.panes.first().map(|(pane_id, _)| config.over_at(layout.last_end(pane_id.at)));
    let emitted = key_state.emitted.iter();
    let emitted = emitted.map(|(end, emitted)| emitted.due.unwrap_or_else(|| config.over_at(*end)));
    emitted.chain(first).chain(layout.next_end(&key_state.panes, key_state.ended)).min()
}
