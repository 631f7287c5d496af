//! Gives back to the disk what nobody needs any more, from time to time.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::blocking::{BlockingThread, ThreadError};
use crate::error_text;
use crate::roster::RosterReader;
use crate::store::Store;

/// The time between two trims.
const TRIM_EVERY: Duration = Duration::from_secs(5);

/// Trims the store for the pipelines of the roster, on a thread of its own.
#[derive(Debug)]
pub(super) struct Trimmer {
    thread: BlockingThread,
    store: Store,
    roster: RosterReader,
}

impl Trimmer {
    /// Starts the thread.
    pub(super) fn start(store: Store, roster: RosterReader) -> Result<Self, ThreadError> {
        Ok(Self { thread: BlockingThread::start("trim")?, store, roster })
    }

    /// Trims from time to time, and once more when it is to stop.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut every = tokio::time::interval(TRIM_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*stop.borrow() {
            tokio::select! {
                _ = every.tick() => self.trim().await?,
                changed = stop.changed() => if changed.is_err() { return Ok(()) },
            }
        }
        self.trim().await
    }

    async fn trim(&self) -> Result<(), String> {
        let store = self.store.clone();
        let roster = self.roster.current();
        let trim = move || {
            let names: Vec<&str> = roster.pipelines.keys().map(|name| &**name).collect();
            store.trim(&names).map_err(|error| error_text::of(&error))
        };
        self.thread.call(trim).await?
    }
}
