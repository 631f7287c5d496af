//! A transform at work.

use super::contract::{Answer, EventIn, Process, Processed, ProcessedOut};
use super::guest::GuestData;
use super::module::LoadedModule;
use super::world::{ComponentExports, ModuleWorld, accept_rejections, shifted};
use super::{ModuleCapability, Rejection, state};
use headwater_flow::{Event, Timestamp};
use wasmtime::Store;
use wasmtime::component::{Func, Instance};

/// A transform module, ready.
pub type TransformModule = LoadedModule<TransformWorld>;

/// The exports of the world `transform`.
pub struct TransformWorld {
    process: Func,
}

/// The answer to events on which a transform trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TripAnswer {
    /// They are rejected.
    #[default]
    Reject,
    /// They pass as they came, in their places.
    Bypass,
}

impl TransformModule {
    /// Lets events on which it trips pass as they came, in their places, instead of being rejected.
    pub fn bypass(&mut self, bypass: bool) {
        self.own = if bypass { TripAnswer::Bypass } else { TripAnswer::Reject };
    }

    /// Returns true if it may remember anything.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.calls.is_granted(ModuleCapability::State)
    }

    /// Goes on from the values of the last commit, which are under so many names.
    pub fn restore(&mut self, committed: Box<dyn state::StateStore>, names: u64) {
        self.calls.state_mut().restore(committed, names);
    }

    /// Returns the number of names that it remembers.
    #[must_use]
    pub fn names(&self) -> u64 {
        self.calls.state().names()
    }

    /// Returns the bytes of the changes since the last [`TransformModule::drain`].
    #[must_use]
    pub fn changed_bytes(&self) -> usize {
        self.calls.state().changed_bytes()
    }

    /// Takes the changes of its state, to be committed together with the results of the same events.
    pub fn drain(&mut self) -> Vec<state::Change> {
        self.calls.state_mut().drain()
    }

    /// Takes the reason why its state could not be read, if so; then its rejections are not its own.
    pub fn broken(&mut self) -> Option<String> {
        self.calls.state_mut().broken()
    }

    /// Returns the events that the events become, in their order, and the rejections.
    ///
    /// Never fails: a trap, a deadline, a limit or an error costs the culprits alone; they come
    /// back as rejections. The payloads that come back are the module's bytes, unchecked.
    pub fn process(&mut self, events: &[Event]) -> (Vec<Event>, Vec<Rejection>) {
        let mut out = Vec::with_capacity(events.len());
        let mut rejected = Vec::new();
        let on_trip = self.own;
        self.calls.in_batches(
            events,
            |event| event.topic.len() + event.key.len() + event.payload.len(),
            process,
            |range, processed| match processed {
                Ok((events, refused)) => {
                    out.extend(events);
                    rejected.extend(shifted(refused, range.start));
                }
                Err(failure) if failure.tripped && on_trip == TripAnswer::Bypass => {
                    out.push(events[range.start].clone());
                }
                Err(failure) => {
                    rejected.push(Rejection { index: range.start, reason: failure.reason.clone() });
                }
            },
        );
        (out, rejected)
    }

    /// Makes one call of `process` as it is: neither cut into smaller ones, nor narrowed down, nor repeated.
    ///
    /// # Errors
    /// The reason why there is no answer.
    #[cfg(feature = "author")]
    pub fn once(&mut self, events: &[Event]) -> Result<(Vec<Event>, Vec<Rejection>), String> {
        self.calls.once(|world, store| process(world, store, events))
    }
}

impl ModuleWorld for TransformWorld {
    type Own = TripAnswer;

    const NAME: &'static str = "transform";

    fn check(exports: &ComponentExports<'_>) -> Answer<()> {
        exports.check::<Process<'_>, Processed>("process")
    }

    fn find(instance: &Instance, store: &mut Store<GuestData>) -> Option<Self> {
        Some(Self { process: instance.get_func(store, "process")? })
    }
}

fn process(
    world: &TransformWorld,
    store: &mut Store<GuestData>,
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
    let process = world.process.typed::<Process<'_>, Processed>(&*store)?;
    let (processed,) = process.call(store, (&given,))?;
    Ok(processed.and_then(|processed| accept(processed, events.len())))
}

fn accept(processed: ProcessedOut, inputs: usize) -> Answer<(Vec<Event>, Vec<Rejection>)> {
    let rejected = accept_rejections(processed.rejected, inputs)?;
    let events = processed.events.into_iter().map(|event| Event {
        topic: event.topic,
        key: event.key,
        time: Timestamp(event.time),
        payload: event.payload,
    });
    Ok((events.collect(), rejected))
}
