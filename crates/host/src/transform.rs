//! A transform at work.

use super::contract::{Answer, EventIn, Process, Processed, ProcessedOut};
use super::guest::{Guest, clip};
use super::instance::{Exports, Running, World, calls, check_indexes};
use super::{Capability, Rejection, Trips, state};
use headwater_flow::{Event, Timestamp};
use std::fmt;
use wasmtime::Store;
use wasmtime::component::{Func, Instance};

/// A transform module, ready. One thread's.
pub struct Transform {
    pub(super) running: Running<Step>,
    bypass: bool,
}

impl Transform {
    pub(super) fn new(running: Running<Step>) -> Self {
        Self { running, bypass: false }
    }

    /// `sha256:<hex>` of the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.running.digest()
    }

    /// Whether events on which it trips pass as they came, in their places, instead of being rejected.
    pub fn bypass(&mut self, bypass: bool) {
        self.bypass = bypass;
    }

    /// The trips since the last call of this.
    pub fn take_trips(&mut self) -> Trips {
        self.running.take_trips()
    }

    /// Whether it may remember anything.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.running.is_granted(Capability::State)
    }

    /// Goes on from what it remembered at the last commit: so many names.
    pub fn restore(&mut self, cold: Box<dyn state::Cold>, names: u64) {
        self.running.state_mut().restore(cold, names);
    }

    /// How many names it remembers.
    #[must_use]
    pub fn names(&self) -> u64 {
        self.running.state().names()
    }

    /// Bytes that it has to remember since the last [`Transform::drain`].
    #[must_use]
    pub fn changed_bytes(&self) -> usize {
        self.running.state().changed_bytes()
    }

    /// What it is to remember, to be committed together with what came of the same events.
    pub fn drain(&mut self) -> Vec<state::Change> {
        self.running.state_mut().drain()
    }

    /// Why what it remembered could not be read; then its rejections are not its own.
    pub fn broken(&mut self) -> Option<String> {
        self.running.state_mut().broken()
    }

    /// What becomes of the events, in their order, and which of them were refused.
    ///
    /// Never fails: a trap, a deadline, a limit or an error costs the culprits alone; they come
    /// back as rejections. The payloads that come back are the module's bytes, unchecked.
    pub fn process(&mut self, events: &[Event]) -> (Vec<Event>, Vec<Rejection>) {
        let mut out = Vec::with_capacity(events.len());
        let (mut rejected, mut failures) = (Vec::new(), Vec::new());
        let bypass = self.bypass;
        for call in calls(events, |event| event.topic.len() + event.key.len() + event.payload.len()) {
            self.running.narrow(
                call,
                |step, store, range| process(step, store, &events[range]),
                |range, processed| match processed {
                    Ok((events, refused)) => {
                        out.extend(events);
                        rejected.extend(
                            refused
                                .into_iter()
                                .map(|one| Rejection { index: range.start + one.index, ..one }),
                        );
                    }
                    Err(failure) => {
                        if bypass && failure.tripped {
                            out.push(events[range.start].clone());
                        } else {
                            let reason = failure.reason.clone();
                            rejected.push(Rejection { index: range.start, reason });
                        }
                        failures.push(failure);
                    }
                },
            );
        }
        for failure in failures {
            self.running.blame(failure);
        }
        (out, rejected)
    }
}

/// For who looks at a module rather than uses it.
#[cfg(feature = "author")]
impl Transform {
    /// One call of `process` as it is: neither cut into smaller ones, nor narrowed down, nor repeated.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn once(&mut self, events: &[Event]) -> Result<(Vec<Event>, Vec<Rejection>), String> {
        self.running.once(|step, store| process(step, store, events))
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

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transform").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

/// The world `transform`.
pub(super) struct Step {
    process: Func,
}

impl World for Step {
    const NAME: &'static str = "transform";

    fn check(exports: &Exports<'_>) -> Answer<()> {
        exports.check::<Process<'_>, Processed>("process")
    }

    fn find(instance: &Instance, store: &mut Store<Guest>) -> Option<Self> {
        Some(Self { process: instance.get_func(store, "process")? })
    }
}

fn process(
    step: &Step,
    store: &mut Store<Guest>,
    events: &[Event],
) -> wasmtime::Result<Answer<(Vec<Event>, Vec<Rejection>)>> {
    let given: Vec<EventIn<'_>> = events
        .iter()
        .map(|event| EventIn {
            topic: &event.topic,
            key: &event.key,
            time: event.time.0,
            payload: &event.payload,
        })
        .collect();
    let process = step.process.typed::<Process<'_>, Processed>(&*store)?;
    let (processed,) = process.call(store, (&given,))?;
    Ok(processed.and_then(|processed| accept(processed, events.len())))
}

fn accept(processed: ProcessedOut, inputs: usize) -> Answer<(Vec<Event>, Vec<Rejection>)> {
    check_indexes(processed.rejected.iter().map(|one| one.index), inputs)?;
    let rejected = processed
        .rejected
        .into_iter()
        .map(|one| Rejection { index: one.index as usize, reason: clip(one.reason) });
    let events = processed.events.into_iter().map(|event| Event {
        topic: event.topic,
        key: event.key,
        time: Timestamp(event.time),
        payload: event.payload,
    });
    Ok((events.collect(), rejected.collect()))
}
