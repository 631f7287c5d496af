//! The mailbox of a pipeline: others leave there what its thread is to do about its modules, and read what it did.
//!
//! A later offer takes the place of one that was not taken yet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Config;
use super::modules::{Blame, Modules, Version};

/// Differences of a shadow that are shown.
pub(super) const DIFFERENCES_MAX: usize = 5;
/// The outcome of a switch while both versions run.
pub(super) const SHADOWING: &str = "shadowing";

/// Modules to switch to.
#[derive(Debug)]
pub struct Offer {
    /// As they will run.
    pub modules: Modules,
    /// What they are.
    pub version: Version,
    /// The pipeline's, with them.
    pub config: Config,
}

/// The mailbox of one pipeline.
#[derive(Debug, Default)]
pub struct PipelineMailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    offer: Option<Box<Offer>>,
    resume: bool,
    shown: Shown,
}

/// What a pipeline shows of its modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) running: Version,
    pub(super) policy: &'static str,
    pub(super) paused: Option<(Blame, Instant)>,
    pub(super) last_trip: Option<Blame>,
    pub(super) swap: Option<Swap>,
}

/// The latest switch, or what became of it.
#[derive(Clone, Debug)]
pub(super) struct Swap {
    pub(super) outcome: &'static str,
    pub(super) reason: Option<String>,
    /// Events that went through both versions, those that differed, and the first of these.
    pub(super) shadow: Option<(u64, u64, Vec<String>)>,
}

impl PipelineMailbox {
    /// Asks the pipeline to switch.
    pub fn offer(&self, offer: Offer) {
        self.lock().offer = Some(Box::new(offer));
    }

    /// Asks a pipeline that paused, or whose policy changed, to go on as configured.
    pub fn resume(&self) {
        self.lock().resume = true;
    }

    /// A version was not even offered.
    pub fn refused(&self, reason: String) {
        self.lock().shown.swap = Some(Swap { outcome: "refused", reason: Some(reason), shadow: None });
    }

    /// The version that runs.
    #[must_use]
    pub fn running(&self) -> Version {
        self.lock().shown.running.clone()
    }

    /// As `/status` shows it.
    #[must_use]
    pub fn value(&self, now: Instant) -> Value {
        let shown = self.lock().shown.clone();
        let blame = |blame: &Blame| json!({ "module": blame.place, "digest": blame.digest, "reason": blame.trips.reason });
        let digests: Vec<_> = shown.running.steps.iter().map(|step| step.digest.clone()).collect();
        let paused = shown.paused.as_ref().map(|(by, until)| {
            let mut value = blame(by);
            value["tries_again_in_seconds"] = until.saturating_duration_since(now).as_secs().into();
            value
        });
        let swap = shown.swap.map(|swap| {
            let shadow = swap.shadow.map(|(events, differences, first)| {
                json!({ "events": events, "differences": differences, "first": first })
            });
            json!({ "outcome": swap.outcome, "reason": swap.reason, "shadow": shadow })
        });
        json!({
            "running": digests,
            "on_trip": shown.policy,
            "paused": paused,
            "last_trip": shown.last_trip.as_ref().map(blame),
            "swap": swap,
        })
    }

    /// Whether it is about to switch, or runs another version beside.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        let inner = self.lock();
        inner.offer.is_some() || inner.shown.swap.as_ref().is_some_and(|swap| swap.outcome == SHADOWING)
    }

    pub(super) fn take_offer(&self) -> Option<Box<Offer>> {
        self.lock().offer.take()
    }

    pub(super) fn take_resume(&self) -> bool {
        std::mem::take(&mut self.lock().resume)
    }

    pub(super) fn show(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.lock().shown);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a paused pipeline looks whether it may go on.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
