//! An aggregate under test.

use super::shown;
use super::transform::breaks_contract;
use headwater_agent::flow::{Event, Timestamp};
use headwater_agent::module::{AggregateModule, Closed, Group, Rejection, Updated};

/// The times and payloads of a group.
pub(super) type Samples = Vec<(Timestamp, Vec<u8>)>;

/// An aggregate under test.
pub(super) struct AggregateTrial {
    pub(super) module: AggregateModule,
    pub(super) settings: String,
}

/// Returns the events as an aggregate's samples.
pub(super) fn samples(events: &[Event]) -> Samples {
    events.iter().map(|event| (event.time, event.payload.clone())).collect()
}

/// Returns a group of the one key and window that most checks use.
pub(super) fn group(state: &[u8], samples: &[(Timestamp, Vec<u8>)]) -> Group {
    Group {
        key: "key".to_owned(),
        start: Timestamp(1_767_225_600_000_000),
        end: Timestamp(1_767_225_660_000_000),
        state: state.to_vec(),
        samples: samples.to_vec(),
    }
}

impl AggregateTrial {
    pub(super) fn new(module: AggregateModule, settings: &str) -> Self {
        Self { module, settings: settings.to_owned() }
    }

    /// Makes a call; an error comes with true if the call ended in a trap.
    fn call<R>(
        &mut self,
        call: impl FnOnce(&mut AggregateModule) -> Result<R, String>,
    ) -> Result<R, (String, bool)> {
        let traps = self.module.traps();
        call(&mut self.module).map_err(|reason| (reason, self.module.traps() > traps))
    }

    /// Makes one call; if it fails as a whole, one for each group, and then one for each sample. A trap and a broken
    /// contract are faults.
    pub(super) fn update(&mut self, groups: &[Group]) -> Result<Vec<Updated>, String> {
        let (reason, trapped) = match self.call(|module| module.update_once(groups)) {
            Ok(updated) => return Ok(updated),
            Err(failed) => failed,
        };
        let found = if trapped { "a trap" } else { "an error" };
        let fault = || {
            let inputs: usize = groups.iter().map(|group| group.samples.len()).sum();
            let what = match groups {
                [Group { samples, .. }] if samples.len() == 1 => shown(&samples[0].1),
                _ => format!("{inputs} samples in {} groups", groups.len()),
            };
            format!("expected `update` to answer {what}, found {found}: {reason}")
        };
        let inputs: usize = groups.iter().map(|group| group.samples.len()).sum();
        match groups {
            _ if breaks_contract(&reason) => Err(fault()),
            [] => Err(fault()),
            [Group { samples, state, .. }] if samples.len() == 1 && !trapped => {
                Ok(vec![Updated { state: state.clone(), rejected: vec![Rejection { index: 0, reason }] }])
            }
            [Group { samples, .. }] if samples.len() < 2 => Err(fault()),
            _ => {
                let mut updated = Vec::with_capacity(groups.len());
                for group in groups {
                    match groups.len() {
                        1 => updated.push(self.update_in_parts(group, 1)?),
                        _ => updated.extend(self.update(std::slice::from_ref(group))?),
                    }
                }
                let refused = updated.iter().any(|one| !one.rejected.is_empty());
                if trapped || inputs == 0 || !refused { Err(fault()) } else { Ok(updated) }
            }
        }
    }

    /// Updates with the group's samples in calls of so many, each on top of the state before.
    pub(super) fn update_in_parts(&mut self, group: &Group, size: usize) -> Result<Updated, String> {
        let mut updated = Updated { state: group.state.clone(), rejected: Vec::new() };
        for (part, samples) in group.samples.chunks(size).enumerate() {
            let part_of = Group { state: updated.state, samples: samples.to_vec(), ..group.clone() };
            let one = self.update(&[part_of])?.pop().ok_or("no answer")?;
            updated.state = one.state;
            updated.rejected.extend(
                one.rejected.into_iter().map(|one| Rejection { index: part * size + one.index, ..one }),
            );
        }
        Ok(sorted(updated))
    }

    /// Updates with all of the group's samples in one call.
    pub(super) fn update_whole(&mut self, group: &Group) -> Result<Updated, String> {
        let updated = self.update(std::slice::from_ref(group))?.pop().ok_or("no answer")?;
        Ok(sorted(updated))
    }

    /// Returns the state of these samples from nothing.
    pub(super) fn state(&mut self, samples: &[(Timestamp, Vec<u8>)]) -> Result<Vec<u8>, String> {
        Ok(self.update_whole(&group(&[], samples))?.state)
    }

    pub(super) fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        self.call(|module| module.merge_once(a, b)).map_err(|(reason, trapped)| {
            let found = if trapped { "a trap" } else { "an error" };
            format!("expected `merge` to answer {} and {}, found {found}: {reason}", shown(a), shown(b))
        })
    }

    /// Returns the result of a state; an error is an answer, too.
    pub(super) fn finish(&mut self, state: &[u8]) -> Result<Result<serde_json::Value, String>, String> {
        let closed = Closed {
            key: "key".to_owned(),
            start: Timestamp(1_767_225_600_000_000),
            end: Timestamp(1_767_225_660_000_000),
            state: state.to_vec(),
            count: 3,
            late: 0,
            revision: 0,
        };
        match self.call(|module| module.finish_once(std::slice::from_ref(&closed))) {
            Ok(results) => serde_json::from_slice(&results[0]).map(Ok).map_err(|error| {
                format!("expected a result of `finish` in JSON, found {}: {error}", shown(&results[0]))
            }),
            Err((reason, true)) => {
                Err(format!("expected `finish` to answer {}, found a trap: {reason}", shown(state)))
            }
            Err((reason, _)) if breaks_contract(&reason) => Err(reason),
            Err((reason, _)) => Ok(Err(reason)),
        }
    }

    /// Checks that the module answers a state that it has not made, whatever the answer is.
    pub(super) fn answers(&mut self, state: &[u8]) -> Result<(), String> {
        let calls = [
            ("update", self.call(|module| module.update_once(&[group(state, &[])]).map(drop))),
            ("merge", self.call(|module| module.merge_once(state, &[]).map(drop))),
            ("merge", self.call(|module| module.merge_once(&[], state).map(drop))),
            ("finish", self.finish(state).map(drop).map_err(|reason| (reason, true))),
        ];
        for (name, result) in calls {
            if let Err((reason, true)) = result {
                let state = shown(state);
                return Err(format!("expected `{name}` to answer the state {state}, found {reason}"));
            }
        }
        Ok(())
    }
}

/// Returns the answer with its rejections by index: in a call their order is the module's.
fn sorted(mut updated: Updated) -> Updated {
    updated.rejected.sort_by_key(|one| one.index);
    updated
}
