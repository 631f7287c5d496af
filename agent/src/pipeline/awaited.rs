//! A pipeline whose modules are not here when the agent starts: it stands still until they are fetched, and
//! nothing else waits for it.
//!
//! Meanwhile the journal keeps what it has not read, up to its quota, and from its place on: as for a pipeline
//! that pauses. It tries again, at intervals that double from [`WAIT_MIN`] to [`WAIT_MAX`], spaced by chance; at
//! once when it is told to go on (`headwater resume`), or when a reload has found modules that can be used.
//! A module that was fetched and cannot be used is waited for in the same way. A crash begins it anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::mailbox::{LOOK_EVERY, PipelineMailbox};
use super::modules::{Blame, Modules, at_hand};
use super::versions::Versions;
use super::{Config, Error, Pipeline};
use crate::module::{NetworkAccess, TripCount};

/// Longest wait before the second try.
const WAIT_MIN: Duration = Duration::from_secs(5);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// What is waited for.
#[derive(Debug)]
pub(super) struct Awaited {
    /// The state folder.
    state: PathBuf,
    /// With the modules where they come from.
    config: Config,
}

impl Pipeline {
    /// Takes in who asks of it, and that its modules are still to be fetched.
    #[must_use]
    pub fn awaiting(mut self, mailbox: Arc<PipelineMailbox>, state: PathBuf) -> Self {
        self.mailbox = mailbox;
        self.awaited = Some(Awaited { state, config: self.config.clone() });
        self
    }

    /// Waits for modules that are not here; whether it goes on.
    pub(super) fn await_modules(&mut self, stop: &AtomicBool, beat: &impl Fn()) -> Result<bool, Error> {
        let Some(Awaited { state, config }) = self.awaited.take() else { return Ok(true) };
        let (is_stopped, mut config, mut wait) = (|| stop.load(Ordering::Acquire), config, WAIT_MIN);
        self.metrics.paused.set(1);
        loop {
            let is_over = || {
                beat();
                is_stopped()
            };
            let arrived = at_hand(&self.name, &config, &self.host, NetworkAccess::Until(&is_over))
                .and_then(|config| self.arrive(&state, &config));
            let failed = match arrived {
                Ok(()) => {
                    self.metrics.paused.set(0);
                    self.show();
                    return Ok(true);
                }
                _ if is_stopped() => return Ok(false),
                Err(failed @ (Error::Module { .. } | Error::State { .. })) => failed.to_string(),
                Err(failed) => return Err(failed),
            };
            let rest = wait / 2 + (wait / 2).mul_f64(fastrand::f64());
            error!(pipeline = self.name, error = failed, tries_again = ?rest, "pipeline waits for its modules");
            self.show_awaited(failed, Instant::now() + rest);
            let Some(offered) = self.rest(rest, &is_over) else { return Ok(false) };
            config = offered.unwrap_or(config);
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    fn show_awaited(&self, reason: String, until: Instant) {
        let trips = TripCount { count: 0, reason };
        let blame = Blame { place: "modules".to_owned(), digest: String::new(), trips };
        self.mailbox.show(|shown| shown.paused = Some((blame, until)));
    }

    /// Until it is time to try again, maybe with another configuration; `None` when it is to stop.
    fn rest(&self, time: Duration, is_over: &impl Fn() -> bool) -> Option<Option<Config>> {
        let until = Instant::now() + time;
        while !is_over() {
            if let Some(offer) = self.mailbox.take_offer() {
                return Some(Some(offer.config));
            }
            if self.mailbox.take_resume() || Instant::now() >= until {
                return Some(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        None
    }

    /// Goes on from the last commit with the modules that are here now.
    fn arrive(&mut self, state: &std::path::Path, config: &Config) -> Result<(), Error> {
        let (mut versions, config) = Versions::open(state, &self.name, config)?;
        let modules = Modules::load(&self.name, &config, &self.host, &self.calls)?;
        self.begin(modules, &config)?;
        versions.started(&config);
        (self.versions, self.config) = (versions, config);
        if self.versions.is_on_trial() {
            self.trips.switched(Instant::now());
        }
        info!(pipeline = self.name, "the modules are here: pipeline goes on");
        Ok(())
    }
}
