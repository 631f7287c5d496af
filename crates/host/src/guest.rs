//! The host's side of an instance: the memory it may take, and the log it may write.

use super::ModuleLimits;
use super::contract::LogLevel;
use super::state::RememberedState;
use super::wasi::VirtualWorld;
use headwater_meter::Counter;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use wasmtime::ResourceLimiter;

/// The length of the longest text taken over from a module, be it a log line or a reason; the rest is cut.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

// Python's components need more than 32 instances; the other bounds are some multiples of the most that
// any toolchain was seen to use.
const INSTANCES_MAX: usize = 512;
const MEMORIES_MAX: usize = 16;
const TABLES_MAX: usize = 64;
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// The host's data of one instance.
#[derive(Debug)]
pub struct GuestData {
    memory_bytes: usize,
    memory_bytes_max: usize,
    /// True if it was refused memory; a guest that does not cope traps without saying so.
    pub(super) memory_refused: bool,
    pub(super) log: ModuleLog,
    pub(super) state: RememberedState,
    /// The clocks and random numbers of the running call.
    pub(super) world: VirtualWorld,
}

impl GuestData {
    pub(super) fn new(limits: &ModuleLimits, log: ModuleLog, state: RememberedState) -> Self {
        let memory_bytes_max = limits.memory_bytes_max;
        Self {
            memory_bytes: 0,
            memory_bytes_max,
            memory_refused: false,
            log,
            state,
            world: VirtualWorld::default(),
        }
    }

    #[cfg(feature = "author")]
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Begins a call, of whose faults nothing before is the cause.
    pub(super) fn forget(&mut self) {
        self.memory_refused = false;
        self.log.error = None;
        self.world = VirtualWorld::default();
        self.state.begin();
    }
}

impl ResourceLimiter for GuestData {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.memory_bytes_max {
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_bytes = bytes;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// A module's lines on their way to the agent's log; outlives the module's instances.
#[derive(Debug, Default)]
pub(super) struct ModuleLog {
    module: Arc<str>,
    lines_per_second_max: u32,
    dropped: Counter,
    second: Option<Instant>,
    lines: u32,
    /// The last error line of the running call: of a panic, the only trace.
    pub(super) error: Option<String>,
}

impl ModuleLog {
    pub(super) fn new(module: Arc<str>, limits: &ModuleLimits, dropped: Counter) -> Self {
        let lines_per_second_max = limits.log_lines_per_second_max;
        Self { module, lines_per_second_max, dropped, ..Self::default() }
    }

    pub(super) fn write(&mut self, level: LogLevel, message: String) {
        let text = clip(message);
        if self.admit() {
            // Debug, since a line feed in the text would look like a line of the agent's.
            let module = &*self.module;
            match level {
                LogLevel::Debug => debug!(module, ?text, "module log"),
                LogLevel::Info => info!(module, ?text, "module log"),
                LogLevel::Warn => warn!(module, ?text, "module log"),
                LogLevel::Error => error!(module, ?text, "module log"),
            }
        } else {
            self.dropped.inc();
        }
        if level == LogLevel::Error {
            self.error = Some(text);
        }
    }

    fn admit(&mut self) -> bool {
        let now = Instant::now();
        if self.second.is_none_or(|second| now - second >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= self.lines_per_second_max
    }
}

/// Returns at most [`TEXT_BYTES_MAX`] of the text.
pub(super) fn clip(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}
