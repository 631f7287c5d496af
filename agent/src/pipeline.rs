//! One pipeline: reads the journal from its own position, makes a step of each page, and commits.
//!
//! The [`step`] is pure but for the modules, which are functions of their inputs. This file feeds
//! it: it owns the position and decides when a step becomes durable. A pipeline waits for no
//! other, and for nothing but the journal.
//!
//! **Invariant:** position, window state, results and dead letters move in one commit. A crash
//! before it repeats the step from the journal; after it, never.
//!
//! Limits: a commit comes at the latest after `commit_every`, [`COMMIT_MESSAGES_MAX`] messages,
//! [`COMMIT_BYTES_MAX`] bytes of results or [`COMMIT_KEYS_MAX`] changed keys, which bounds both memory and
//! what a crash repeats.

mod aggregate;
mod awaited;
mod build;
mod commit;
mod mailbox;
mod migrate;
mod modules;
mod overflow;
mod progress;
mod records;
mod remembered;
mod replay;
mod route;
mod rows;
mod shadow;
mod step;
mod swap;
mod tally;
mod thin;
mod trips;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::flow::{LossReport, LossRun, Message, ReportKind, Seq, Timestamp, UNKNOWN_SPAN};
use crate::metrics;
use crate::module::{self, ModuleHost, ModuleLimits, ModuleOrigin};
use crate::store::{self, Store};
use crate::{builtin, decode, window};
use awaited::Awaited;
pub use build::Parts;
pub use mailbox::{Offer, PipelineMailbox};
pub use modules::{Blame, Modules, StepVersion, Version, at_hand, load_modules};
pub use overflow::WhenFull;
pub use progress::Counts;
pub use replay::is_replayable;
use route::OutputRoute;
use step::{Step, Steps};
use swap::Ended;
pub use tally::LossTally;
use thin::{RecordKind, RecordOwner};
use trips::Trips;
pub use trips::{OnTrip, PAUSE_MAX, Policy, Rate, TRIPS_MAX, Then};
pub use versions::Versions;

/// Journal bytes read at once.
const PAGE_BYTES: usize = 256 << 10;
/// Messages stepped over at once.
const SLICE_MESSAGES: usize = 256;
/// Messages after which a commit is due.
pub const COMMIT_MESSAGES_MAX: u64 = 20_000;
/// Bytes of results and dead letters after which a commit is due.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Keys whose windows changed, beyond which a commit is due: the engine's memory grows with the rows of a
/// batch, far beyond their bytes.
pub const COMMIT_KEYS_MAX: usize = 10_000;
/// Results wait this long for others, so that a trickle does not cost a synced flush each.
const RESULTS_LINGER: Duration = Duration::from_millis(100);
/// Dead letters replayed at once, in one commit.
const REPLAYS_MAX: usize = 256;
/// Longest sleep: silent devices are noticed, and `/live` sees a beat, at least this often.
const PATIENCE_MAX: Duration = Duration::from_millis(500);

/// How many times as wide windows become at most by default: an hour out of minutes.
pub const COARSEN_MAX: u64 = 64;
/// Why messages are reported lost that the journal stored. The broker may have had no acknowledgement for the
/// last of them when the agent died.
const UNREADABLE: &str = "the journal was damaged; those of these messages that were not yet acknowledged come again from the broker and count under new numbers";
/// How often a pipeline that waits for room in the outbox looks for it.
const ROOM_EVERY: Duration = Duration::from_millis(100);

/// One `[pipeline.NAME]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The input it reads.
    pub input: String,
    /// How it reads messages.
    pub decode: decode::Config,
    /// Its transforms, in order.
    pub transforms: Vec<ModuleConfig>,
    /// Its windows and their aggregate; without, each event is forwarded on its own.
    pub windowed: Option<(window::WindowConfig, AggregateConfig)>,
    /// Longest time between commits while there is something to commit. Default 1 s.
    pub commit_every: Duration,
    /// The output its results go to.
    pub output: String,
    /// What it does when the outbox of that output has reached its quota. Default: it waits.
    pub when_full: WhenFull,
    /// How many times as wide `coarsen` makes a window at most: a power of two. Default 64.
    pub coarsen_max: u64,
    /// Which of its results go first there. Default: [`Priority::Order`].
    pub priority: Priority,
    /// Where readings go that came too late for their windows. Without, they are counted and dropped.
    pub late: Option<Late>,
    /// What follows when one of its modules trips.
    pub on_trip: OnTrip,
    /// How long another version of its modules runs beside the one that runs before it takes over. Default 0.
    pub shadow: Duration,
}

/// Where late readings go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The output: the pipeline's own or another.
    pub output: String,
    /// What the pipeline does when the outbox of that output's late readings has reached its quota: all but
    /// [`WhenFull::Coarsen`]. Default: it waits.
    pub when_full: WhenFull,
}

/// Which results go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// All in the order they were made.
    #[default]
    Order,
    /// The newest, before an old backlog, which drains beside them: for receivers that know a result
    /// by its identity, as the collector does. The two kinds keep no order between them.
    Live,
}

/// What readings of a window become a result by.
#[derive(Clone, Debug)]
pub enum AggregateConfig {
    /// A module.
    Module(ModuleConfig),
    /// Built-ins.
    Builtin(builtin::BuiltinConfig),
}

/// A module and its settings.
#[derive(Clone, Debug)]
pub struct ModuleConfig {
    /// The component, and which one it has to be.
    pub origin: ModuleOrigin,
    /// Settings as JSON, given to its `init`.
    pub settings: String,
    /// Bounds of its calls.
    pub limits: ModuleLimits,
}

/// Why a pipeline cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A module cannot be loaded.
    #[error("failed to load {place}: {source}")]
    Module {
        /// Which of its modules.
        place: String,
        /// Why.
        source: module::ModuleError,
    },
    /// Window states of another version of the aggregate.
    #[error(
        "failed to bring the open windows of pipeline `{pipeline}` from state version {from} of its aggregate to {to}: {reason}: run the version before until they are closed"
    )]
    State {
        /// Which pipeline.
        pipeline: String,
        /// What made them.
        from: u32,
        /// What is to go on from them.
        to: u32,
        /// The module's words, or what is in the way.
        reason: String,
    },
    /// Committed state that this version cannot read.
    #[error(transparent)]
    Windows(#[from] window::WindowError),
    /// Committed counts that this version cannot read.
    #[error("failed to read the committed progress: it has another version or is cut short")]
    Progress,
    /// What a transform remembers cannot be read.
    #[error("failed to read what a transform remembers: {reason}")]
    Remembered {
        /// The store's words.
        reason: String,
    },
    /// A new pipeline cannot be committed.
    #[error("failed to start the new pipeline `{name}`: the disk of the state folder is full; make room")]
    NoRoom {
        /// Which one.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Whether a module is not here and may be fetched.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Module { source: module::ModuleError::Fetch { .. }, .. })
    }
}

/// Degraded but alive: sleeps a while, and whether to try again.
fn wait_for_room(full: &store::Error, stop: &AtomicBool, beat: &impl Fn()) -> bool {
    beat();
    if matches!(full, store::Error::Quota { .. }) {
        std::thread::sleep(ROOM_EVERY);
    } else {
        warn!(error = %full, "pipeline waits for disk space");
        std::thread::sleep(PATIENCE_MAX);
    }
    !stop.load(Ordering::Acquire)
}

/// A pipeline, ready to run on a thread of its own.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    results: OutputRoute,
    /// Where late readings go, if anywhere.
    late: Option<OutputRoute>,
    store: Store,
    host: ModuleHost,
    metrics: metrics::Pipeline,
    calls: metrics::CallMetrics,
    of_modules: metrics::TripHandles,
    input: metrics::Input,
    config: Config,
    steps: Steps,
    trips: Trips,
    mailbox: Arc<PipelineMailbox>,
    versions: Versions,
    /// Modules that it was built without.
    awaited: Option<Awaited>,
    /// Why it is to take no more steps; what is not committed then never is.
    ended: Option<Ended>,
    commit_every: Duration,
    messages_age_max: Option<Duration>,
    /// The newest arrival read: what follows arrived no earlier, whatever its stamp.
    arrived: Timestamp,
    position: Seq,
    committed: Committed,
    counts: Counts,
    step: Step,
    /// Dead letters that the step gave in again.
    replayed: usize,
    /// There may be more of them.
    replaying: bool,
}

/// What the last commit held.
#[derive(Debug)]
struct Committed {
    position: Seq,
    counts: Counts,
    at: Instant,
}

impl Pipeline {
    /// Takes steps until something else is to be done.
    fn go(&mut self, stop: &AtomicBool, beat: &impl Fn()) -> Result<Ended, Error> {
        let mut quiet_since = Instant::now();
        while !stop.load(Ordering::Acquire) {
            beat();
            if let Some(offer) = self.attend(Instant::now())? {
                let committed = self.commit(|full| wait_for_room(full, stop, beat))?;
                return Ok(if committed { Ended::Switch(offer) } else { Ended::Stopped });
            }
            let end = self.store.wait(self.position, self.patience());
            if end > self.position {
                for slice in self.read_page(end)? {
                    crate::fail::point("pipeline.read");
                    if self.slice(slice)? {
                        quiet_since = Instant::now();
                    }
                    beat();
                    self.judge();
                    if !self.settle(stop, beat)? {
                        return Ok(Ended::Stopped);
                    }
                    if let Some(ended) = self.ended.take() {
                        return Ok(ended);
                    }
                    if self.commit_is_due() && !self.commit(|full| wait_for_room(full, stop, beat))? {
                        return Ok(Ended::Stopped);
                    }
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                }
            } else if self.input_is_open() {
                self.steps.idle(quiet_since.elapsed());
            } else {
                // The devices may be anything but silent: the broker keeps what they send.
                quiet_since = Instant::now();
            }
            if self.replay()? {
                // A letter may be of a time that the silence since would carry beyond that of all others.
                quiet_since = Instant::now();
                if !self.commit(|full| wait_for_room(full, stop, beat))? {
                    return Ok(Ended::Stopped);
                }
            }
            if !self.settle(stop, beat)? {
                return Ok(Ended::Stopped);
            }
            if let Some(ended) = self.ended.take() {
                return Ok(ended);
            }
            self.gauge(end);
            let owner = RecordOwner {
                agent: &self.steps.agent,
                pipeline: &self.name,
                kind: RecordKind::Results,
                now: Timestamp::now(),
            };
            for route in [Some(&mut self.results), self.late.as_mut()].into_iter().flatten() {
                route.expire(&self.store, owner)?;
            }
            if self.commit_is_due() && !self.commit(|full| wait_for_room(full, stop, beat))? {
                return Ok(Ended::Stopped);
            }
        }
        self.commit(|_| false).map(|_| Ended::Stopped)
    }

    /// Gives what is due, with as many commits as it takes; whether the pipeline may go on. A stop leaves
    /// the rest for the next start.
    fn settle(&mut self, stop: &AtomicBool, beat: &impl Fn()) -> Result<bool, Error> {
        while self.ended.is_none()
            && !stop.load(Ordering::Acquire)
            && self.steps.settle(Timestamp::now(), &mut self.step)?
        {
            beat();
            self.judge();
            if self.ended.is_some() {
                break;
            }
            if self.commit_is_due() && !self.commit(|full| wait_for_room(full, stop, beat))? {
                return Ok(false);
            }
        }
        if self.ended.is_none() {
            self.judge();
        }
        Ok(true)
    }

    fn input_is_open(&self) -> bool {
        self.input.connected.get() == 1 && self.input.in_flight_messages.get() == 0
    }

    /// Steps over some messages; whether one of them was for this pipeline.
    fn slice(&mut self, mut messages: Vec<(Seq, Message)>) -> Result<bool, Error> {
        let (before, now) = (self.step.counts.read, Timestamp::now());
        for (seq, message) in &messages {
            self.step_over(self.position, *seq, Some(message.received));
            self.position = seq + 1;
        }
        self.expire(&mut messages, now);
        self.steps.run(messages, now, &mut self.step)?;
        self.steps.broken().map_or(Ok(()), |reason| Err(Error::Remembered { reason }))?;
        crate::fail::point("pipeline.step");
        Ok(self.step.counts.read > before)
    }

    /// Takes messages out that are too old. Their age is judged by the journal: a clock that is behind
    /// it judges nothing, and one that was not set when they arrived says nothing of their age.
    fn expire(&mut self, messages: &mut Vec<(Seq, Message)>, now: Timestamp) {
        let Some(age_max) = self.messages_age_max else { return };
        let oldest = if now < self.store.newest_message() { Timestamp(0) } else { now.before(age_max) };
        messages.retain(|(seq, message)| {
            self.arrived = self.arrived.max(message.received);
            let old = message.received >= store::CLOCK_SET && self.arrived < oldest;
            if old && !self.steps.takes(message) {
                self.step.counts.skipped += 1;
            } else if old {
                let run = LossRun::single(Some(*seq), (message.received, message.received));
                let one = LossTally { expired_messages: 1, unread: run, ..LossTally::default() };
                self.step.tally = self.step.tally.and(&one);
            }
            !old
        });
    }

    /// Gives in again what waits for it among the dead letters; whether there was anything. To be
    /// committed before the next time: until then it waits as before.
    fn replay(&mut self) -> Result<bool, Error> {
        let letters = self.store.letters_to_replay(&self.name, REPLAYS_MAX)?;
        self.replayed = letters.len();
        self.replaying = self.replayed > 0;
        let (now, kept_from) = (Timestamp::now(), self.store.letters_start());
        for (number, letter) in letters {
            match letter {
                Some(letter) => self.steps.replay(number, letter, now, &mut self.step)?,
                None => {
                    warn!(pipeline = self.name, number, "a dead letter was gone before it was replayed");
                    // Those that damage took are in the report of the repair.
                    if number < kept_from {
                        let run = LossRun::single(Some(number), UNKNOWN_SPAN);
                        self.step.tally =
                            self.step.tally.and(&LossTally::of_letters(run, LossRun::default()));
                    }
                }
            }
        }
        self.steps.broken().map_or(Ok(()), |reason| Err(Error::Remembered { reason }))?;
        // A letter on which a module trips again is a letter again, whatever the policy.
        drop(self.steps.take_trips());
        Ok(self.replaying)
    }

    /// The next page of the journal, which reaches to `end`, in slices that are about a call to a
    /// module each: between them the pipeline shows that it lives, and can stop or commit.
    fn read_page(&mut self, end: Seq) -> Result<Vec<Vec<(Seq, Message)>>, Error> {
        let mut page = self.store.read(self.position, PAGE_BYTES)?;
        if page.is_empty() {
            self.step_over(self.position, end, None);
            self.position = end;
        }
        let mut slices = Vec::with_capacity(page.len().div_ceil(SLICE_MESSAGES));
        while !page.is_empty() {
            let rest = page.split_off(page.len().min(SLICE_MESSAGES));
            slices.push(std::mem::replace(&mut page, rest));
        }
        Ok(slices)
    }

    /// Goes on behind a gap in the journal, and says upstream what was there: in the commit that has the
    /// position pass it, so once. `to` is when what follows it arrived. What was in the gap is not known, nor
    /// therefore which of it the broker sends again: it is counted as lost, and as read when it comes.
    fn step_over(&mut self, from: Seq, until: Seq, to: Option<Timestamp>) {
        if until <= from {
            return;
        }
        let (pipeline, lost) = (&self.name, until - from);
        error!(pipeline, from, lost, "the journal no longer holds messages that were not read");
        self.step.counts.lost += lost;
        let reason = UNREADABLE.to_owned();
        self.report(Some(lost), Some(from), Some(until - 1), (None, to), "journal", reason);
    }

    fn report(
        &mut self,
        count: Option<u64>,
        first: Option<Seq>,
        last: Option<Seq>,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
        stage: &'static str,
        reason: String,
    ) {
        let report =
            LossReport { kind: ReportKind::Lost, stage: stage.into(), count, first, last, from, to, reason };
        self.steps.report(report, Timestamp::now(), &mut self.step);
    }

    /// Takes in what a repair took: windows whose state is lost give no result, and upstream is told.
    fn suffer(&mut self, harm: store::Harm) -> Result<(), Error> {
        let began = harm.position.then(Timestamp::now);
        if harm.position {
            // What became of those before nobody knows any more.
            let known = self.counts.read
                + self.counts.skipped
                + self.counts.lost
                + self.results.overflow.tally.expired_messages;
            self.step.counts.lost += self.position.saturating_sub(known);
            let last = self.position.checked_sub(1);
            self.report(None, None, last, (None, began), "journal", harm.reason.clone());
        }
        if harm.end && !harm.position {
            self.report(None, None, None, (None, None), "journal", harm.reason.clone());
        }
        if harm.windows && self.steps.transforms.iter().any(module::TransformModule::is_stateful) {
            self.report(None, None, None, (None, None), "state", harm.reason.clone());
        }
        if harm.windows
            && let Some((from, to)) = self.steps.lose_windows(began)?
        {
            self.report(None, None, None, (Some(from), Some(to)), "windows", harm.reason);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
