//! An aggregate at work.

use super::Trips;
use super::contract as wit;
use super::contract::{Answer, ClosedIn, GroupIn, SampleIn, UpdatedOut, WindowIn};
use super::guest::{Guest, clip};
use super::instance::{CALL_BYTES_MAX, Exports, Failure, Running, World, calls, check_indexes};
use headwater_flow::Timestamp;
use headwater_flow::aggregation::{Closed, Group, Rejection, Updated};
use std::fmt;
use std::ops::Range;
use wasmtime::Store;
use wasmtime::component::{Func, Instance};

/// An aggregate module, ready. One thread's.
pub struct Aggregate {
    running: Running<Fold>,
    state_version: u32,
}

impl Aggregate {
    pub(super) fn new(running: Running<Fold>) -> Self {
        Self { running, state_version: 0 }
    }

    /// Asks it for the version of its states.
    pub(super) fn versioned(mut self) -> Result<Self, String> {
        self.state_version = self.running.one(state_version).map_err(|failure| failure.reason)?;
        Ok(self)
    }

    /// Of the states that it makes and takes; 0 where it does not say.
    #[must_use]
    pub fn state_version(&self) -> u32 {
        self.state_version
    }

    /// A state of another version, as this one would have made it.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn migrate(&mut self, from: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        let migrated = self.running.one(|fold, store| migrate(fold, store, from, state));
        migrated.map_err(|failure| failure.reason)
    }

    /// `sha256:<hex>` of the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.running.digest()
    }

    /// The trips since the last call of this.
    pub fn take_trips(&mut self) -> Trips {
        self.running.take_trips()
    }

    /// One answer a group, in their order.
    ///
    /// Never fails: a trap, a deadline, a limit or an error costs the culprits alone (group by
    /// group, then sample by sample); they come back as rejections.
    pub fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        let mut out = Vec::with_capacity(groups.len());
        for call in calls(groups, group_bytes) {
            if group_bytes(&groups[call.start]) > CALL_BYTES_MAX {
                out.push(self.update_in_parts(&groups[call.start]));
                continue;
            }
            let mut failed = Vec::new();
            self.running.narrow(
                call,
                |fold, store, range| {
                    let parts: Vec<_> = groups[range].iter().map(Part::whole).collect();
                    update(fold, store, &parts)
                },
                |range, updated| match updated {
                    Ok(updated) => out.extend(updated),
                    Err(failure) => {
                        failed.push((range.start, failure));
                        out.push(Updated::default());
                    }
                },
            );
            for (index, failure) in failed {
                out[index] = self.update_one_by_one(&groups[index], failure);
            }
        }
        out
    }

    /// Two partial states of one key as one.
    ///
    /// # Errors
    /// Why this pair cannot be merged.
    pub fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        let merged = self.running.one(|fold, store| merge(fold, store, a, b));
        merged.map_err(|failure| self.running.blame(failure))
    }

    /// One answer a window, in their order: its result as one line of JSON, or why it has none.
    pub fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        let mut out = Vec::with_capacity(windows.len());
        let mut failures = Vec::new();
        for call in calls(windows, |closed| closed.key.len() + closed.state.len()) {
            self.running.narrow(
                call,
                |fold, store, range| finish(fold, store, &windows[range]),
                |_, finished| match finished {
                    Ok(results) => out.extend(results.into_iter().map(one_line_of_json)),
                    Err(failure) => {
                        out.push(Err(failure.reason.clone()));
                        failures.push(failure);
                    }
                },
            );
        }
        for failure in failures {
            self.running.blame(failure);
        }
        out
    }

    /// A group that is too much for one call.
    fn update_in_parts(&mut self, group: &Group) -> Updated {
        let mut updated = Updated { state: group.state.clone(), rejected: Vec::new() };
        for call in calls(&group.samples, sample_bytes) {
            self.update_part(group, call, &mut updated);
        }
        updated
    }

    /// A group that failed as a whole, for this reason.
    fn update_one_by_one(&mut self, group: &Group, failure: Failure) -> Updated {
        let mut updated = Updated { state: group.state.clone(), rejected: Vec::new() };
        match group.samples.len() {
            1 => updated.rejected.push(Rejection { index: 0, reason: self.running.blame(failure) }),
            samples => (0..samples).for_each(|at| self.update_part(group, at..at + 1, &mut updated)),
        }
        updated
    }

    /// Some of a group's samples, on top of what is `updated` already.
    fn update_part(&mut self, group: &Group, samples: Range<usize>, updated: &mut Updated) {
        let part = Part { group, state: &updated.state, samples: &group.samples[samples.clone()] };
        match self.running.one(|fold, store| update(fold, store, &[part])) {
            Ok(parts) => {
                for part in parts {
                    updated.state = part.state;
                    updated.rejected.extend(
                        part.rejected
                            .into_iter()
                            .map(|one| Rejection { index: samples.start + one.index, ..one }),
                    );
                }
            }
            Err(failure) if samples.len() == 1 => {
                let reason = self.running.blame(failure);
                updated.rejected.push(Rejection { index: samples.start, reason });
            }
            Err(_) => samples.for_each(|at| self.update_part(group, at..at + 1, updated)),
        }
    }
}

/// For who looks at a module rather than uses it.
#[cfg(feature = "author")]
impl Aggregate {
    /// One call of `update` as it is: neither cut into smaller ones, nor narrowed down, nor repeated.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn update_once(&mut self, groups: &[Group]) -> Result<Vec<Updated>, String> {
        let parts: Vec<_> = groups.iter().map(Part::whole).collect();
        self.running.once(|fold, store| update(fold, store, &parts))
    }

    /// One call of `merge` as it is.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn merge_once(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        self.running.once(|fold, store| merge(fold, store, a, b))
    }

    /// One call of `finish` as it is; the results are the module's bytes, unchecked.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn finish_once(&mut self, windows: &[Closed]) -> Result<Vec<Vec<u8>>, String> {
        self.running.once(|fold, store| finish(fold, store, windows))
    }

    /// A fresh instance, from now on with these settings.
    ///
    /// # Errors
    /// What the module does not like in them, or died of.
    pub fn renew(&mut self, settings: &str) -> Result<(), String> {
        self.running.renew(settings)
    }

    /// Linear memory that the instance has by now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.running.memory_bytes()
    }

    /// How many instances have ended in a trap or at a limit.
    #[must_use]
    pub fn traps(&self) -> u64 {
        self.running.traps()
    }
}

impl headwater_flow::aggregation::Aggregate for Aggregate {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        Self::update(self, groups)
    }

    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        Self::merge(self, a, b)
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        Self::finish(self, windows)
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregate").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

/// What a versioned aggregate exports beside.
const STATE_VERSION: &str = "state-version";
const MIGRATE: &str = "migrate";

/// The world `aggregate`.
pub(super) struct Fold {
    update: Func,
    merge: Func,
    finish: Func,
    /// Where it has the two.
    versioned: Option<(Func, Func)>,
}

impl World for Fold {
    const NAME: &'static str = "aggregate";

    fn check(exports: &Exports<'_>) -> Answer<()> {
        exports.check::<wit::Update<'_>, wit::Updated>("update")?;
        exports.check::<wit::Merge<'_>, wit::Merged>("merge")?;
        exports.check::<wit::Finish<'_>, wit::Finished>("finish")?;
        if exports.has(STATE_VERSION) || exports.has(MIGRATE) {
            exports.check::<(), wit::StateVersion>(STATE_VERSION)?;
            exports.check::<wit::Migrate<'_>, wit::Migrated>(MIGRATE)?;
        }
        Ok(())
    }

    fn find(instance: &Instance, store: &mut Store<Guest>) -> Option<Self> {
        Some(Self {
            update: instance.get_func(&mut *store, "update")?,
            merge: instance.get_func(&mut *store, "merge")?,
            finish: instance.get_func(&mut *store, "finish")?,
            versioned: match instance.get_func(&mut *store, STATE_VERSION) {
                Some(version) => Some((version, instance.get_func(&mut *store, MIGRATE)?)),
                None => None,
            },
        })
    }
}

fn group_bytes(group: &Group) -> usize {
    let samples = group.samples.iter().map(sample_bytes).sum::<usize>();
    group.key.len() + group.state.len() + samples
}

/// With what a sample takes beside its payload: a group of very many empty ones is large, too.
fn sample_bytes((_, payload): &(Timestamp, Vec<u8>)) -> usize {
    payload.len() + 64
}

/// Some of a group's samples, and the state they come on top of.
#[derive(Clone, Copy)]
struct Part<'a> {
    group: &'a Group,
    state: &'a [u8],
    samples: &'a [(Timestamp, Vec<u8>)],
}

impl<'a> Part<'a> {
    fn whole(group: &'a Group) -> Self {
        Self { group, state: &group.state, samples: &group.samples }
    }
}

fn update(
    fold: &Fold,
    store: &mut Store<Guest>,
    parts: &[Part<'_>],
) -> wasmtime::Result<Answer<Vec<Updated>>> {
    let samples: Vec<SampleIn<'_>> = parts
        .iter()
        .flat_map(|part| part.samples)
        .map(|(time, payload)| SampleIn { time: time.0, payload })
        .collect();
    let mut rest = samples.as_slice();
    let groups: Vec<GroupIn<'_>> = parts
        .iter()
        .map(|part| {
            let (samples, more) = rest.split_at(part.samples.len());
            rest = more;
            GroupIn {
                key: &part.group.key,
                window: window(part.group.start, part.group.end),
                state: part.state,
                samples,
            }
        })
        .collect();
    let call = fold.update.typed::<wit::Update<'_>, wit::Updated>(&*store)?;
    let (updated,) = call.call(store, (&groups,))?;
    Ok(updated.and_then(|updated| {
        check_count(updated.len(), parts.len())?;
        updated.into_iter().zip(parts).map(|(updated, part)| accept(updated, part)).collect()
    }))
}

fn accept(updated: UpdatedOut, part: &Part<'_>) -> Answer<Updated> {
    let refused = updated.rejected;
    check_indexes(refused.iter().map(|one| one.index), part.samples.len())?;
    let rejected = refused
        .into_iter()
        .map(|one| Rejection { index: one.index as usize, reason: clip(one.reason) })
        .collect();
    Ok(Updated { state: updated.state, rejected })
}

fn state_version(fold: &Fold, store: &mut Store<Guest>) -> wasmtime::Result<Answer<u32>> {
    let Some((version, _)) = &fold.versioned else { return Ok(Ok(0)) };
    let call = version.typed::<(), wit::StateVersion>(&*store)?;
    Ok(Ok(call.call(store, ())?.0))
}

fn migrate(
    fold: &Fold,
    store: &mut Store<Guest>,
    from: u32,
    state: &[u8],
) -> wasmtime::Result<Answer<Vec<u8>>> {
    let Some((_, migrate)) = &fold.versioned else {
        return Ok(Err("the module exports no `migrate`".to_owned()));
    };
    let call = migrate.typed::<wit::Migrate<'_>, wit::Migrated>(&*store)?;
    Ok(call.call(store, (from, state))?.0)
}

fn merge(fold: &Fold, store: &mut Store<Guest>, a: &[u8], b: &[u8]) -> wasmtime::Result<Answer<Vec<u8>>> {
    let call = fold.merge.typed::<wit::Merge<'_>, wit::Merged>(&*store)?;
    Ok(call.call(store, (a, b))?.0)
}

fn finish(
    fold: &Fold,
    store: &mut Store<Guest>,
    windows: &[Closed],
) -> wasmtime::Result<Answer<Vec<Vec<u8>>>> {
    let closed: Vec<ClosedIn<'_>> = windows
        .iter()
        .map(|closed| ClosedIn {
            key: &closed.key,
            window: window(closed.start, closed.end),
            state: &closed.state,
            count: closed.count,
            late: closed.late,
            revision: closed.revision,
        })
        .collect();
    let call = fold.finish.typed::<wit::Finish<'_>, wit::Finished>(&*store)?;
    let (results,) = call.call(store, (&closed,))?;
    Ok(results.and_then(|results| {
        check_count(results.len(), windows.len())?;
        Ok(results)
    }))
}

fn check_count(answers: usize, inputs: usize) -> Answer<()> {
    if answers == inputs {
        return Ok(());
    }
    Err(format!("the module gave {answers} answers for {inputs} inputs"))
}

fn window(start: Timestamp, end: Timestamp) -> WindowIn {
    WindowIn { start: start.0, end: end.0 }
}

/// Parsed in full: what nests too deep or has a number out of range must not go upstream. A raw
/// line feed in JSON can only stand between tokens, where a space is as good.
fn one_line_of_json(mut result: Vec<u8>) -> Result<Vec<u8>, String> {
    serde_json::from_slice::<serde_json::Value>(&result)
        .map_err(|error| format!("the module's result is not JSON: {error}"))?;
    for byte in &mut result {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Ok(result)
}
