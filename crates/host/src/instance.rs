//! One module with its settings: its instance, its calls, and what follows from a failed one.

use super::clock::{Clock, ticks};
use super::contract::{Answer, Init, Started};
use super::guest::{Guest, Log, clip};
use super::metrics::CallMetrics;
use super::state::State;
use super::{Capability, Error, Limits, Trips};
use std::mem;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{ComponentNamedList, Instance, InstancePre, Lift, Lower};
use wasmtime::error::Context as _;
use wasmtime::{Engine, FrameInfo, Store, Trap, WasmBacktrace};

/// Inputs of one call: enough that a call's own cost is small, few enough to go through one by one.
pub(super) const CALL_INPUTS_MAX: usize = 256;

/// Bytes of input of one call, unless a single input is larger.
pub(super) const CALL_BYTES_MAX: usize = 1 << 20;

/// Callers named in a reason, and characters of each one's name.
const FRAMES_MAX: usize = 8;
const FRAME_CHARS_MAX: usize = 80;

/// One of the contract's worlds: the exports of an instance.
pub(super) trait World: Sized {
    /// As the contract calls it.
    const NAME: &'static str;

    /// Checks that the exports beside `init` are there and have the contract's types.
    fn check(exports: &Exports<'_>) -> Answer<()>;

    /// Finds what was checked.
    fn find(instance: &Instance, store: &mut Store<Guest>) -> Option<Self>;
}

/// What a component exports.
pub(super) struct Exports<'a> {
    pub(super) engine: &'a Engine,
    pub(super) component: types::Component,
}

impl Exports<'_> {
    /// Whether there is something of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.component.get_export(self.engine, name).is_some()
    }

    /// Checks that there is such a function.
    pub(super) fn check<P, R>(&self, name: &str) -> Answer<()>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        match self.component.get_export(self.engine, name).map(|export| export.ty) {
            Some(ComponentItem::ComponentFunc(function)) => function
                .typecheck::<P, R>(&self.component.instance_type())
                .map_err(|error| format!("`{name}` with another type: {error:#}")),
            _ => {
                let exports = self.component.exports(self.engine).map(|(name, _)| name);
                Err(format!("no `{name}` among the exports {:?}", exports.collect::<Vec<_>>()))
            }
        }
    }
}

/// What every instance of a module starts from.
pub(super) struct Module {
    pub(super) linked: InstancePre<Guest>,
    #[expect(dead_code, reason = "held, so that it ticks as long as the module is called")]
    pub(super) clock: Arc<Clock>,
    pub(super) digest: String,
    pub(super) settings: String,
    pub(super) limits: Limits,
    pub(super) metrics: CallMetrics,
}

/// A module at work. At most one instance of it is alive, and serves until a call fails.
pub(super) struct Running<W> {
    module: Module,
    live: Option<Live<W>>,
    /// Those of the instance, while none is alive.
    log: Log,
    state: State,
    trips: Trips,
}

struct Live<W> {
    world: W,
    store: Store<Guest>,
    /// Whether a call went before: what it left behind may be why the next one fails.
    used: bool,
}

/// Why an input has no result.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// The call ended at a limit or in a trap: the module neither answered nor refused.
    pub(super) tripped: bool,
}

/// Why a call has no result.
#[derive(Clone, Debug)]
enum Fault {
    /// There is no instance to call.
    Start(String),
    /// The module does not accept its settings.
    Settings(String),
    /// The call ended in a trap or at a limit, and the instance with it.
    Trap { reason: String, fresh: bool },
    /// The module answered with an error, or broke the contract.
    Refused(String),
}

impl<W: World> Running<W> {
    /// With a first instance, so that a module that cannot start is found now.
    pub(super) fn start(module: Module, name: Arc<str>, file: &Path) -> Result<Self, Error> {
        let log = Log::new(name, &module.limits, module.metrics.module_log_dropped_lines.clone());
        let state = State::new(module.limits.state_names_max);
        let mut running = Self { module, live: None, log, state, trips: Trips::default() };
        let file = file.to_owned();
        match running.instantiate() {
            Ok(live) => running.live = Some(live),
            Err(Fault::Settings(reason)) => return Err(Error::Settings { file, reason }),
            Err(Fault::Start(reason) | Fault::Refused(reason) | Fault::Trap { reason, .. }) => {
                return Err(Error::Start { file, reason });
            }
        }
        Ok(running)
    }

    pub(super) fn digest(&self) -> &str {
        &self.module.digest
    }

    pub(super) fn is_granted(&self, capability: Capability) -> bool {
        self.module.limits.granted.contains(&capability)
    }

    /// What it remembers.
    pub(super) fn state(&self) -> &State {
        self.live.as_ref().map_or(&self.state, |live| &live.store.data().state)
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        self.live.as_mut().map_or(&mut self.state, |live| &mut live.store.data_mut().state)
    }

    /// Calls with all of `inputs`, and when that fails with one after the other. `done` gets what
    /// came of each part of them: a result, or for a single input the reason why there is none.
    pub(super) fn narrow<R>(
        &mut self,
        inputs: Range<usize>,
        mut call: impl FnMut(&W, &mut Store<Guest>, Range<usize>) -> wasmtime::Result<Answer<R>>,
        mut done: impl FnMut(Range<usize>, Result<R, Failure>),
    ) {
        let one_by_one = match self.attempt(|world, store| call(world, store, inputs.clone())) {
            Ok(result) => return done(inputs, Ok(result)),
            // Nor would there be one for the next.
            Err(fault @ (Fault::Start(_) | Fault::Settings(_))) => Some(fault),
            Err(fault) if inputs.len() == 1 => Some(fault),
            Err(_) => None,
        };
        for input in inputs {
            let one = input..input + 1;
            let result = match &one_by_one {
                Some(fault) => Err(fault.clone()),
                None => self.attempt(|world, store| call(world, store, one.clone())),
            };
            done(one, result.map_err(Failure::from));
        }
    }

    /// A call with one input.
    pub(super) fn one<R>(
        &mut self,
        call: impl FnMut(&W, &mut Store<Guest>) -> wasmtime::Result<Answer<R>>,
    ) -> Result<R, Failure> {
        self.attempt(call).map_err(Failure::from)
    }

    /// An input was found to be what the module trips on; its reason.
    pub(super) fn blame(&mut self, failure: Failure) -> String {
        if failure.tripped {
            self.trips.count += 1;
            self.trips.reason.clone_from(&failure.reason);
        }
        failure.reason
    }

    /// The trips since the last call.
    pub(super) fn take_trips(&mut self) -> Trips {
        mem::take(&mut self.trips)
    }

    /// A call, and once more on a fresh instance if what failed was not one.
    fn attempt<R>(
        &mut self,
        mut call: impl FnMut(&W, &mut Store<Guest>) -> wasmtime::Result<Answer<R>>,
    ) -> Result<R, Fault> {
        match self.call(&mut call) {
            Err(Fault::Trap { fresh: false, .. }) => self.call(&mut call),
            result => result,
        }
    }

    fn call<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<Guest>) -> wasmtime::Result<Answer<R>>,
    ) -> Result<R, Fault> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.instantiate()?,
        };
        let fresh = !mem::replace(&mut live.used, true);
        live.store.set_epoch_deadline(ticks(self.module.limits.deadline));
        live.store.data_mut().forget();

        let started = Instant::now();
        let answer = call(&live.world, &mut live.store);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.module.metrics.module_micros.inc_by(micros);
        match answer {
            Ok(answer) => {
                let state = &mut live.store.data_mut().state;
                if answer.is_ok() {
                    state.keep()
                } else {
                    state.undo()
                }
                self.live = Some(live);
                answer.map_err(|reason| Fault::Refused(clip(reason)))
            }
            Err(error) => Err(Fault::Trap { reason: self.bury(live.store, &error), fresh }),
        }
    }

    fn instantiate(&mut self) -> Result<Live<W>, Fault> {
        let Module { linked, settings, limits, .. } = &self.module;
        let mut store = Store::new(
            linked.engine(),
            Guest::new(limits, mem::take(&mut self.log), mem::take(&mut self.state)),
        );
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.set_epoch_deadline(ticks(limits.deadline));
        let started = init(linked, &mut store, settings);
        // It is no event's.
        store.data_mut().state.undo();
        match started {
            Ok(Ok(world)) => Ok(Live { world, store, used: false }),
            Ok(Err(reason)) => {
                let guest = store.into_data();
                (self.log, self.state) = (guest.log, guest.state);
                Err(Fault::Settings(clip(reason)))
            }
            Err(error) => Err(Fault::Start(self.bury(store, &error))),
        }
    }

    /// Drops what is left of an instance, and says what it died of.
    fn bury(&mut self, store: Store<Guest>, error: &wasmtime::Error) -> String {
        self.module.metrics.module_traps.inc();
        let guest = store.into_data();
        (self.log, self.state) = (guest.log, guest.state);
        self.state.undo();
        let limits = &self.module.limits;
        let cause = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => format!("deadline of {:?} passed", limits.deadline),
            _ if guest.memory_refused => {
                format!("memory limit of {} bytes reached", limits.memory_bytes_max)
            }
            Some(trap) => trap.to_string(),
            None if error.root_cause().to_string().contains("fuel allocated for hostcalls") => {
                format!("output limit of {} bytes reached", limits.output_bytes_max)
            }
            // What was added to it is the backtrace, as text.
            None => clip(error.root_cause().to_string()),
        };
        let cause = match self.log.error.take() {
            Some(last_words) => format!("{cause}: {last_words}"),
            None => cause,
        };
        match error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames) {
            None | Some([]) => cause,
            Some(frames) => format!("{cause} ({})", backtrace(frames)),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let tripped = !matches!(fault, Fault::Refused(_));
        Self { reason: fault.reason(), tripped }
    }
}

/// For who looks at a module rather than uses it.
#[cfg(feature = "author")]
impl<W: World> Running<W> {
    /// A call as it is: neither narrowed down nor repeated.
    pub(super) fn once<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<Guest>) -> wasmtime::Result<Answer<R>>,
    ) -> Answer<R> {
        self.call(call).map_err(Fault::reason)
    }

    /// A fresh instance, from now on with these settings.
    pub(super) fn renew(&mut self, settings: &str) -> Answer<()> {
        if let Some(live) = self.live.take() {
            self.log = live.store.into_data().log;
        }
        settings.clone_into(&mut self.module.settings);
        self.live = Some(self.instantiate().map_err(Fault::reason)?);
        Ok(())
    }

    /// Linear memory that the instance has by now.
    pub(super) fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.store.data().memory_bytes())
    }

    /// How many instances have ended in a trap or at a limit.
    pub(super) fn traps(&self) -> u64 {
        self.module.metrics.module_traps.get()
    }
}

impl Fault {
    fn reason(self) -> String {
        match self {
            Self::Start(reason) => format!("failed to start the module: {reason}"),
            Self::Settings(reason) => format!("the module refused its settings: {reason}"),
            Self::Trap { reason, .. } | Self::Refused(reason) => reason,
        }
    }
}

fn init<W: World>(
    linked: &InstancePre<Guest>,
    store: &mut Store<Guest>,
    settings: &str,
) -> wasmtime::Result<Answer<W>> {
    let instance = linked.instantiate(&mut *store)?;
    let init = instance.get_typed_func::<Init<'_>, Started>(&mut *store, "init")?;
    let (started,) = init.call(&mut *store, (settings,))?;
    let world = W::find(&instance, store).context("an export that was there at load is gone")?;
    Ok(started.map(|()| world))
}

/// Where it was, innermost first; functions without a name by their number.
fn backtrace(frames: &[FrameInfo]) -> String {
    let mut text = String::new();
    for (index, frame) in frames.iter().take(FRAMES_MAX).enumerate() {
        text.push_str(if index == 0 { "in " } else { ", by " });
        match frame.func_name() {
            Some(name) => text.extend(name.chars().filter(|it| !it.is_control()).take(FRAME_CHARS_MAX)),
            None => text.push_str(&format!("function {}", frame.func_index())),
        }
    }
    text
}

/// Ranges of inputs of which each fits one call.
pub(super) fn calls<T>(inputs: &[T], bytes: impl Fn(&T) -> usize) -> Vec<Range<usize>> {
    let mut calls = Vec::with_capacity(inputs.len() / CALL_INPUTS_MAX + 1);
    let (mut start, mut sum) = (0, 0_usize);
    for (index, input) in inputs.iter().enumerate() {
        let bytes = bytes(input);
        if index > start && (index - start == CALL_INPUTS_MAX || sum + bytes > CALL_BYTES_MAX) {
            calls.push(start..index);
            (start, sum) = (index, 0);
        }
        sum += bytes;
    }
    if start < inputs.len() {
        calls.push(start..inputs.len());
    }
    calls
}

/// Checks that the module names each input at most once, and no others.
pub(super) fn check_indexes(indexes: impl Iterator<Item = u32>, inputs: usize) -> Answer<()> {
    let mut seen = vec![false; inputs];
    for index in indexes {
        match seen.get_mut(index as usize) {
            None => return Err(format!("the module rejected input {index} of {inputs}")),
            Some(true) => return Err(format!("the module rejected input {index} twice")),
            Some(seen) => *seen = true,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sizes: &[usize], expected: &[Range<usize>]) {
        assert_eq!(calls(sizes, |size| *size), expected);
    }

    #[test]
    fn calls_hold_many_small_inputs_or_one_large() {
        check(&[], &[]);
        check(&[1; 257], &[0..256, 256..257]);
        check(&[1; 600], &[0..256, 256..512, 512..600]);
        check(&[CALL_BYTES_MAX, 1, 1], &[0..1, 1..3]);
        check(&[1, CALL_BYTES_MAX * 2, 1], &[0..1, 1..2, 2..3]);
        check(&[CALL_BYTES_MAX / 2; 3], &[0..2, 2..3]);
    }

    #[test]
    fn a_module_that_does_not_start_again_rejects_all_at_once() {
        let (host, limits) = (crate::Host::new(None).unwrap(), Limits::default());
        let path = Path::new(headwater_bundle::HOSTILE_PATH);
        let mut hostile = host.transform(path, "{}", &limits, &CallMetrics::default()).unwrap();
        hostile.running.live = None;
        hostile.running.module.settings = r#"{"do":"init-panic"}"#.to_owned();
        let (topic, key, payload) = (String::new(), String::new(), Vec::new());
        let event = headwater_flow::Event { topic, key, time: headwater_flow::Timestamp(0), payload };
        let (events, rejected) = hostile.process(&vec![event; 300]);
        assert_eq!((events.len(), rejected.len()), (0, 300));
        assert!(rejected[299].reason.contains("failed to start the module"));
        assert_eq!(hostile.running.module.metrics.module_traps.get(), 2, "one for each call");
    }
}
