//! The work on one key, as far as the kinds of windows share it.

use super::fold::FoldedPanes;
use super::pane::{EmittedResult, KeyState, PaneId, PaneState};
use super::{Aggregate, SettledBatch, WindowConfig};
use headwater_flow::aggregation::{Closed, Group, Updated};
use headwater_flow::{Timestamp, micros};

/// A result that is to be finished.
#[derive(Debug)]
pub(super) struct ReadyResult {
    pub(super) closed: Closed,
    pub(super) part: u32,
    pub(super) rejected: u64,
    pub(super) watermark: Timestamp,
    pub(super) early: bool,
    /// There is no state: the result is withdrawn, or merging failed for this reason.
    pub(super) without: Option<MissingValue>,
}

#[derive(Debug)]
pub(super) enum MissingValue {
    Retracted,
    Failed(String),
}

/// The surroundings of the work on a key.
pub(super) struct KeyContext<'a> {
    pub(super) config: &'a WindowConfig,
    pub(super) key: &'a str,
    /// The watermark of the key.
    pub(super) watermark: u64,
    /// The watermark of keys that are silent.
    pub(super) closing: u64,
    /// Keys that hold something.
    pub(super) keys: usize,
    /// Watermarks since all that was due was done, ascending.
    pub(super) passed: &'a [u64],
    /// State of windows that begin before this was lost.
    pub(super) lost_before: u64,
    pub(super) aggregate: &'a mut dyn Aggregate,
    pub(super) ready: &'a mut Vec<ReadyResult>,
    pub(super) settled: &'a mut SettledBatch,
}

impl KeyContext<'_> {
    /// Reports that a window with this end takes no readings any more.
    pub(super) fn is_over(&self, end: u64) -> bool {
        self.config.over_at(end) <= self.watermark
    }

    /// Returns the time at which a window with this `end`, changed just now by a reading of `time`, emits its next
    /// result, if before that.
    pub(super) fn early(&self, time: u64, end: u64) -> Option<u64> {
        let every = micros(self.config.early?).max(1);
        let watermark = self.watermark.max(time.saturating_sub(micros(self.config.lateness)));
        let next = (watermark / every).saturating_add(1).saturating_mul(every);
        (next < end).then_some(next)
    }

    /// Returns the watermark that made due what was to be done at `due`.
    pub(super) fn at(&self, due: u64) -> Timestamp {
        let first = self.passed.partition_point(|passed| *passed < due);
        Timestamp(self.passed.get(first).copied().unwrap_or(self.watermark))
    }

    /// Gives waiting readings of this key to the aggregate.
    pub(super) fn apply(&mut self, key_state: &mut KeyState) {
        let mut groups = groups(self.config, self.key, key_state);
        if groups.is_empty() {
            return;
        }
        let updates = self.aggregate.update(&groups);
        let pane_ids = std::mem::take(&mut key_state.waiting);
        for ((pane_id, group), updated) in pane_ids.into_iter().zip(&mut groups).zip(updates) {
            take(key_state, pane_id, group, updated, self.settled);
        }
    }

    /// Emits the result of a pane that is a window of its own, due at `due`: an early one where there was a
    /// watermark between that and the window's end, be it long past.
    pub(super) fn show(&mut self, pane: &mut PaneState, pane_id: PaneId, (start, end): (u64, u64), due: u64) {
        let before = pane.shown.iter().position(|shown| (shown.start, shown.end) == (start, end));
        for shown in pane.shown.iter().filter(|shown| (shown.start, shown.end) != (start, end)) {
            self.retract(*shown, due);
        }
        let revision = before.map_or(0, |index| pane.shown[index].revision);
        pane.shown = vec![EmittedResult { start, end, revision: revision.saturating_add(1) }];
        let early = end > self.at(due).0 && !pane.full;
        pane.changed = false;
        pane.provisional = early;
        pane.due = None;
        pane.dirty = true;
        let part = FoldedPanes::of(pane);
        self.give(part, pane.late, (start, end), pane_id.tie, revision, early, due);
    }

    /// Emits a result.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of the result")]
    pub(super) fn give(
        &mut self,
        part: FoldedPanes,
        late: u64,
        (start, end): (u64, u64),
        number: u32,
        revision: u32,
        early: bool,
        due: u64,
    ) {
        self.ready.push(ReadyResult {
            closed: Closed {
                key: self.key.to_owned(),
                start: Timestamp(start),
                end: Timestamp(end),
                state: part.state,
                count: part.count,
                late,
                revision,
            },
            part: number,
            rejected: part.rejected,
            watermark: self.at(due),
            early,
            without: None,
        });
    }

    /// Withdraws a result, since its readings are part of another one now.
    fn retract(&mut self, shown: EmittedResult, due: u64) {
        let bounds = (shown.start, shown.end);
        self.give(FoldedPanes::default(), 0, bounds, 0, shown.revision, false, due);
        if let Some(ready) = self.ready.last_mut() {
            ready.without = Some(MissingValue::Retracted);
        }
    }

    /// Emits the failure of panes that cannot be merged, instead of a result.
    pub(super) fn fail(
        &mut self,
        pane: FoldedPanes,
        bounds: (u64, u64),
        number: u32,
        revision: u32,
        reason: String,
        due: u64,
    ) {
        self.give(pane, 0, bounds, number, revision, false, due);
        if let Some(ready) = self.ready.last_mut() {
            ready.without = Some(MissingValue::Failed(reason));
        }
    }
}

/// Takes the waiting samples and the states that they are added to, in the order of `waiting`.
pub(super) fn groups(config: &WindowConfig, key: &str, key_state: &mut KeyState) -> Vec<Group> {
    let mut groups = Vec::with_capacity(key_state.waiting.len());
    for pane_id in &key_state.waiting {
        let pane = key_state.panes.get_mut(pane_id).expect("panes that are removed do not wait");
        let (start, end) = config.kind.rules().pane_bounds(*pane_id, pane);
        let state = std::mem::take(&mut pane.state);
        key_state.bytes -= state.len();
        groups.push(Group {
            key: key.to_owned(),
            start: Timestamp(start),
            end: Timestamp(end),
            state,
            samples: std::mem::take(&mut pane.samples),
        });
    }
    groups
}

/// Puts in a pane's new state, and counts the refused samples.
pub(super) fn take(
    key_state: &mut KeyState,
    pane_id: PaneId,
    group: &mut Group,
    updated: Updated,
    settled: &mut SettledBatch,
) {
    let pane = key_state.panes.get_mut(&pane_id).expect("it was there when its samples were taken");
    let rejected = updated.rejected.len() as u64;
    let used = (group.samples.len() as u64).saturating_sub(rejected);
    key_state.bytes += updated.state.len();
    pane.state = updated.state;
    pane.count += used;
    pane.late += if pane.is_late { used } else { 0 };
    pane.rejected += rejected;
    pane.changed |= used > 0;
    if !pane.changed {
        pane.due = None;
    }
    pane.dirty = true;
    settled.used += used;
    settled.refused.extend(updated.rejected.into_iter().map(|rejection| super::RefusedSample {
        key: group.key.clone(),
        time: group.samples[rejection.index].0,
        payload: std::mem::take(&mut group.samples[rejection.index].1),
        reason: rejection.reason,
    }));
}
