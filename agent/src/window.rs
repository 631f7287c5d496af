//! Event-time windows: assign, observe, watermark, close. Pure; time is an argument.
//!
//! Owns which windows are open, the watermark, and the opaque state of each (window, key); what a
//! state means is the [`Aggregate`]'s business. Windows close at an exact place in the order of
//! the readings, so that the results do not depend on how readings were batched: the caller
//! settles whenever [`Windows::due`] says so, before the next reading is observed.
//!
//! The watermark follows the dataflow model (Akidau et al., "The Dataflow Model", VLDB 2015): the
//! highest event time so far less the allowed `lateness`; never backwards. A window closes when
//! the watermark reaches its end. A reading whose window has closed is late: it is counted and not
//! used, unless the window is kept for `revise`; then it gives a new revision of the result.
//!
//! **Invariant:** every observed reading is exactly one of used, late, lost, rejected or pending.

mod codec;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::flow::{Timestamp, micros};
use crate::module::{Closed, Group, Updated};
pub use codec::CodecError;

/// The windows of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Length of a window; windows start at whole multiples of it since 1970 UTC.
    pub tumbling: Duration,
    /// How far behind the newest reading another may come and still be used. Default 0 s.
    pub lateness: Duration,
    /// After this long without a reading the watermark goes on at the pace of the host's clock, so
    /// that windows close though the devices are silent. Without it they stay open.
    pub idle: Option<Duration>,
    /// How long, in event time, a closed window still takes late readings, each of which gives a
    /// new revision of its result. Default 0 s.
    pub revise: Duration,
}

/// What a window's readings become: a module, or a built-in.
pub trait Aggregate {
    /// New states, one for each group, in their order.
    fn update(&mut self, groups: &[Group]) -> Vec<Updated>;
    /// The results' JSON, or why there is none, one for each window, in their order.
    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>>;
}

/// What became of an observed reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It belongs to a window that takes it.
    Used,
    /// Its window can no longer change.
    Late,
    /// The state of its window was lost: what is left would pass for the whole.
    Lost,
}

/// A result, or the reason why a window has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the window belongs to.
    pub key: String,
    /// First instant.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// 0 the first time, one more with each late reading.
    pub revision: u32,
    /// Readings used.
    pub count: u64,
    /// Of these, readings that came after the window had first closed.
    pub late: u64,
    /// Readings that the aggregate refused.
    pub rejected: u64,
    /// The aggregate's JSON; or its words and the state that it could not finish.
    pub value: Result<Vec<u8>, (String, Vec<u8>)>,
    /// The state that it finished.
    pub state: Vec<u8>,
}

/// A reading that the aggregate refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it belongs to.
    pub key: String,
    /// Its event time.
    pub time: Timestamp,
    /// Its content.
    pub payload: Vec<u8>,
    /// The aggregate's words.
    pub reason: String,
}

/// What settling gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// One for each window that closed or was revised, by start and key.
    pub outcomes: Vec<Outcome>,
    /// Readings that the aggregate refused.
    pub refused: Vec<Refused>,
    /// Readings that it used.
    pub used: u64,
}

impl Settled {
    /// What came after is put behind.
    pub fn append(&mut self, later: Self) {
        self.outcomes.extend(later.outcomes);
        self.refused.extend(later.refused);
        self.used += later.used;
    }
}

/// One key's part of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pane {
    state: Vec<u8>,
    count: u64,
    late: u64,
    rejected: u64,
    /// Of the next result.
    revision: u32,
    /// Readings were used since the last result.
    changed: bool,
    samples: Vec<(Timestamp, Vec<u8>)>,
    /// Differs from what the store holds.
    dirty: bool,
    /// The store holds it in some form.
    stored: bool,
}

/// The open windows of one pipeline.
#[derive(Debug)]
pub struct Windows {
    config: Config,
    newest: Option<Timestamp>,
    watermark: Timestamp,
    /// The watermark when last settled: a window is closed when its end is not after this.
    settled: Timestamp,
    panes: BTreeMap<Timestamp, HashMap<String, Pane>>,
    /// Readings wait for the aggregate.
    pending: bool,
    /// One of them revises a closed window.
    revising: bool,
    /// Panes to be removed from the store.
    forgotten: Vec<(Timestamp, String)>,
    /// State of windows that begin before this was lost: those that are not there take no readings.
    lost_before: Timestamp,
}

impl Windows {
    /// No windows, watermark at the beginning of time.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            newest: None,
            watermark: Timestamp(0),
            settled: Timestamp(0),
            panes: BTreeMap::new(),
            pending: false,
            revising: false,
            forgotten: Vec::new(),
            lost_before: Timestamp(0),
        }
    }

    /// State was lost, and what is there is whole: windows that may have been begun and are not there
    /// give no results any more, since these would replace whole ones or pass for them. `began` is the
    /// newest time a reading may have had, should that be lost as well. Says which times are concerned.
    pub fn lose(&mut self, began: Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        let newest = self.newest.max(began)?;
        let oldest = self.watermark.before(self.config.revise).min(newest);
        self.lost_before = self.lost_before.max(Timestamp(newest.0.saturating_add(1)));
        let from = if began.is_some() { Timestamp(0) } else { self.start_of(oldest) };
        Some((from, self.end_of(self.start_of(newest))))
    }

    /// Assigns a reading to its window and moves the watermark. The reading waits for the next
    /// [`Windows::settle`] or [`Windows::apply`]; nothing may be due.
    pub fn observe(&mut self, key: &str, time: Timestamp, payload: Vec<u8>) -> Fate {
        debug_assert!(!self.due(), "what is due is settled before the next reading");
        self.settled = self.watermark;
        let start = self.start_of(time);
        if self.is_over(start) {
            return Fate::Late;
        }
        if start < self.lost_before && !self.panes.get(&start).is_some_and(|panes| panes.contains_key(key)) {
            return Fate::Lost;
        }
        let panes = self.panes.entry(start).or_default();
        if !panes.contains_key(key) {
            panes.insert(key.to_owned(), Pane::default());
        }
        let pane = panes.get_mut(key).expect("it was put there if it was missing");
        pane.samples.push((time, payload));
        self.pending = true;
        self.revising |= self.end_of(start) <= self.settled;
        self.newest = self.newest.max(Some(time));
        self.watermark = self.watermark.max(time.before(self.config.lateness));
        Fate::Used
    }

    /// Moves the watermark of an idle pipeline: `quiet` is how long, on a monotonic clock, nothing
    /// came though nothing was waiting to be read.
    pub fn idle(&mut self, quiet: Duration) {
        let (Some(idle), Some(newest)) = (self.config.idle, self.newest) else { return };
        if quiet >= idle {
            self.watermark = self.watermark.max(newest.after(quiet).before(self.config.lateness));
        }
    }

    /// Whether a window is to be closed, revised or forgotten before the next reading.
    #[must_use]
    pub fn due(&self) -> bool {
        let oldest = self.panes.keys().next();
        let open = self.panes.range(self.first_open()..).next();
        self.revising
            || oldest.is_some_and(|start| self.is_over(*start))
            || open.is_some_and(|(start, _)| self.end_of(*start) <= self.watermark)
    }

    /// Gives waiting readings to the aggregate, finishes what has closed, forgets what is over.
    pub fn settle(&mut self, aggregate: &mut impl Aggregate) -> Settled {
        let mut settled = self.apply(aggregate);
        let closed = self.close();
        let values = aggregate.finish(&closed);
        settled.outcomes =
            closed.into_iter().zip(values).map(|(window, value)| self.outcome(window, value)).collect();
        self.forget();
        self.settled = self.watermark;
        self.revising = false;
        settled
    }

    /// Gives waiting readings to the aggregate and closes nothing.
    pub fn apply(&mut self, aggregate: &mut impl Aggregate) -> Settled {
        let mut settled = Settled::default();
        if std::mem::take(&mut self.pending) {
            let mut groups = self.groups();
            let updates = aggregate.update(&groups);
            for (group, updated) in groups.iter_mut().zip(updates) {
                self.take_update(group, updated, &mut settled);
            }
        }
        settled
    }

    /// Windows that are open or kept for revision, counted by key.
    #[must_use]
    pub fn open(&self) -> usize {
        self.panes.values().map(HashMap::len).sum()
    }

    /// Bytes of aggregate state held.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.panes.values().flat_map(HashMap::values).map(|pane| pane.state.len()).sum()
    }

    /// Readings before this are late.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    fn start_of(&self, time: Timestamp) -> Timestamp {
        Timestamp(time.0 - time.0 % micros(self.config.tumbling).max(1))
    }

    fn end_of(&self, start: Timestamp) -> Timestamp {
        start.after(self.config.tumbling)
    }

    /// The first start whose window was not closed when last settled.
    fn first_open(&self) -> Timestamp {
        let one_past = |time: Timestamp| Timestamp(time.0 + 1);
        if self.settled < self.end_of(Timestamp(0)) {
            return Timestamp(0);
        }
        one_past(self.settled.before(self.config.tumbling))
    }

    /// Whether the window takes no readings any more.
    fn is_over(&self, start: Timestamp) -> bool {
        self.end_of(start).after(self.config.revise) <= self.watermark
    }

    /// Moves the waiting samples and the states out, by window and key.
    fn groups(&mut self) -> Vec<Group> {
        let mut groups = Vec::new();
        for (start, panes) in &mut self.panes {
            let end = start.after(self.config.tumbling);
            let waiting = panes.iter_mut().filter(|(_, pane)| !pane.samples.is_empty());
            groups.extend(waiting.map(|(key, pane)| Group {
                key: key.clone(),
                start: *start,
                end,
                state: std::mem::take(&mut pane.state),
                samples: std::mem::take(&mut pane.samples),
            }));
        }
        groups.sort_by(|a, b| (a.start, &a.key).cmp(&(b.start, &b.key)));
        groups
    }

    fn take_update(&mut self, group: &mut Group, updated: Updated, settled: &mut Settled) {
        let late = group.end <= self.settled;
        let pane = self.pane(group.start, &group.key);
        let rejected = updated.rejected.len() as u64;
        let used = (group.samples.len() as u64).saturating_sub(rejected);
        pane.state = updated.state;
        pane.count += used;
        pane.late += if late { used } else { 0 };
        pane.rejected += rejected;
        pane.changed |= used > 0;
        pane.dirty = true;
        settled.used += used;
        settled.refused.extend(updated.rejected.into_iter().map(|rejection| Refused {
            key: group.key.clone(),
            time: group.samples[rejection.index].0,
            payload: std::mem::take(&mut group.samples[rejection.index].1),
            reason: rejection.reason,
        }));
    }

    fn pane(&mut self, start: Timestamp, key: &str) -> &mut Pane {
        self.panes
            .get_mut(&start)
            .and_then(|panes| panes.get_mut(key))
            .expect("groups and closed windows are made from panes, and none is forgotten in between")
    }

    /// What the watermark has passed and the results do not show yet, by start and key.
    fn close(&self) -> Vec<Closed> {
        let passed = self.panes.iter().take_while(|(start, _)| self.end_of(**start) <= self.watermark);
        let mut closed: Vec<Closed> = passed
            .flat_map(|(start, panes)| {
                let changed = panes.iter().filter(|(_, pane)| pane.changed);
                changed.map(|(key, pane)| Closed {
                    key: key.clone(),
                    start: *start,
                    end: self.end_of(*start),
                    state: pane.state.clone(),
                    count: pane.count,
                    late: pane.late,
                    revision: pane.revision,
                })
            })
            .collect();
        closed.sort_by(|a, b| (a.start, &a.key).cmp(&(b.start, &b.key)));
        closed
    }

    fn outcome(&mut self, window: Closed, value: Result<Vec<u8>, String>) -> Outcome {
        let pane = self.pane(window.start, &window.key);
        pane.changed = false;
        pane.revision += 1;
        pane.dirty = true;
        let (value, state) = match value {
            Ok(value) => (Ok(value), window.state),
            Err(reason) => (Err((reason, window.state)), Vec::new()),
        };
        Outcome {
            rejected: pane.rejected,
            key: window.key,
            start: window.start,
            end: window.end,
            revision: window.revision,
            count: window.count,
            late: window.late,
            value,
            state,
        }
    }

    fn forget(&mut self) {
        while let Some(oldest) = self.panes.first_entry() {
            let start = *oldest.key();
            if start.after(self.config.tumbling).after(self.config.revise) > self.watermark {
                return;
            }
            let stored = oldest.remove().into_iter().filter(|(_, pane)| pane.stored);
            self.forgotten.extend(stored.map(|(key, _)| (start, key)));
        }
    }
}

#[cfg(test)]
mod tests;
