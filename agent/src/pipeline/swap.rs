//! What a pipeline does about its modules while it runs: it pauses, switches to another version, and goes
//! back to the one before.
//!
//! **Invariant:** each of these is a return to what is committed, as after a crash: what the modules made
//! since then never happened, and what they make instead of it counts once. A switch comes right behind a
//! commit, so it repeats nothing.
//!
//! What it costs: windows are counted anew out of the store, as at a start; readings since the last
//! commit, at most `commit_every` of them, are stepped over again after a pause and on the way back.
//! A pipeline that pauses reads nothing, so that the journal keeps what it has not read and fills up to
//! its quota; it delivers, expires and replays nothing either. After a crash it starts as at any start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::{error, info, warn};

use super::build::open_stage;
use super::mailbox::{LOOK_EVERY, Offer, PipelineMailbox, SHADOWING, Swap};
use super::modules::{Blame, Modules};
use super::progress::Progress;
use super::shadow::Shadow;
use super::step::Step;
use super::trips::{Policy, Verdict};
use super::versions::Versions;
use super::{Committed, Config, Error, Pipeline, migrate, remembered};
use crate::flow::Timestamp;
use crate::store;

/// Why a pipeline no longer takes steps.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was stopped, or given up on a full disk.
    Stopped,
    /// It is to pause.
    Pause(Blame),
    /// It is to go back to the version before.
    Back(Blame),
    /// All is committed, and there is another version.
    Switch(Box<Offer>),
}

impl Pipeline {
    /// Takes in who asks of it, and the versions that its modules are of.
    #[must_use]
    pub fn with(mut self, mailbox: Arc<PipelineMailbox>, mut versions: Versions) -> Self {
        versions.started(&self.config);
        self.mailbox = mailbox;
        self.versions = versions;
        if self.versions.is_on_trial() {
            self.trips.switched(Instant::now());
        }
        self.show();
        self
    }

    /// Runs until `stop` is set and the store wakes it; commits what is done and keeps open
    /// windows open. `beat` is called at least once a second while all is well.
    ///
    /// # Errors
    /// When the store fails: only a restart helps.
    pub fn run(mut self, stop: &AtomicBool, beat: impl Fn()) -> Result<(), Error> {
        if !self.await_modules(stop, &beat)? {
            return Ok(());
        }
        self.arm();
        loop {
            match self.go(stop, &beat)? {
                Ended::Stopped => return Ok(()),
                Ended::Switch(offer) => self.switch(*offer)?,
                Ended::Back(blame) => {
                    if let Err(blame) = self.go_back(blame)?
                        && !self.pause(blame, stop, &beat)?
                    {
                        return Ok(());
                    }
                }
                Ended::Pause(blame) => {
                    if !self.pause(blame, stop, &beat)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Decides what follows from the trips since the last look.
    pub(super) fn judge(&mut self) {
        let blames = self.steps.take_trips();
        let mut count = 0;
        for blame in &blames {
            count += blame.trips.count;
            let name = format!("{}/{}", self.name, blame.place);
            self.of_modules.module(&name).trips.inc_by(blame.trips.count);
            if self.trips.policy() == Policy::Bypass && blame.place != "aggregate" {
                self.metrics.bypassed_events.inc_by(blame.trips.count);
            }
        }
        let Some(blame) = blames.into_iter().next_back() else { return };
        self.mailbox.show(|shown| shown.last_trip = Some(blame.clone()));
        let before = self.trips.policy();
        self.ended = match self.trips.judge(count, Instant::now()) {
            Verdict::GoOn | Verdict::Bypass => None,
            Verdict::Pause => Some(Ended::Pause(blame)),
            Verdict::Back => Some(Ended::Back(blame)),
        };
        if self.trips.policy() != before {
            let (pipeline, policy) = (&self.name, self.trips.policy().name());
            warn!(pipeline, policy, "modules trip too often: the pipeline's policy changes");
            self.arm();
        }
    }

    /// Begins what was asked for; whether the modules are to be switched now.
    pub(super) fn attend(&mut self, now: Instant) -> Result<Option<Box<Offer>>, Error> {
        if self.mailbox.take_resume() {
            self.forget_trips();
        }
        if self.versions.is_on_trial() && !self.trips.is_on_trial(now) {
            self.versions.proven(&self.config);
        }
        if let Some(mut offer) = self.mailbox.take_offer() {
            self.steps.shadow = None;
            self.metrics.shadowing.set(0);
            if offer.version == *self.versions.running() {
                self.refuse("it is the version that runs");
                return Ok(None);
            }
            if self.config.shadow.is_zero() {
                return Ok(Some(offer));
            }
            // What it remembers beside is what the one that runs has committed.
            remembered::restore(&mut offer.modules.transforms, &self.store, &self.name, false)?;
            info!(pipeline = self.name, shadow = ?self.config.shadow, "another version of the modules runs beside");
            self.steps.shadow = Some(Shadow::new(offer, now + self.config.shadow));
            self.metrics.shadowing.set(1);
        }
        let Some(shadow) = self.steps.shadow.as_ref() else { return Ok(None) };
        self.show_shadow(shadow);
        let is_over = shadow.tripped.is_some() || now >= shadow.until;
        Ok(if is_over { self.end_shadow() } else { None })
    }

    fn show_shadow(&self, shadow: &Shadow) {
        let seen = (shadow.events, shadow.differences, shadow.first.clone());
        self.mailbox.show(|shown| {
            shown.swap = Some(Swap { outcome: SHADOWING, reason: None, shadow: Some(seen) });
        });
    }

    /// What takes over, if it did not trip.
    fn end_shadow(&mut self) -> Option<Box<Offer>> {
        let shadow = self.steps.shadow.take()?;
        self.metrics.shadowing.set(0);
        self.metrics.shadow_differences.inc_by(shadow.differences);
        let (pipeline, events, differences) = (&self.name, shadow.events, shadow.differences);
        info!(pipeline, events, differences, "shadow ended");
        for difference in &shadow.first {
            info!(pipeline, difference, "shadow differs");
        }
        if let Some(blame) = shadow.tripped {
            self.refuse(&format!("beside the version that runs {blame}"));
            return None;
        }
        Some(shadow.offer)
    }

    /// Stands still until it is told to go on, has other modules, or has waited; whether it goes on.
    fn pause(&mut self, blame: Blame, stop: &AtomicBool, beat: &impl Fn()) -> Result<bool, Error> {
        let modules = self.steps.take_modules();
        self.rewind(modules)?;
        let wait = self.trips.pause(self.position);
        let until = Instant::now() + wait;
        error!(pipeline = self.name, module = blame.place, reason = blame.trips.reason, position = self.position,
            tries_again = ?wait, "pipeline pauses: mend the module and reload, or resume it");
        self.mailbox.show(|shown| shown.paused = Some((blame, until)));
        self.metrics.paused.set(1);
        // What is on its way in may be the remedy, and there is nothing to compare it on.
        let mut waiting = self.steps.shadow.take().map(|shadow| shadow.offer);
        while !stop.load(Ordering::Acquire) {
            beat();
            let offer = waiting.take().or_else(|| self.mailbox.take_offer());
            let switched = match offer {
                Some(offer) => self.switch(*offer).map(|()| self.trips.is_on_trial(Instant::now()))?,
                None => false,
            };
            let told = self.mailbox.take_resume();
            if told {
                self.forget_trips();
            }
            if switched || told || Instant::now() >= until {
                info!(pipeline = self.name, "pipeline goes on");
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.metrics.paused.set(0);
        self.metrics.shadowing.set(0);
        self.show();
        Ok(!stop.load(Ordering::Acquire))
    }

    /// Goes on with other modules from the last commit, which must hold all steps; or refuses them.
    fn switch(&mut self, offer: Offer) -> Result<(), Error> {
        let Offer { mut modules, version, config } = offer;
        if let Some(reason) = self.versions.refusal(&version) {
            let reason = format!("it was taken back before: {reason}; `resume` the pipeline to try it again");
            self.refuse(&reason);
            return Ok(());
        }
        let migrated = match self.try_states(&mut modules)? {
            Ok(migrated) => migrated,
            Err(reason) => {
                self.refuse(&reason);
                return Ok(());
            }
        };
        crate::fail::point("pipeline.switching");
        self.versions.switched(version, &config);
        crate::fail::point("pipeline.switched");
        self.migrate(&modules, migrated)?;
        self.config = config;
        self.trips.switched(Instant::now());
        self.rewind(modules)?;
        self.metrics.swaps.inc();
        info!(pipeline = self.name, digests = ?self.digests(), "modules are switched");
        self.mailbox.show(|shown| {
            let shadow = shown.swap.take().and_then(|swap| swap.shadow);
            shown.swap = Some(Swap { outcome: "switched", reason: None, shadow });
        });
        self.show();
        Ok(())
    }

    /// Goes on with the version before, from the last commit. What is to blame comes back where that cannot be.
    fn go_back(&mut self, blame: Blame) -> Result<Result<(), Blame>, Error> {
        let Some((_, config)) = self.versions.before(&self.config) else {
            warn!(pipeline = self.name, "there is no version before to go back to");
            return Ok(Err(blame));
        };
        let mut modules = match Modules::load(&self.name, &config, &self.host, &self.calls) {
            Ok(modules) => modules,
            Err(error) => {
                error!(pipeline = self.name, %error, "the version before cannot be loaded");
                return Ok(Err(blame));
            }
        };
        let migrated = match self.try_states(&mut modules)? {
            Ok(migrated) => migrated,
            Err(reason) => {
                error!(pipeline = self.name, reason, "the version before cannot take the windows back");
                return Ok(Err(blame));
            }
        };
        let reason = blame.to_string();
        error!(pipeline = self.name, reason, "modules are taken back: the version before goes on");
        crate::fail::point("pipeline.going-back");
        self.versions.taken_back(reason.clone(), &config);
        crate::fail::point("pipeline.gone-back");
        self.migrate(&modules, migrated)?;
        self.config = config;
        self.rewind(modules)?;
        self.trips.forget();
        self.metrics.rollbacks.inc();
        self.mailbox.show(|shown| {
            shown.swap = Some(Swap { outcome: "taken back", reason: Some(reason), shadow: None });
        });
        self.arm();
        self.show();
        Ok(Ok(()))
    }

    /// The committed windows' states as these modules would have made them, or why they cannot take them.
    fn try_states(&self, modules: &mut Modules) -> Result<Result<Vec<store::Change>, String>, Error> {
        let Some(aggregate) = &mut modules.aggregate else { return Ok(Ok(Vec::new())) };
        let progress = self.store.checkpoint(&self.name)?.progress;
        let progress = Progress::decode(&progress).ok_or(Error::Progress)?;
        match migrate::changes(&self.name, &self.store, &progress, aggregate) {
            Err(error @ Error::State { .. }) => Ok(Err(error.to_string())),
            changes => changes.map(Ok),
        }
    }

    /// Takes its first modules, where it was built without.
    pub(super) fn begin(&mut self, mut modules: Modules, config: &Config) -> Result<(), Error> {
        if let Some(aggregate) = &mut modules.aggregate {
            let progress = self.store.checkpoint(&self.name)?.progress;
            let progress = Progress::decode(&progress).ok_or(Error::Progress)?;
            let changes = migrate::changes(&self.name, &self.store, &progress, aggregate)?;
            self.migrate(&modules, changes)?;
        }
        self.config = config.clone();
        self.rewind(modules)
    }

    fn migrate(&self, modules: &Modules, changes: Vec<store::Change>) -> Result<(), Error> {
        let Some(aggregate) = &modules.aggregate else { return Ok(()) };
        let checkpoint = self.store.checkpoint(&self.name)?;
        let mut progress = Progress::decode(&checkpoint.progress).ok_or(Error::Progress)?;
        let position = checkpoint.position.unwrap_or(self.committed.position);
        let own = (self.name.as_str(), self.results.outbox.as_str());
        migrate::commit(own, &self.store, position, &mut progress, (aggregate, changes))
    }

    /// Drops what is not committed, and goes on from the last commit with these modules.
    fn rewind(&mut self, mut modules: Modules) -> Result<(), Error> {
        self.steps.forgotten = remembered::restore(&mut modules.transforms, &self.store, &self.name, false)?;
        let checkpoint = self.store.checkpoint(&self.name)?;
        let progress = Progress::decode(&checkpoint.progress).ok_or(Error::Progress)?;
        self.steps.stage = open_stage(&self.name, &self.config, modules.aggregate, &self.store, &progress)?;
        self.steps.transforms = modules.transforms;
        self.steps.clock = progress.clock;
        self.position = checkpoint.position.unwrap_or(self.committed.position);
        self.counts = progress.counts;
        self.step = Step::default();
        (self.replayed, self.replaying, self.arrived) = (0, true, Timestamp::default());
        self.committed = Committed { position: self.position, counts: self.counts, at: Instant::now() };
        self.ended = None;
        self.arm();
        Ok(())
    }

    fn refuse(&self, reason: &str) {
        error!(pipeline = self.name, reason, "modules are not switched");
        self.metrics.refused_swaps.inc();
        self.mailbox.show(|shown| {
            let shadow = shown.swap.take().and_then(|swap| swap.shadow);
            shown.swap = Some(Swap { outcome: "refused", reason: Some(reason.to_owned()), shadow });
        });
    }

    fn forget_trips(&mut self) {
        self.trips.forget();
        self.versions.pardon(&self.config);
        self.arm();
        self.show();
    }

    /// Tells the transforms the policy of now.
    fn arm(&mut self) {
        let bypass = self.trips.policy() == Policy::Bypass;
        for transform in &mut self.steps.transforms {
            transform.bypass(bypass);
        }
        self.metrics.bypassing.set(i64::from(bypass));
        let policy = self.trips.policy().name();
        self.mailbox.show(|shown| shown.policy = policy);
    }

    pub(super) fn show(&self) {
        let (running, policy) = (self.versions.running().clone(), self.trips.policy().name());
        self.mailbox.show(|shown| {
            (shown.running, shown.policy, shown.paused) = (running, policy, None);
        });
    }

    fn digests(&self) -> Vec<&str> {
        self.versions.running().steps.iter().map(|step| step.digest.as_str()).collect()
    }
}
