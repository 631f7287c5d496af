//! Sessions: intervals that grow with their readings, and become one when a reading joins two.

use std::ops::Bound;
use std::time::Duration;

use super::super::context::KeyContext;
use super::super::fold::{FoldedPanes, merge};
use super::super::pane::{EmittedResult, KeyState, PaneId, PaneState};
use super::super::{ObservedReading, WindowConfig};
use super::KindRules;
use headwater_flow::{Timestamp, micros};

/// Readings of a key that follow each other by less than `gap`.
///
/// A session ends a gap after the last reading, or where a multiple of `longest` since 1970 UTC passes, as Azure
/// Stream Analytics and eKuiper cut theirs: a cut at fixed times does not depend on the order of the readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionWindow {
    /// The shortest silence between two sessions.
    pub gap: Duration,
    /// The distance between two cuts, at least `gap`.
    pub longest: Option<Duration>,
}

impl SessionWindow {
    fn bounds(&self) -> SessionBounds {
        SessionBounds::new(self.gap, self.longest)
    }
}

impl KindRules for SessionWindow {
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading {
        assign(context, self.bounds(), key_state, time, payload)
    }

    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
        fire(context, self.bounds(), key_state);
    }

    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
        due(config, self.bounds(), key_state)
    }

    fn pane_bounds(&self, pane_id: PaneId, pane: &PaneState) -> (u64, u64) {
        self.bounds().of(pane, pane_id)
    }

    fn last_end(&self, newest: u64) -> Option<u64> {
        Some(newest.saturating_add(micros(self.gap)))
    }
}

/// The ends of sessions, in microseconds.
#[derive(Clone, Copy, Debug)]
struct SessionBounds {
    gap: u64,
    longest: Option<u64>,
}

impl SessionBounds {
    fn new(gap: Duration, longest: Option<Duration>) -> Self {
        Self { gap: micros(gap).max(1), longest: longest.map(|longest| micros(longest).max(1)) }
    }

    /// Returns the next time after `at` that no session passes.
    fn cut(self, at: u64) -> u64 {
        self.longest.map_or(u64::MAX, |longest| (at - at % longest).saturating_add(longest))
    }

    /// Returns the end of a session with such a last reading.
    fn end(self, last: u64) -> u64 {
        last.saturating_add(self.gap).min(self.cut(last))
    }

    /// Returns the start and the end of a pane's session.
    fn of(self, pane: &PaneState, pane_id: PaneId) -> (u64, u64) {
        let (start, last) = pane.span.unwrap_or((pane_id.at, pane_id.at));
        (start, self.end(last))
    }
}

/// Puts a reading into its session, which may make one of two.
fn assign(
    context: &mut KeyContext<'_>,
    bounds: SessionBounds,
    key_state: &mut KeyState,
    time: Timestamp,
    payload: Vec<u8>,
) -> ObservedReading {
    let at = time.0;
    let before = key_state.panes.range(..=PaneId::at(at)).next_back();
    let left = before.filter(|(pane_id, pane)| at < bounds.of(pane, **pane_id).1);
    let left = left.map(|(pane_id, pane)| (*pane_id, bounds.of(pane, *pane_id)));
    let after = key_state.panes.range((Bound::Excluded(PaneId::at(at)), Bound::Unbounded)).next();
    let right = after.filter(|(pane_id, _)| pane_id.at < bounds.end(at));
    let right = right.map(|(pane_id, pane)| (*pane_id, bounds.of(pane, *pane_id)));
    let end = [left, right].into_iter().flatten().map(|(_, (_, end))| end).chain([bounds.end(at)]).max();
    if end.is_none_or(|end| context.is_over(end)) {
        return ObservedReading::Late(payload);
    }
    if at < context.lost_before {
        return ObservedReading::Lost(payload);
    }
    let joined = left.or(right).map_or(bounds.end(at), |(_, (_, end))| end);
    let is_late = joined <= context.watermark;
    let pane_id = match (left, right) {
        (Some((left, _)), Some((right, _))) => join(context, bounds, key_state, left, right),
        (Some((pane_id, _)), None) => pane_id,
        (None, Some((pane_id, _))) => {
            let pane = key_state.remove(pane_id).expect("it was found there");
            key_state.insert(PaneId::at(at), pane);
            PaneId::at(at)
        }
        (None, None) => PaneId::at(at),
    };
    if key_state.panes.get(&pane_id).is_some_and(|pane| pane.is_late != is_late) {
        // What waits together is late together.
        context.apply(key_state);
    }
    let pane = key_state.push(pane_id, (time, payload), is_late);
    let (first, last) = pane.span.unwrap_or((at, at));
    pane.span = Some((first.min(at), last.max(at)));
    let (_, end) = bounds.of(pane, pane_id);
    if end <= context.watermark {
        pane.due = Some(context.watermark);
    } else if pane.due.is_none() {
        pane.due = context.early(at, end);
    }
    key_state.due = due(context.config, bounds, key_state);
    ObservedReading::Used
}

/// Makes one session of two, the earlier one. Where they cannot be merged, the earlier one goes on without the
/// readings of the later one, whose state is emitted as failed.
fn join(
    context: &mut KeyContext<'_>,
    bounds: SessionBounds,
    key_state: &mut KeyState,
    left: PaneId,
    right: PaneId,
) -> PaneId {
    // In this order, so that it does not matter where a batch ended.
    context.apply(key_state);
    let earlier = key_state.remove(left);
    let later = key_state.remove(right);
    let Some(mut earlier) = earlier else { return left };
    let Some(later) = later else { return left };
    match merge(&earlier.state, &later.state, context.aggregate) {
        Ok(state) => {
            earlier.state = state;
            earlier.count += later.count;
            earlier.late += later.late;
            earlier.rejected += later.rejected;
            earlier.changed |= later.changed;
        }
        Err(reason) => {
            let part = FoldedPanes::of(&later);
            let (start, end) = bounds.of(&later, right);
            let same = |shown: &&EmittedResult| (shown.start, shown.end) == (start, end);
            // Above that of its withdrawal, so that it comes back when it is replayed.
            let revision = later.shown.iter().find(same).map_or(0, |shown| shown.revision.saturating_add(1));
            context.fail(part, (start, end), 0, revision, reason, context.watermark);
        }
    }
    // What was shown of either alone is to be withdrawn.
    earlier.shown.extend(later.shown.iter().copied());
    earlier.changed |= !earlier.shown.is_empty();
    let last = [earlier.span, later.span].into_iter().flatten().map(|(_, last)| last).max();
    earlier.span = Some((left.at, last.unwrap_or(left.at)));
    key_state.insert(left, earlier);
    left
}

/// Emits all results that are due, and forgets the sessions that are over.
fn fire(context: &mut KeyContext<'_>, bounds: SessionBounds, key_state: &mut KeyState) {
    for (pane_id, pane) in key_state.panes.iter_mut() {
        let span = bounds.of(pane, *pane_id);
        while let Some(due) = pane.due(span.1).filter(|due| *due <= context.watermark) {
            let gap = bounds.gap;
            if span.0 < context.lost_before.saturating_add(gap) && context.lost_before > 0 {
                pane.changed = false;
                pane.provisional = false;
                pane.due = None;
                pane.dirty = true;
            } else {
                context.show(pane, *pane_id, span, due);
            }
        }
    }
    key_state.forget(|pane_id, pane| context.is_over(bounds.of(pane, *pane_id).1));
}

/// Returns the watermark at which a key is to be fired next.
fn due(config: &WindowConfig, bounds: SessionBounds, key_state: &KeyState) -> Option<u64> {
    let each = key_state.panes.iter().map(|(pane_id, pane)| {
        let (_, end) = bounds.of(pane, *pane_id);
        pane.due(end).unwrap_or_else(|| config.over_at(end))
    });
    each.min()
}
