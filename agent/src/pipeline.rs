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
mod full;
mod line;
mod migrate;
mod modules;
mod post;
mod progress;
mod remembered;
mod replay;
mod shadow;
mod step;
mod swap;
mod tally;
mod thin;
mod trips;
mod versions;
mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::flow::{Kind, Message, NO_SPAN, Report, Run, Seq, Timestamp};
use crate::metrics::{self, Metrics};
use crate::module::{self, Host, Limits, Origin};
use crate::store::{self, Commit, Outgoing, Store};
use crate::window::Windows;
use crate::{builtin, decode, window};
use aggregate::Aggregate;
use awaited::Awaited;
use full::Full;
pub use full::WhenFull;
pub use modules::{Blame, Modules, StepVersion, Version, at_hand, load_modules};
pub use post::{Offer, Post};
pub use progress::Counts;
use progress::Progress;
pub use replay::is_replayable;
use step::{Stage, Step, Steps};
use swap::Ended;
pub use tally::Tally;
use thin::{What, Whose};
use trips::Trips;
pub use trips::{OnTrip, PAUSE_MAX, Policy, Rate, TRIPS_MAX, Then};
pub use versions::Versions;
use way::{Share, Way};

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
    pub windowed: Option<(window::Config, AggregateConfig)>,
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
    Builtin(builtin::Config),
}

/// A module and its settings.
#[derive(Clone, Debug)]
pub struct ModuleConfig {
    /// The component, and which one it has to be.
    pub origin: Origin,
    /// Settings as JSON, given to its `init`.
    pub settings: String,
    /// Bounds of its calls.
    pub limits: Limits,
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
        source: module::Error,
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
    Windows(#[from] window::Error),
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
        matches!(self, Self::Module { source: module::Error::Fetch { .. }, .. })
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

fn result_way(name: &str, config: &Config, store: &Store, metrics: &metrics::Pipeline, tally: Tally) -> Way {
    let window = config.windowed.as_ref().and_then(|(window, _)| window.kind.mergeable()).unwrap_or_default();
    let widest = crate::flow::micros(window).saturating_mul(config.coarsen_max);
    let bounds = full::Bounds {
        policy: config.when_full,
        window: crate::flow::micros(window),
        widest,
        age_max: store.quotas().outbox(&config.output).age_max,
    };
    let outbox = outbox(config);
    let full = Full::new(What::Results, bounds, tally, metrics.clone());
    Way { outbox, writer: name.to_owned(), what: What::Results, full }
}

/// Where its results go.
fn outbox(config: &Config) -> String {
    match config.priority {
        Priority::Order => config.output.clone(),
        Priority::Live => store::live(&config.output),
    }
}

fn late_way(
    name: &str,
    config: &Config,
    store: &Store,
    metrics: &metrics::Pipeline,
    tally: &[u8],
) -> Result<Option<Way>, Error> {
    let Some(late) = &config.late else { return Ok(None) };
    let tally = Tally::decode(tally).ok_or(Error::Progress)?;
    let outbox = store::late(&late.output);
    let age_max = store.quotas().outbox(&outbox).age_max;
    let bounds = full::Bounds { policy: late.when_full, window: 0, widest: 0, age_max };
    let full = Full::new(What::Late, bounds, tally, metrics.clone());
    Ok(Some(Way { outbox, writer: store::late(name), what: What::Late, full }))
}

/// The stage behind the transforms, with what is committed of its windows.
fn open_stage(
    name: &str,
    config: &Config,
    aggregate: Option<Aggregate>,
    store: &Store,
    progress: &Progress,
) -> Result<Stage, Error> {
    let (Some((window, _)), Some(aggregate)) = (&config.windowed, aggregate) else { return Ok(Stage::Each) };
    let cold = Box::new(Rows { store: store.clone(), pipeline: name.to_owned() });
    let mut windows = Windows::new(window.clone(), cold, store.kept_bytes_max());
    windows.restore(&progress.windows, |each| {
        store.windows(name, &mut |row, value| match remembered::step_of(&row) {
            Some(_) => Ok(()),
            None => each(row, value),
        })
    })?;
    Ok(Stage::Windowed { windows: Box::new(windows), aggregate: Box::new(aggregate) })
}

/// A pipeline, ready to run on a thread of its own.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    results: Way,
    /// Where late readings go, if anywhere.
    late: Option<Way>,
    store: Store,
    host: Host,
    metrics: metrics::Pipeline,
    of_modules: metrics::OfModules,
    source: metrics::Input,
    config: Config,
    steps: Steps,
    trips: Trips,
    post: Arc<Post>,
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

/// A pipeline's window state in the store.
#[derive(Debug)]
struct Rows {
    store: Store,
    pipeline: String,
}

impl window::Cold for Rows {
    fn rows(&self, key: &str, each: window::Each<'_>) -> Result<(), window::Error> {
        self.store.shelf(&self.pipeline, key.as_bytes(), each)
    }
}

/// What the last commit held.
#[derive(Debug)]
struct Committed {
    position: Seq,
    counts: Counts,
    at: Instant,
}

impl Pipeline {
    /// Loads the modules and goes on from the committed state; a new pipeline starts at the
    /// journal's end, and that is committed before a source may append.
    ///
    /// # Errors
    /// When a module or the committed state cannot be used.
    pub fn build(
        name: &str,
        agent: &str,
        config: &Config,
        host: &Host,
        store: &Store,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let modules = Modules::load(name, config, host, &metrics.pipeline(name))?;
        Self::build_with(name, agent, config, host, store, metrics, modules)
    }

    /// The same without modules, which it gets when it runs ([`Pipeline::awaiting`]).
    ///
    /// # Errors
    /// When the committed state cannot be used; with `absent` when only the modules can tell what was lost of it.
    pub fn build_without(
        name: &str,
        agent: &str,
        config: &Config,
        host: &Host,
        store: &Store,
        metrics: &Metrics,
        absent: Error,
    ) -> Result<Self, Error> {
        if store.checkpoint(name)?.harm.is_some() {
            return Err(absent);
        }
        Self::build_with(name, agent, config, host, store, metrics, Modules::default())
    }

    fn build_with(
        name: &str,
        agent: &str,
        config: &Config,
        host: &Host,
        store: &Store,
        metrics: &Metrics,
        mut modules: Modules,
    ) -> Result<Self, Error> {
        let source = metrics.input(&config.input);
        let of_modules = metrics.of_modules();
        let metrics = metrics.pipeline(name);
        let checkpoint = store.checkpoint(name)?;
        let position = checkpoint.position.unwrap_or_else(|| store.journal_end());
        let mut progress = Progress::decode(&checkpoint.progress).ok_or(Error::Progress)?;
        if checkpoint.position.is_none() {
            progress.counts.skipped = position;
            progress.clock = decode::Clock::new(store.newest_message());
        }
        let tally = Tally::decode(&checkpoint.tally).ok_or(Error::Progress)?;
        let lost = checkpoint.harm.as_ref().is_some_and(|harm| harm.windows);
        let forgotten = remembered::restore(&mut modules.transforms, store, name, lost)?;
        if let Some(aggregate) = &mut modules.aggregate {
            let changes = migrate::changes(name, store, &progress, aggregate)?;
            if checkpoint.harm.is_some() && !changes.is_empty() {
                return Err(migrate::not_now(name, &progress, aggregate));
            }
            migrate::commit((name, &outbox(config)), store, position, &mut progress, (aggregate, changes))?;
        }
        let stage = open_stage(name, config, modules.aggregate, store, &progress)?;
        let results = result_way(name, config, store, &metrics, tally);
        let late = late_way(name, config, store, &metrics, &checkpoint.late_tally)?;
        // There before the forwarder asks which outboxes there are.
        for way in [Some(&results), late.as_ref()].into_iter().flatten() {
            store.outbox_epoch(&way.outbox)?;
        }
        let mut pipeline = Self {
            name: name.to_owned(),
            results,
            late,
            store: store.clone(),
            host: host.clone(),
            metrics,
            of_modules,
            source,
            config: config.clone(),
            trips: Trips::new(config.on_trip.clone()),
            post: Arc::default(),
            versions: Versions::default(),
            awaited: None,
            ended: None,
            steps: Steps {
                agent: agent.to_owned(),
                pipeline: name.to_owned(),
                input: Arc::from(config.input.as_str()),
                decode: decode::Decode::new(config.decode.clone()),
                clock: progress.clock,
                clock_is_behind: false,
                transforms: modules.transforms,
                forgotten,
                stage,
                shadow: None,
                keeps_states: matches!(config.when_full, WhenFull::Coarsen),
                sends_late: config.late.is_some(),
            },
            commit_every: config.commit_every,
            messages_age_max: store.quotas().journal.age_max,
            arrived: Timestamp::default(),
            position,
            committed: Committed { position, counts: progress.counts, at: Instant::now() },
            counts: progress.counts,
            step: Step::default(),
            replayed: 0,
            replaying: false,
        };
        pipeline.count(&Counts::default());
        crate::fail::point("pipeline.built");
        let is_harmed = checkpoint.harm.is_some();
        if let Some(harm) = checkpoint.harm {
            pipeline.suffer(harm)?;
        }
        if checkpoint.position.is_none() || is_harmed {
            let committed = pipeline.commit(|full| {
                error!(pipeline = name, error = %full, "a new pipeline cannot start without disk space");
                false
            })?;
            // Uncommitted, it would start at another end after a crash, and skip what came between.
            if !committed {
                return Err(Error::NoRoom { name: name.to_owned() });
            }
        }
        Ok(pipeline)
    }

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
            let (agent, what) = (&self.steps.agent, What::Results);
            let whose = Whose { agent, pipeline: &self.name, what, now: Timestamp::now() };
            for way in [Some(&mut self.results), self.late.as_mut()].into_iter().flatten() {
                way.expire(&self.store, whose)?;
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
        self.source.connected.get() == 1 && self.source.in_flight_messages.get() == 0
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
                let run = Run::of(Some(*seq), (message.received, message.received));
                let one = Tally { expired_messages: 1, unread: run, ..Tally::default() };
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
                        let run = Run::of(Some(number), NO_SPAN);
                        self.step.tally = self.step.tally.and(&Tally::of_letters(run, Run::default()));
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
    /// position pass it, so once. `to` is when what follows it arrived.
    fn step_over(&mut self, from: Seq, until: Seq, to: Option<Timestamp>) {
        if until <= from {
            return;
        }
        let (pipeline, lost) = (&self.name, until - from);
        error!(pipeline, from, lost, "the journal no longer holds messages that were not read");
        self.step.counts.lost += lost;
        let reason = "the journal was damaged".to_owned();
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
        let report = Report { kind: Kind::Lost, stage, count, first, last, from, to, reason };
        self.steps.report(&report, Timestamp::now(), &mut self.step);
    }

    /// Takes in what a repair took: windows whose state is lost give no result, and upstream is told.
    fn suffer(&mut self, harm: store::Harm) -> Result<(), Error> {
        let began = harm.position.then(Timestamp::now);
        if harm.position {
            // What became of those before nobody knows any more.
            let known = self.counts.read
                + self.counts.skipped
                + self.counts.lost
                + self.results.full.tally.expired_messages;
            self.step.counts.lost += self.position.saturating_sub(known);
            let last = self.position.checked_sub(1);
            self.report(None, None, last, (None, began), "journal", harm.reason.clone());
        }
        if harm.windows && self.steps.transforms.iter().any(module::Transform::is_stateful) {
            self.report(None, None, None, (None, None), "state", harm.reason.clone());
        }
        if harm.windows
            && let Some((from, to)) = self.steps.lose_windows(began)?
        {
            self.report(None, None, None, (Some(from), Some(to)), "windows", harm.reason);
        }
        Ok(())
    }

    fn commit_is_due(&self) -> bool {
        if self.position == self.committed.position && self.step.is_empty() && !self.owes() {
            return false;
        }
        let age = self.committed.at.elapsed();
        age >= self.commit_every
            || (self.step.has_output() && age >= RESULTS_LINGER)
            || self.step.bytes + self.steps.remembered_bytes() >= COMMIT_BYTES_MAX
            || self.steps.windows().is_some_and(|windows| windows.changed() > COMMIT_KEYS_MAX)
            || self.position - self.committed.position >= COMMIT_MESSAGES_MAX
    }

    /// Whether something is to be told upstream.
    fn owes(&self) -> bool {
        let mut ways = [Some(&self.results), self.late.as_ref()].into_iter().flatten();
        ways.any(|way| way.full.tally.owes()) || self.store.has_given_up(&self.name)
    }

    fn patience(&self) -> Duration {
        if self.replaying {
            return Duration::ZERO;
        }
        let linger = if self.step.has_output() { RESULTS_LINGER } else { self.commit_every };
        let dirty = self.position != self.committed.position || !self.step.is_empty();
        let until_commit = linger.saturating_sub(self.committed.at.elapsed());
        if dirty { until_commit.clamp(Duration::from_millis(1), PATIENCE_MAX) } else { PATIENCE_MAX }
    }

    /// Makes everything so far durable; whether it did. On a full disk it asks `again`, and while
    /// that is true tries again. Given up, the pipeline must not go on: what it stepped over is to
    /// be repeated from the journal.
    fn commit(&mut self, mut again: impl FnMut(&store::Error) -> bool) -> Result<bool, Error> {
        let step = std::mem::take(&mut self.step);
        self.counts += step.counts;
        let (windows, changes) = self.steps.changes();
        let made_by = self.steps.made_by();
        let (agent, what) = (&self.steps.agent, What::Results);
        let whose = Whose { agent, pipeline: &self.name, what, now: Timestamp::now() };
        let mut commit = Commit {
            pipeline: &self.name,
            position: self.position,
            progress: Progress { counts: self.counts, clock: self.steps.clock, made_by, windows }.encode(),
            windows: changes,
            results: Outgoing::default(),
            late: Outgoing::default(),
            dead_letters: step.dead_letters,
            now: whose.now,
            replayed: std::mem::take(&mut self.replayed),
        };
        crate::fail::point("pipeline.committing");
        let given_up = self.store.given_up(&self.name);
        let given_up = Tally::of_letters(given_up.dropped, given_up.expired);
        let outbox = self.results.outbox.clone();
        let late_outbox = self.late.as_ref().map_or_else(String::new, |late| late.outbox.clone());
        commit.results = Outgoing { states: step.states, ..Outgoing::new(&outbox, step.results) };
        commit.late = Outgoing::new(&late_outbox, step.late);
        let (lines, with) = (commit.results.lines.len(), step.tally.and(&given_up));
        let mut results = Share::new(&mut self.results, lines, with);
        let mut late = self.late.as_mut();
        let mut late = late.as_mut().map(|way| Share::new(way, commit.late.lines.len(), Tally::default()));
        loop {
            results.tell(&mut commit.results, whose);
            if let Some(late) = &mut late {
                late.tell(&mut commit.late, whose);
            }
            let Err(error) = self.store.commit(&commit) else { break };
            if !error.is_for_room() {
                return Err(error.into());
            }
            // What waits here grows old.
            let whose = Whose { now: Timestamp::now(), ..whose };
            let relieved = match (&error, &mut late) {
                (store::Error::Quota { outbox: Some(outbox), .. }, Some(late)) if *outbox == late_outbox => {
                    late.relieve(&mut commit.late, &self.store, whose, None)?
                }
                (store::Error::Quota { .. }, _) => {
                    let aggregate = self.steps.stage.aggregate();
                    results.relieve(&mut commit.results, &self.store, whose, aggregate)?
                }
                _ => false,
            };
            if !relieved && !again(&error) {
                return Ok(false);
            }
        }
        results.committed(&self.name);
        if let Some(late) = late {
            late.committed(&self.name);
        }
        let before = self.committed.counts;
        self.committed = Committed { position: self.position, counts: self.counts, at: Instant::now() };
        self.count(&before);
        self.metrics.commits.inc();
        crate::fail::point("pipeline.committed");
        Ok(true)
    }

    /// Brings the counters, which show committed work only, up to date.
    fn count(&self, before: &Counts) {
        let (metrics, now) = (&self.metrics, &self.committed.counts);
        let _together = metrics.turn();
        metrics.position_messages.set(i64::try_from(self.committed.position).unwrap_or(i64::MAX));
        metrics.skipped_messages.inc_by(now.skipped - before.skipped);
        metrics.lost_messages.inc_by(now.lost - before.lost);
        metrics.filtered_events.inc_by(now.filtered - before.filtered);
        metrics.multiplied_events.inc_by(now.multiplied - before.multiplied);
        metrics.read_messages.inc_by(now.read - before.read);
        metrics.rejected_messages.inc_by(now.rejected_messages - before.rejected_messages);
        metrics.events.inc_by(now.events - before.events);
        metrics.used_events.inc_by(now.used - before.used);
        metrics.late_events.inc_by(now.late - before.late);
        metrics.sent_late_events.inc_by(now.sent_late - before.sent_late);
        metrics.rejected_events.inc_by(now.rejected_events - before.rejected_events);
        metrics.results.inc_by(now.results - before.results);
        metrics.dead_letters.inc_by(now.dead_letters - before.dead_letters);
        metrics.replayed_messages.inc_by(now.replayed_messages - before.replayed_messages);
        metrics.replayed_events.inc_by(now.replayed_events - before.replayed_events);
        metrics.replayed_results.inc_by(now.replayed_results - before.replayed_results);
        metrics.succeeded_replays.inc_by(now.succeeded_replays - before.succeeded_replays);
        metrics.lost_events.inc_by(now.lost_events - before.lost_events);
        metrics.ahead_rejected_stamps.inc_by(now.ahead_rejected - before.ahead_rejected);
        metrics.ahead_arrival_stamps.inc_by(now.ahead_arrival - before.ahead_arrival);
        metrics.ahead_clamped_stamps.inc_by(now.ahead_clamped - before.ahead_clamped);
        metrics.past_rejected_stamps.inc_by(now.past_rejected - before.past_rejected);
        metrics.past_arrival_stamps.inc_by(now.past_arrival - before.past_arrival);
        metrics.past_clamped_stamps.inc_by(now.past_clamped - before.past_clamped);
        metrics.missing_arrival_stamps.inc_by(now.missing_arrival - before.missing_arrival);
        metrics.clock_behind_messages.inc_by(now.clock_behind - before.clock_behind);
    }

    fn gauge(&self, journal_end: Seq) {
        let lag = journal_end.saturating_sub(self.committed.position);
        self.metrics.lag_messages.set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.metrics.remembered_names.set(i64::try_from(self.steps.names()).unwrap_or(i64::MAX));
        if let Some(windows) = self.steps.windows() {
            let size = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            self.metrics.open_windows.set(size(windows.open()));
            self.metrics.open_keys.set(size(windows.keys()));
            self.metrics.state_bytes.set(size(windows.state_bytes()));
            let memory = windows.kept_bytes() + self.store.recent_bytes(&self.name);
            self.metrics.window_memory_bytes.set(size(memory));
            self.metrics.watermark_micros.set(i64::try_from(windows.watermark().0).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests;
