//! Threads beside the tasks of the wiring.

use headwater_flow::error_text;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// A thread that is no task of the wiring: it is joined when this is dropped, and asked for in between.
#[derive(Debug)]
pub struct Thread(Mutex<Option<JoinHandle<()>>>);

impl Thread {
    /// One that runs.
    #[must_use]
    pub fn new(thread: JoinHandle<()>) -> Self {
        Self(Mutex::new(Some(thread)))
    }

    /// Why it no longer runs, though nobody ended it; told once.
    pub fn fallen(&self) -> Option<String> {
        let ended = self.lock().take_if(|thread| thread.is_finished())?;
        let ended = ended.join();
        Some(ended.map_or_else(
            |panic| error_text::of_panic(&*panic),
            |()| "it ended without being asked to".to_owned(),
        ))
    }

    /// Waits for its end; the caller has told it to.
    pub fn join(&self) {
        if let Some(thread) = self.lock().take()
            && let Err(panic) = thread.join()
        {
            tracing::error!(reason = error_text::of_panic(&*panic), "thread ended");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
