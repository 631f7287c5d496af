//! An aggregate at work.

use super::batches::{CALL_BYTES_MAX, batches};
use super::contract as wit;
use super::contract::{Answer, ClosedIn, GroupIn, SampleIn, UpdatedOut, WindowIn};
use super::guest::GuestData;
use super::instance::CallFailure;
use super::module::LoadedModule;
use super::world::{ComponentExports, ModuleWorld, accept_rejections, check_count, shifted};
use headwater_flow::Timestamp;
use headwater_flow::aggregation::{Closed, Group, Rejection, Updated};
use std::ops::Range;
use wasmtime::Store;
use wasmtime::component::{Func, Instance};

/// An aggregate module, ready.
pub type AggregateModule = LoadedModule<AggregateWorld>;

/// The exports of the world `aggregate`.
pub struct AggregateWorld {
    update: Func,
    merge: Func,
    finish: Func,
    /// `state-version` and `migrate`, where it has the two.
    versioned: Option<(Func, Func)>,
}

/// The version of the states that an aggregate makes and takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateVersion(u32);

/// The names of the exports that only a versioned aggregate has.
const STATE_VERSION: &str = "state-version";
const MIGRATE: &str = "migrate";

impl AggregateModule {
    /// Asks it for the version of its states.
    pub(super) fn versioned(mut self) -> Result<Self, String> {
        self.own = StateVersion(self.calls.one(state_version).map_err(|failure| failure.reason)?);
        Ok(self)
    }

    /// Returns the version of the states that it makes and takes; 0 where it does not say.
    #[must_use]
    pub fn state_version(&self) -> u32 {
        self.own.0
    }

    /// Makes a state of this version of one of another version.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn migrate(&mut self, from: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        let migrated = self.calls.one(|world, store| migrate(world, store, from, state));
        migrated.map_err(|failure| failure.reason)
    }

    /// Takes the groups' samples in, and returns one answer a group, in their order.
    ///
    /// Never fails: a trap, a deadline, a limit or an error costs the culprits alone (group by
    /// group, then sample by sample); they come back as rejections.
    pub fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        let mut out = Vec::with_capacity(groups.len());
        for call in batches(groups, group_bytes) {
            if group_bytes(&groups[call.start]) > CALL_BYTES_MAX {
                out.push(self.update_in_parts(&groups[call.start]));
                continue;
            }
            let mut failed = Vec::new();
            self.calls.narrow(
                call,
                |world, store, range| {
                    let parts: Vec<_> = groups[range].iter().map(GroupPart::whole).collect();
                    update(world, store, &parts)
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

    /// Makes one state of two of the same key.
    ///
    /// # Errors
    /// The reason why this pair cannot be merged.
    pub fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        let merged = self.calls.one(|world, store| merge(world, store, a, b));
        merged.map_err(|failure| self.calls.blame(failure))
    }

    /// Returns one answer a window, in their order: its result as one line of JSON, or the reason why there is none.
    pub fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        let mut out = Vec::with_capacity(windows.len());
        self.calls.in_batches(
            windows,
            |closed| closed.key.len() + closed.state.len(),
            finish,
            |_, finished| match finished {
                Ok(results) => out.extend(results.into_iter().map(one_line_of_json)),
                Err(failure) => out.push(Err(failure.reason.clone())),
            },
        );
        out
    }

    /// Takes in a group that is too large for one call.
    fn update_in_parts(&mut self, group: &Group) -> Updated {
        let mut updated = Updated { state: group.state.clone(), rejected: Vec::new() };
        for call in batches(&group.samples, sample_bytes) {
            self.update_part(group, call, &mut updated);
        }
        updated
    }

    /// Takes in a group that failed as a whole, sample by sample.
    fn update_one_by_one(&mut self, group: &Group, failure: CallFailure) -> Updated {
        let mut updated = Updated { state: group.state.clone(), rejected: Vec::new() };
        match group.samples.len() {
            1 => updated.rejected.push(Rejection { index: 0, reason: self.calls.blame(failure) }),
            samples => (0..samples).for_each(|at| self.update_part(group, at..at + 1, &mut updated)),
        }
        updated
    }

    /// Takes in some of a group's samples, on top of the state in `updated`.
    fn update_part(&mut self, group: &Group, samples: Range<usize>, updated: &mut Updated) {
        let part = GroupPart { group, state: &updated.state, samples: &group.samples[samples.clone()] };
        match self.calls.one(|world, store| update(world, store, &[part])) {
            Ok(parts) => {
                for part in parts {
                    updated.state = part.state;
                    updated.rejected.extend(shifted(part.rejected, samples.start));
                }
            }
            Err(failure) if samples.len() == 1 => {
                let reason = self.calls.blame(failure);
                updated.rejected.push(Rejection { index: samples.start, reason });
            }
            Err(_) => samples.for_each(|at| self.update_part(group, at..at + 1, updated)),
        }
    }
}

/// Calls for those who look at a module rather than use it.
#[cfg(feature = "author")]
impl AggregateModule {
    /// Makes one call of `update` as it is: neither cut into smaller ones, nor narrowed down, nor repeated.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub fn update_once(&mut self, groups: &[Group]) -> Result<Vec<Updated>, String> {
        let parts: Vec<_> = groups.iter().map(GroupPart::whole).collect();
        self.calls.once(|world, store| update(world, store, &parts))
    }

    /// Makes one call of `merge` as it is.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub fn merge_once(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        self.calls.once(|world, store| merge(world, store, a, b))
    }

    /// Makes one call of `finish` as it is; the results are the module's bytes, unchecked.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub fn finish_once(&mut self, windows: &[Closed]) -> Result<Vec<Vec<u8>>, String> {
        self.calls.once(|world, store| finish(world, store, windows))
    }
}

impl headwater_flow::aggregation::Aggregate for AggregateModule {
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

impl ModuleWorld for AggregateWorld {
    type Own = StateVersion;

    const NAME: &'static str = "aggregate";

    fn check(exports: &ComponentExports<'_>) -> Answer<()> {
        exports.check::<wit::Update<'_>, wit::Updated>("update")?;
        exports.check::<wit::Merge<'_>, wit::Merged>("merge")?;
        exports.check::<wit::Finish<'_>, wit::Finished>("finish")?;
        if exports.has(STATE_VERSION) || exports.has(MIGRATE) {
            exports.check::<(), wit::StateVersion>(STATE_VERSION)?;
            exports.check::<wit::Migrate<'_>, wit::Migrated>(MIGRATE)?;
        }
        Ok(())
    }

    fn find(instance: &Instance, store: &mut Store<GuestData>) -> Option<Self> {
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

/// Returns the bytes of a sample with those beside its payload: a group of very many empty ones is large, too.
fn sample_bytes((_, payload): &(Timestamp, Vec<u8>)) -> usize {
    payload.len() + 64
}

/// Some of a group's samples, and the state that they are to be taken into.
#[derive(Clone, Copy)]
struct GroupPart<'a> {
    group: &'a Group,
    state: &'a [u8],
    samples: &'a [(Timestamp, Vec<u8>)],
}

impl<'a> GroupPart<'a> {
    fn whole(group: &'a Group) -> Self {
        Self { group, state: &group.state, samples: &group.samples }
    }
}

fn update(
    world: &AggregateWorld,
    store: &mut Store<GuestData>,
    parts: &[GroupPart<'_>],
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
    let call = world.update.typed::<wit::Update<'_>, wit::Updated>(&*store)?;
    let (updated,) = call.call(store, (&groups,))?;
    Ok(updated.and_then(|updated| {
        check_count(updated.len(), parts.len())?;
        updated.into_iter().zip(parts).map(|(updated, part)| accept(updated, part)).collect()
    }))
}

fn accept(updated: UpdatedOut, part: &GroupPart<'_>) -> Answer<Updated> {
    let rejected = accept_rejections(updated.rejected, part.samples.len())?;
    Ok(Updated { state: updated.state, rejected })
}

fn state_version(world: &AggregateWorld, store: &mut Store<GuestData>) -> wasmtime::Result<Answer<u32>> {
    let Some((version, _)) = &world.versioned else { return Ok(Ok(0)) };
    let call = version.typed::<(), wit::StateVersion>(&*store)?;
    Ok(Ok(call.call(store, ())?.0))
}

fn migrate(
    world: &AggregateWorld,
    store: &mut Store<GuestData>,
    from: u32,
    state: &[u8],
) -> wasmtime::Result<Answer<Vec<u8>>> {
    let Some((_, migrate)) = &world.versioned else {
        return Ok(Err("the module exports no `migrate`".to_owned()));
    };
    let call = migrate.typed::<wit::Migrate<'_>, wit::Migrated>(&*store)?;
    Ok(call.call(store, (from, state))?.0)
}

fn merge(
    world: &AggregateWorld,
    store: &mut Store<GuestData>,
    a: &[u8],
    b: &[u8],
) -> wasmtime::Result<Answer<Vec<u8>>> {
    let call = world.merge.typed::<wit::Merge<'_>, wit::Merged>(&*store)?;
    Ok(call.call(store, (a, b))?.0)
}

fn finish(
    world: &AggregateWorld,
    store: &mut Store<GuestData>,
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
    let call = world.finish.typed::<wit::Finish<'_>, wit::Finished>(&*store)?;
    let (results,) = call.call(store, (&closed,))?;
    Ok(results.and_then(|results| {
        check_count(results.len(), windows.len())?;
        Ok(results)
    }))
}

fn window(start: Timestamp, end: Timestamp) -> WindowIn {
    WindowIn { start: start.0, end: end.0 }
}

/// Returns a result as one line of JSON. It is parsed in full: a value that nests too deep or has a number out of range
/// must not go upstream. A raw line feed in JSON can only stand between tokens, where a space is as good.
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
