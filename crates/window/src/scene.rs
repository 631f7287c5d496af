//! One key at work: what the kinds of windows share.

use super::fold::Part;
use super::pane::{Keyed, Pane, Place, Shown};
use super::{Aggregate, Config, Settled};
use headwater_flow::aggregation::{Closed, Group, Updated};
use headwater_flow::{Timestamp, micros};

/// A result that is to be finished.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) closed: Closed,
    pub(super) part: u32,
    pub(super) rejected: u64,
    pub(super) watermark: Timestamp,
    pub(super) early: bool,
    /// There is no state: the result is withdrawn, or merging failed for this reason.
    pub(super) without: Option<Without>,
}

#[derive(Debug)]
pub(super) enum Without {
    Retracted,
    Failed(String),
}

/// What the work on a key can use.
pub(super) struct Scene<'a> {
    pub(super) config: &'a Config,
    pub(super) key: &'a str,
    /// The key's.
    pub(super) watermark: u64,
    /// That of keys that are silent.
    pub(super) closing: u64,
    /// Keys that hold something.
    pub(super) keys: usize,
    /// Watermarks since all that was due was done, ascending.
    pub(super) passed: &'a [u64],
    /// State of what began before this was lost.
    pub(super) lost_before: u64,
    pub(super) aggregate: &'a mut dyn Aggregate,
    pub(super) ready: &'a mut Vec<Ready>,
    pub(super) settled: &'a mut Settled,
}

impl Scene<'_> {
    /// Whether a window that ends here takes no readings any more.
    pub(super) fn is_over(&self, end: u64) -> bool {
        self.config.over_at(end) <= self.watermark
    }

    /// When a window that ends at `end`, and that a reading of `time` has just changed, gives its next
    /// result, if before that.
    pub(super) fn early(&self, time: u64, end: u64) -> Option<u64> {
        let every = micros(self.config.early?).max(1);
        let watermark = self.watermark.max(time.saturating_sub(micros(self.config.lateness)));
        let next = (watermark / every).saturating_add(1).saturating_mul(every);
        (next < end).then_some(next)
    }

    /// The watermark that made what was due at `due` so.
    pub(super) fn at(&self, due: u64) -> Timestamp {
        let first = self.passed.partition_point(|passed| *passed < due);
        Timestamp(self.passed.get(first).copied().unwrap_or(self.watermark))
    }

    /// Gives waiting readings of this key to the aggregate.
    pub(super) fn apply(&mut self, keyed: &mut Keyed) {
        let mut groups = groups(self.config, self.key, keyed);
        if groups.is_empty() {
            return;
        }
        let updates = self.aggregate.update(&groups);
        let places = std::mem::take(&mut keyed.waiting);
        for ((place, group), updated) in places.into_iter().zip(&mut groups).zip(updates) {
            take(keyed, place, group, updated, self.settled);
        }
    }

    /// The result of a pane that is a window of its own, due at `due`: an early one where there was a
    /// watermark between that and the window's end, be it long past.
    pub(super) fn show(&mut self, pane: &mut Pane, place: Place, (start, end): (u64, u64), due: u64) {
        let before = pane.shown.iter().position(|shown| (shown.start, shown.end) == (start, end));
        for shown in pane.shown.iter().filter(|shown| (shown.start, shown.end) != (start, end)) {
            self.retract(*shown, due);
        }
        let revision = before.map_or(0, |index| pane.shown[index].revision);
        pane.shown = vec![Shown { start, end, revision: revision.saturating_add(1) }];
        let early = end > self.at(due).0 && !pane.full;
        (pane.changed, pane.provisional, pane.due, pane.dirty) = (false, early, None, true);
        let part = Part::of(pane);
        self.give(part, pane.late, (start, end), place.tie, revision, early, due);
    }

    /// A result, unless some of what belongs to it was lost.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of the result")]
    pub(super) fn give(
        &mut self,
        part: Part,
        late: u64,
        (start, end): (u64, u64),
        number: u32,
        revision: u32,
        early: bool,
        due: u64,
    ) {
        self.ready.push(Ready {
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

    /// Withdraws a result: its readings are part of another one now.
    fn retract(&mut self, shown: Shown, due: u64) {
        let bounds = (shown.start, shown.end);
        self.give(Part::default(), 0, bounds, 0, shown.revision, false, due);
        if let Some(ready) = self.ready.last_mut() {
            ready.without = Some(Without::Retracted);
        }
    }

    /// Panes that cannot be merged have no result.
    pub(super) fn fail(
        &mut self,
        pane: Part,
        bounds: (u64, u64),
        number: u32,
        revision: u32,
        reason: String,
        due: u64,
    ) {
        self.give(pane, 0, bounds, number, revision, false, due);
        if let Some(ready) = self.ready.last_mut() {
            ready.without = Some(Without::Failed(reason));
        }
    }
}

/// The waiting samples and the states they come on top of, in the order of `waiting`.
pub(super) fn groups(config: &Config, key: &str, keyed: &mut Keyed) -> Vec<Group> {
    let mut groups = Vec::with_capacity(keyed.waiting.len());
    for place in &keyed.waiting {
        let pane = keyed.panes.get_mut(place).expect("panes that are removed do not wait");
        let (start, end) = super::bounds(config, *place, pane);
        let state = std::mem::take(&mut pane.state);
        keyed.bytes -= state.len();
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

/// A pane's new state, and what was refused.
pub(super) fn take(
    keyed: &mut Keyed,
    place: Place,
    group: &mut Group,
    updated: Updated,
    settled: &mut Settled,
) {
    let pane = keyed.panes.get_mut(&place).expect("it was there when its samples were taken");
    let rejected = updated.rejected.len() as u64;
    let used = (group.samples.len() as u64).saturating_sub(rejected);
    keyed.bytes += updated.state.len();
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
    settled.refused.extend(updated.rejected.into_iter().map(|rejection| super::Refused {
        key: group.key.clone(),
        time: group.samples[rejection.index].0,
        payload: std::mem::take(&mut group.samples[rejection.index].1),
        reason: rejection.reason,
    }));
}
