//! The clock that stops calls past their deadline.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use wasmtime::Engine;

use headwater_meter::Thread;

/// The interval at which deadlines are looked at.
const TICK: Duration = Duration::from_millis(10);

/// A thread that advances the engine's epoch; it ends with the last module and host that hold it.
#[derive(Debug)]
pub(super) struct DeadlineClock {
    stop: Option<SyncSender<()>>,
    thread: Thread,
}

impl DeadlineClock {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let tick = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                engine.increment_epoch();
            }
        };
        let thread = thread::Builder::new().name("module-clock".to_owned()).spawn(tick)?;
        Ok(Self { stop: Some(stop), thread: Thread::new(thread) })
    }

    /// Returns the reason why it no longer runs, if so: deadlines are not kept any more.
    pub(super) fn fallen(&self) -> Option<String> {
        self.thread.fallen()
    }
}

impl Drop for DeadlineClock {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.join();
    }
}

/// Returns the ticks that are at least this long, counted from any moment.
pub(super) fn ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
}
