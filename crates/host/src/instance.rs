//! One module with its settings: its instance, each call, and the consequences of a failed one.

use super::clock::{DeadlineClock, ticks};
use super::contract::{Answer, Init, Started};
use super::guest::{GuestData, ModuleLog, clip};
use super::metrics::CallMetrics;
use super::state::RememberedState;
use super::world::ModuleWorld;
use super::{ModuleCapability, ModuleError, ModuleLimits, TripCount};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::InstancePre;
use wasmtime::error::Context as _;
use wasmtime::{FrameInfo, Store, Trap, WasmBacktrace};

/// Callers named in a reason, and characters of each one's name.
const FRAMES_MAX: usize = 8;
const FRAME_CHARS_MAX: usize = 80;

/// A module that is linked, which every instance of it starts from.
pub(super) struct LinkedModule {
    pub(super) linked: InstancePre<GuestData>,
    #[expect(dead_code, reason = "held, so that it ticks as long as the module is called")]
    pub(super) clock: Arc<DeadlineClock>,
    pub(super) digest: String,
    pub(super) settings: String,
    pub(super) limits: ModuleLimits,
    pub(super) metrics: CallMetrics,
}

/// A module at work. At most one instance of it is alive, and serves until a call fails.
pub(super) struct ModuleCalls<W> {
    module: LinkedModule,
    live: Option<LiveInstance<W>>,
    /// The instance's log and state, while none is alive.
    log: ModuleLog,
    state: RememberedState,
    trips: TripCount,
}

/// The instance that serves.
struct LiveInstance<W> {
    world: W,
    store: Store<GuestData>,
    /// True if a call went before: what it left behind may be the cause if the next one fails.
    used: bool,
}

/// The failure of the call for one input.
#[derive(Clone, Debug)]
pub(super) struct CallFailure {
    pub(super) reason: String,
    /// True if the call ended at a limit or in a trap: the module neither answered nor refused.
    pub(super) tripped: bool,
}

/// The cause why a call has no result.
#[derive(Clone, Debug)]
pub(super) enum CallFault {
    /// There is no instance to call.
    Start(String),
    /// The module does not accept its settings.
    Settings(String),
    /// The call ended in a trap or at a limit, and the instance with it.
    Trap { reason: String, fresh: bool },
    /// The module answered with an error, or broke the contract.
    Refused(String),
}

impl<W: ModuleWorld> ModuleCalls<W> {
    /// Starts a first instance, so that a module that cannot start is found now.
    pub(super) fn start(module: LinkedModule, name: Arc<str>, file: &Path) -> Result<Self, ModuleError> {
        let log = ModuleLog::new(name, &module.limits, module.metrics.module_log_dropped_lines.clone());
        let state = RememberedState::new(module.limits.state_names_max);
        let mut calls = Self { module, live: None, log, state, trips: TripCount::default() };
        let file = file.to_owned();
        match calls.instantiate() {
            Ok(live) => calls.live = Some(live),
            Err(CallFault::Settings(reason)) => return Err(ModuleError::Settings { file, reason }),
            Err(CallFault::Start(reason) | CallFault::Refused(reason) | CallFault::Trap { reason, .. }) => {
                return Err(ModuleError::Start { file, reason });
            }
        }
        Ok(calls)
    }

    pub(super) fn digest(&self) -> &str {
        &self.module.digest
    }

    pub(super) fn is_granted(&self, capability: ModuleCapability) -> bool {
        self.module.limits.granted.contains(&capability)
    }

    /// Returns the values that it remembers.
    pub(super) fn state(&self) -> &RememberedState {
        self.live.as_ref().map_or(&self.state, |live| &live.store.data().state)
    }

    pub(super) fn state_mut(&mut self) -> &mut RememberedState {
        self.live.as_mut().map_or(&mut self.state, |live| &mut live.store.data_mut().state)
    }

    /// Counts a failure as a trip of the module, if it is one; returns its reason. A single input was found to cause it.
    pub(super) fn blame(&mut self, failure: CallFailure) -> String {
        if failure.tripped {
            self.trips.count += 1;
            self.trips.reason.clone_from(&failure.reason);
        }
        failure.reason
    }

    /// Returns the trips since this was last called.
    pub(super) fn take_trips(&mut self) -> TripCount {
        mem::take(&mut self.trips)
    }

    /// Makes a call, and makes it once more on a fresh instance if a used one trapped.
    pub(super) fn attempt<R>(
        &mut self,
        mut call: impl FnMut(&W, &mut Store<GuestData>) -> wasmtime::Result<Answer<R>>,
    ) -> Result<R, CallFault> {
        match self.call(&mut call) {
            Err(CallFault::Trap { fresh: false, .. }) => self.call(&mut call),
            result => result,
        }
    }

    fn call<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<GuestData>) -> wasmtime::Result<Answer<R>>,
    ) -> Result<R, CallFault> {
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
                answer.map_err(|reason| CallFault::Refused(clip(reason)))
            }
            Err(error) => Err(CallFault::Trap { reason: self.bury(live.store, &error), fresh }),
        }
    }

    fn instantiate(&mut self) -> Result<LiveInstance<W>, CallFault> {
        let LinkedModule { linked, settings, limits, .. } = &self.module;
        let mut store = Store::new(
            linked.engine(),
            GuestData::new(limits, mem::take(&mut self.log), mem::take(&mut self.state)),
        );
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.set_epoch_deadline(ticks(limits.deadline));
        let started = init(linked, &mut store, settings);
        // The changes of `init` belong to no event.
        store.data_mut().state.undo();
        match started {
            Ok(Ok(world)) => Ok(LiveInstance { world, store, used: false }),
            Ok(Err(reason)) => {
                let guest = store.into_data();
                (self.log, self.state) = (guest.log, guest.state);
                Err(CallFault::Settings(clip(reason)))
            }
            Err(error) => Err(CallFault::Start(self.bury(store, &error))),
        }
    }

    /// Drops what is left of an instance, and returns the cause of its end.
    fn bury(&mut self, store: Store<GuestData>, error: &wasmtime::Error) -> String {
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
            // The rest of the error is the backtrace, as text.
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

impl From<CallFault> for CallFailure {
    fn from(fault: CallFault) -> Self {
        let tripped = !matches!(fault, CallFault::Refused(_));
        Self { reason: fault.reason(), tripped }
    }
}

/// Calls for those who look at a module rather than use it.
#[cfg(feature = "author")]
impl<W: ModuleWorld> ModuleCalls<W> {
    /// Makes a call as it is: neither narrowed down nor repeated.
    pub(super) fn once<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<GuestData>) -> wasmtime::Result<Answer<R>>,
    ) -> Answer<R> {
        self.call(call).map_err(CallFault::reason)
    }

    /// Starts a fresh instance, from now on with these settings.
    pub(super) fn renew(&mut self, settings: &str) -> Answer<()> {
        if let Some(live) = self.live.take() {
            self.log = live.store.into_data().log;
        }
        settings.clone_into(&mut self.module.settings);
        self.live = Some(self.instantiate().map_err(CallFault::reason)?);
        Ok(())
    }

    /// Returns the linear memory that the instance has by now, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.store.data().memory_bytes())
    }

    /// Returns the number of instances that ended in a trap or at a limit.
    pub(super) fn traps(&self) -> u64 {
        self.module.metrics.module_traps.get()
    }
}

impl CallFault {
    fn reason(self) -> String {
        match self {
            Self::Start(reason) => format!("failed to start the module: {reason}"),
            Self::Settings(reason) => format!("the module refused its settings: {reason}"),
            Self::Trap { reason, .. } | Self::Refused(reason) => reason,
        }
    }
}

fn init<W: ModuleWorld>(
    linked: &InstancePre<GuestData>,
    store: &mut Store<GuestData>,
    settings: &str,
) -> wasmtime::Result<Answer<W>> {
    let instance = linked.instantiate(&mut *store)?;
    let init = instance.get_typed_func::<Init<'_>, Started>(&mut *store, "init")?;
    let (started,) = init.call(&mut *store, (settings,))?;
    let world = W::find(&instance, store).context("an export that was there at load is gone")?;
    Ok(started.map(|()| world))
}

/// Returns the functions that the call was in, innermost first; those without a name by their number.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_does_not_start_again_rejects_all_at_once() {
        let host = crate::ModuleHost::new(None).unwrap();
        let limits = ModuleLimits::default();
        let path = Path::new(headwater_bundle::HOSTILE_PATH);
        let mut hostile = host.transform(path, "{}", &limits, &CallMetrics::default()).unwrap();
        hostile.calls.live = None;
        hostile.calls.module.settings = r#"{"do":"init-panic"}"#.to_owned();
        let event = headwater_flow::Event {
            topic: String::new(),
            key: String::new(),
            time: headwater_flow::Timestamp(0),
            payload: Vec::new(),
        };
        let (events, rejected) = hostile.process(&vec![event; 300]);
        assert_eq!((events.len(), rejected.len()), (0, 300));
        assert!(rejected[299].reason.contains("failed to start the module"));
        assert_eq!(hostile.calls.module.metrics.module_traps.get(), 2, "one for each call");
    }
}
