//! Feeds readings to windows as a pipeline does, with batches, commits, restarts and kills where it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::super::*;
use super::SECOND;

/// A reading, and what is done after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) key: u8,
    pub(super) second: u64,
    pub(super) id: u16,
    pub(super) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Apply,
    Settle,
    SettleOne,
    Commit,
    Restart,
    /// Everything since the last commit is lost, and comes again from the journal.
    Kill,
}

/// Lists the readings it was given, in the order of merges.
pub(super) struct List;

impl Aggregate for List {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        let state = |group: &Group| {
            let samples = group.samples.iter().flat_map(|(_, payload)| payload);
            group.state.iter().chain(samples).copied().collect()
        };
        groups.iter().map(|group| Updated { state: state(group), rejected: Vec::new() }).collect()
    }

    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        Ok([a, b].concat())
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        windows.iter().map(|window| Ok(window.state.clone())).collect()
    }
}

/// What a commit writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl Disk {
    pub(super) fn write(&self, windows: &mut OpenWindows) {
        let mut rows = self.0.lock().unwrap();
        for (key, value) in windows.drain_changes() {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }

    pub(super) fn restore(&self, config: &WindowConfig, progress: &[u8], kept_bytes: usize) -> OpenWindows {
        let mut windows = OpenWindows::new(config.clone(), Box::new(self.clone()), kept_bytes);
        let rows = self.0.lock().unwrap().clone();
        windows
            .restore(progress, |each| rows.into_iter().try_for_each(|(key, value)| each(key, value)))
            .unwrap();
        windows
    }

    pub(super) fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        self.0.lock().unwrap().insert(key, value);
    }

    /// Loses the rows of a key.
    pub(super) fn forget(&self, key: &str) {
        self.0.lock().unwrap().retain(|row, _| codec::split(row).is_none_or(|(name, _)| name != key));
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl WindowStore for Disk {
    fn rows(&self, key: &str, each: RowVisitor<'_>) -> Result<(), WindowError> {
        let rows = self.0.lock().unwrap();
        let of_key = rows.iter().filter_map(|(row, value)| {
            codec::split(row).filter(|(name, _)| *name == key).map(|(_, tail)| (tail, value))
        });
        of_key.into_iter().try_for_each(|(tail, value)| each(tail, value))
    }
}

/// What came of readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ran {
    /// Each key's windows in order.
    pub(super) outcomes: Vec<WindowOutcome>,
    pub(super) late: BTreeSet<u16>,
    /// Those with one key too many.
    pub(super) full: BTreeSet<u16>,
}

/// What a commit made durable.
#[derive(Clone, Debug, Default)]
struct Committed {
    ran: Ran,
    progress: Vec<u8>,
    /// Readings before it.
    position: usize,
}

/// Readings as their numbers, listed.
pub(super) fn run(config: &WindowConfig, readings: &[Reading], kept_bytes: usize) -> Ran {
    run_with(&mut List, |reading| reading.id.to_be_bytes().to_vec(), config, readings, kept_bytes)
}

pub(super) fn run_with(
    aggregate: &mut dyn Aggregate,
    payload: impl Fn(&Reading) -> Vec<u8>,
    config: &WindowConfig,
    readings: &[Reading],
    kept_bytes: usize,
) -> Ran {
    let (disk, mut ran, mut committed) = (Disk::default(), Ran::default(), Committed::default());
    let mut windows = disk.restore(config, &[], kept_bytes);
    // Where it was killed last: until there nothing else is done, so that it is batched another way.
    let (mut position, mut killed) = (0, None);
    while let Some(reading) = readings.get(position) {
        let time = Timestamp(reading.second * SECOND);
        match windows.observe(aggregate, &reading.key.to_string(), time, payload(reading)).unwrap() {
            ObservedReading::Used => {}
            ObservedReading::Late(_) => drop(ran.late.insert(reading.id)),
            ObservedReading::Full(_) => drop(ran.full.insert(reading.id)),
            lost @ ObservedReading::Lost(_) => panic!("{lost:?}"),
        }
        let action = if killed >= Some(position) { Action::None } else { reading.action };
        position += 1;
        match action {
            Action::None => {}
            Action::Apply => ran.outcomes.extend(windows.apply(aggregate).unwrap().outcomes),
            Action::Settle => drain(aggregate, &mut windows, &mut ran.outcomes),
            Action::SettleOne => ran.outcomes.extend(windows.settle(aggregate, 1).unwrap().outcomes),
            Action::Commit | Action::Restart => {
                ran.outcomes.extend(windows.apply(aggregate).unwrap().outcomes);
                disk.write(&mut windows);
                committed = Committed { ran: ran.clone(), progress: windows.progress(), position };
                if action == Action::Restart {
                    let before = (windows.keys(), windows.open(), windows.state_bytes(), windows.due.clone());
                    windows = disk.restore(config, &committed.progress, kept_bytes);
                    let after = (windows.keys(), windows.open(), windows.state_bytes(), windows.due.clone());
                    assert_eq!(before, after);
                }
            }
            Action::Kill => {
                killed = Some(position - 1);
                (ran, position) = (committed.ran.clone(), committed.position);
                windows = disk.restore(config, &committed.progress, kept_bytes);
            }
        }
    }
    drain(aggregate, &mut windows, &mut ran.outcomes);
    disk.write(&mut windows);
    assert_eq!(windows.keys() == 0, disk.len() == 0, "what holds nothing has no rows");
    ran.outcomes.sort_by(|a, b| {
        let place = |outcome: &WindowOutcome| (outcome.start, outcome.end, outcome.part, outcome.revision);
        (&a.key, place(a)).cmp(&(&b.key, place(b)))
    });
    ran
}

fn drain(aggregate: &mut dyn Aggregate, windows: &mut OpenWindows, outcomes: &mut Vec<WindowOutcome>) {
    outcomes.extend(windows.apply(aggregate).unwrap().outcomes);
    while windows.due() {
        outcomes.extend(windows.settle(aggregate, 256).unwrap().outcomes);
    }
}

/// A window: its key, start and end in seconds but for the last microsecond, and part.
pub(super) type Id = (String, u64, u64, u32);

/// What a receiver holds in the end.
#[derive(Debug)]
pub(super) struct Collected(pub(super) BTreeMap<Id, WindowOutcome>);

impl Collected {
    pub(super) fn of(outcomes: &[WindowOutcome]) -> Self {
        let mut held = BTreeMap::<Id, WindowOutcome>::new();
        for outcome in outcomes {
            let id = (outcome.key.clone(), outcome.start.0, outcome.end.0, outcome.part);
            let expected = held.get(&id).map_or(0, |before| before.revision + 1);
            assert_eq!(outcome.revision, expected, "revisions are counted: {outcome:?}");
            held.insert(id, outcome.clone());
        }
        held.retain(|_, outcome| !outcome.retracted && !outcome.early);
        Self(held)
    }

    /// The readings of each window, sorted, and how many were late.
    pub(super) fn readings(&self) -> BTreeMap<Id, (Vec<u16>, u64)> {
        let readings = |outcome: &WindowOutcome| {
            let bytes = outcome.value.as_ref().unwrap();
            let mut ids: Vec<_> = bytes.as_chunks().0.iter().map(|id| u16::from_be_bytes(*id)).collect();
            assert_eq!(ids.len() as u64, outcome.count);
            ids.sort_unstable();
            ids
        };
        self.0.iter().map(|(id, outcome)| (id.clone(), (readings(outcome), outcome.late))).collect()
    }
}
