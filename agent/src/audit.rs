//! Looks after the running agent, every [`LOOK_EVERY`]: whether the ledger balances, whether every
//! stage goes on, whether the threads that are no stages still run.
//!
//! It only reads counters and asks the store, so it disturbs nobody. What it sees is what `/live`
//! and `/status` answer. Were it stuck itself, `/live` would say so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tracing::{error, info};

use crate::blocking::{BlockingThread, ThreadError};
use crate::config::Config;
use crate::ledger::{Audit, Book, Finding, Input, Journal, Output, Pipeline, least};
use crate::live::{Beat, Sign, Watch};
use crate::metrics::{self, Metrics};
use crate::module::Host;
use crate::store::{self, Store};

/// How often it looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks at the ledger in one check, until one finds every equation to hold.
const LOOKS: u32 = 8;
/// Between two of them: longer than stages take from one's count to the next one's.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is wrong that only a restart mends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread is gone that others rely on.
    #[error("thread `{thread}`: {reason}")]
    Thread {
        /// Its name.
        thread: &'static str,
        /// What it said.
        reason: String,
    },
    /// The store cannot be asked any more.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no thread to look from.
    #[error(transparent)]
    Start(ThreadError),
    /// The look itself panicked.
    #[error("{0}")]
    Panic(String),
}

/// What the ledger is read from: the stages' counts, and what stood when the agent started.
#[derive(Debug)]
pub struct Books {
    store: Store,
    journal_opening: u64,
    inputs: Vec<(String, metrics::Input)>,
    pipelines: Vec<Writing>,
    outputs: Vec<Reading>,
}

/// A pipeline, and the outputs it writes to.
#[derive(Debug)]
struct Writing {
    name: String,
    output: String,
    /// Of its late readings.
    late_output: Option<String>,
    metrics: metrics::Pipeline,
    opening: Written,
}

/// What a pipeline did to its outboxes.
#[derive(Clone, Copy, Debug)]
struct Written {
    results: Lines,
    coarsened: u64,
    late: Lines,
}

/// What it did to one of them.
#[derive(Clone, Copy, Debug)]
struct Lines {
    lines: u64,
    reports: i64,
    dropped: u64,
    expired: u64,
}

impl Written {
    fn of(metrics: &metrics::Pipeline) -> Self {
        let results = Lines {
            lines: metrics.results.get(),
            reports: metrics.report_lines.get(),
            dropped: metrics.dropped_results.get(),
            expired: metrics.expired_results.get(),
        };
        let late = Lines {
            lines: metrics.sent_late_events.get(),
            reports: metrics.late_report_lines.get(),
            dropped: metrics.dropped_late_events.get(),
            expired: metrics.expired_late_events.get(),
        };
        Self { results, coarsened: metrics.coarsened_results.get(), late }
    }
}

impl Lines {
    /// What came since, but for the lines themselves; how many these are.
    fn since(&self, opening: &Self, seen: &mut Output) -> u64 {
        seen.reports += self.reports - opening.reports;
        seen.dropped += self.dropped - opening.dropped;
        seen.expired += self.expired - opening.expired;
        self.lines - opening.lines
    }
}

#[derive(Debug)]
struct Reading {
    name: String,
    metrics: metrics::Output,
    opening: u64,
}

impl Books {
    /// Opens them. Nothing may run yet.
    ///
    /// # Errors
    /// When the store cannot say what is pending.
    pub fn open(config: &Config, metrics: &Metrics, store: &Store) -> Result<Self, store::Error> {
        let inputs = config.inputs.keys().map(|name| (name.clone(), metrics.input(name)));
        let pipelines = config.pipelines.iter().map(|(name, pipeline)| {
            let metrics = metrics.pipeline(name);
            let opening = Written::of(&metrics);
            let late_output = pipeline.late.as_ref().map(|late| late.output.clone());
            Writing { name: name.clone(), output: pipeline.output.clone(), late_output, metrics, opening }
        });
        let outputs = config.outputs.keys().map(|name| {
            let opening = store.pending(name)?;
            Ok(Reading { name: name.clone(), metrics: metrics.output(name), opening })
        });
        Ok(Self {
            store: store.clone(),
            journal_opening: store.journal_end(),
            inputs: inputs.collect(),
            pipelines: pipelines.collect(),
            outputs: outputs.collect::<Result<_, store::Error>>()?,
        })
    }

    /// One look at everything.
    ///
    /// # Errors
    /// When the store cannot say what is pending.
    pub fn look(&self) -> Result<Book, store::Error> {
        let (journal, inputs) = self.journal();
        let outputs = self.outputs.iter().map(|output| Ok((output.name.clone(), self.output(output)?)));
        let end = self.store.journal_end();
        let pipelines = self.pipelines.iter();
        let pipelines = pipelines.map(|one| (one.name.clone(), pipeline(&one.metrics, end)));
        Ok(Book {
            journal,
            inputs,
            pipelines: pipelines.collect(),
            outputs: outputs.collect::<Result<_, store::Error>>()?,
        })
    }

    /// All inputs stand still while the journal's end is read.
    fn journal(&self) -> (Journal, BTreeMap<String, Input>) {
        let _together: Vec<_> = self.inputs.iter().map(|(_, metrics)| metrics.turn()).collect();
        let inputs: BTreeMap<_, _> =
            self.inputs.iter().map(|(name, metrics)| (name.clone(), input(metrics))).collect();
        let sum = |count: fn(&Input) -> u64| inputs.values().map(count).sum();
        let journal = Journal {
            appended: self.store.journal_end() - self.journal_opening,
            journaled: sum(|input| input.journaled),
            in_flight: sum(|input| input.in_flight),
        };
        (journal, inputs)
    }

    fn output(&self, output: &Reading) -> Result<Output, store::Error> {
        let mut seen = Output { opening: output.opening, ..Output::default() };
        for pipeline in &self.pipelines {
            let (now, opening) = (Written::of(&pipeline.metrics), pipeline.opening);
            if pipeline.output == output.name {
                seen.results += now.results.since(&opening.results, &mut seen);
                seen.coarsened += now.coarsened - opening.coarsened;
            }
            if pipeline.late_output.as_ref() == Some(&output.name) {
                seen.late += now.late.since(&opening.late, &mut seen);
            }
        }
        seen.pending = self.store.pending(&output.name)?;
        let metrics = &output.metrics;
        let _together = metrics.turn();
        seen.delivered = metrics.delivered_results.get();
        seen.refused = metrics.rejected_results.get();
        seen.lost = metrics.lost_results.get();
        Ok(seen)
    }

    /// What a check of the ledger misses: in the best of some looks.
    fn missing(&self) -> Result<BTreeMap<String, i64>, store::Error> {
        let mut missing = self.look()?.missing();
        for _ in 1..LOOKS {
            if missing.values().all(|missing| *missing == 0) {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
            missing = least(missing, &self.look()?.missing());
        }
        Ok(missing)
    }
}

fn input(metrics: &metrics::Input) -> Input {
    Input {
        received: metrics.received_messages.get(),
        journaled: metrics.journaled_messages.get(),
        duplicates: metrics.duplicate_messages.get(),
        shed: metrics.shed_messages.get(),
        refused: metrics.refused_messages.get(),
        in_flight: unsigned(&metrics.in_flight_messages),
    }
}

fn pipeline(metrics: &metrics::Pipeline, journal_end: u64) -> Pipeline {
    let _together = metrics.turn();
    let position = unsigned(&metrics.position_messages);
    Pipeline {
        position,
        skipped: metrics.skipped_messages.get(),
        lost: metrics.lost_messages.get(),
        expired: metrics.expired_messages.get(),
        read: metrics.read_messages.get(),
        replayed: metrics.replayed_messages.get() + metrics.replayed_events.get(),
        multiplied: metrics.multiplied_events.get(),
        filtered: metrics.filtered_events.get(),
        rejected: metrics.rejected_messages.get() + metrics.rejected_events.get(),
        used: metrics.used_events.get(),
        late: metrics.late_events.get(),
        lost_events: metrics.lost_events.get(),
        sent_late: metrics.sent_late_events.get(),
        results: metrics.results.get(),
        dead_letters: metrics.dead_letters.get(),
        given_up_letters: metrics.given_up_letters.get(),
        pending: journal_end.saturating_sub(position),
    }
}

fn unsigned(gauge: &Gauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or_default()
}

/// A stage that has work and does nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// As the log names it.
    pub stage: String,
    /// What waits.
    pub cause: String,
}

/// What the last look saw.
#[derive(Debug)]
pub struct Seen {
    at: Instant,
    stuck: Vec<Stuck>,
    broken: BTreeMap<String, i64>,
}

/// Where the last look is left for who asks.
#[derive(Clone, Debug)]
pub struct Verdict {
    seen: Arc<Mutex<Seen>>,
    books: Arc<Books>,
    stuck_after: Duration,
}

impl Verdict {
    /// The stages that are stuck, this one included.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let seen = self.seen();
        let mut stuck = seen.stuck.clone();
        if now.saturating_duration_since(seen.at) > self.stuck_after {
            let cause = format!("no look for more than {:?}", self.stuck_after);
            stuck.push(Stuck { stage: "audit".to_owned(), cause });
        }
        stuck
    }

    /// The ledger as `/status` shows it.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn ledger(&self) -> Result<Value, store::Error> {
        let book = self.books.look()?;
        let broken = self.seen().broken.clone();
        Ok(json!({ "balances": broken.is_empty(), "imbalance_records": broken, "counts": book }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who looks.
#[derive(Debug)]
pub struct Auditor {
    verdict: Verdict,
    audit: Audit,
    gauges: Arc<Metrics>,
    host: Host,
    stages: Vec<Watched>,
}

/// A stage and how long it has been still.
#[derive(Debug)]
struct Watched {
    stage: String,
    kind: Kind,
    /// What one piece of its work may take beyond the stated time.
    slack: Duration,
    watch: Watch,
}

#[derive(Debug)]
enum Kind {
    Input(metrics::Input),
    Pipeline(Box<metrics::Pipeline>, metrics::CallMetrics, Arc<Beat>),
    Output(String, metrics::Output),
}

impl Auditor {
    /// Looks at the stages of `config`. Nothing may run yet.
    #[must_use]
    pub fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        books: Books,
        host: Host,
        beats: &BTreeMap<String, Arc<Beat>>,
    ) -> Self {
        let now = Instant::now();
        let watched = |stage, kind, slack| Watched { stage, kind, slack, watch: Watch::new(now) };
        let inputs = config
            .inputs
            .keys()
            .map(|name| watched(format!("input `{name}`"), Kind::Input(metrics.input(name)), Duration::ZERO));
        let pipelines = config.pipelines.iter().filter_map(|(name, pipeline)| {
            let kind = Kind::Pipeline(
                Box::new(metrics.pipeline(name)),
                metrics.calls(name),
                beats.get(name)?.clone(),
            );
            Some(watched(format!("pipeline `{name}`"), kind, pipeline.commit_every))
        });
        let outputs = config.outputs.iter().map(|(name, output)| {
            let kind = Kind::Output(name.clone(), metrics.output(name));
            watched(format!("output `{name}`"), kind, output.timeout + output.linger)
        });
        let stages = inputs.chain(pipelines).chain(outputs).collect();
        let seen = Seen { at: now, stuck: Vec::new(), broken: BTreeMap::new() };
        let verdict = Verdict {
            seen: Arc::new(Mutex::new(seen)),
            books: Arc::new(books),
            stuck_after: config.agent.stuck_after,
        };
        Self { verdict, audit: Audit::default(), gauges: metrics, host, stages }
    }

    /// Where it leaves what it sees.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// Looks for ever.
    ///
    /// # Errors
    /// Where only a restart helps.
    pub async fn run(self) -> Result<(), Error> {
        let thread = BlockingThread::start("audit").map_err(Error::Start)?;
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut auditor = self;
        loop {
            every.tick().await;
            let look = move || {
                let looked = auditor.look(Instant::now());
                (auditor, looked)
            };
            let (back, looked) = thread.call(look).await.map_err(Error::Panic)?;
            looked?;
            auditor = back;
        }
    }

    fn look(&mut self, now: Instant) -> Result<(), Error> {
        let store = self.verdict.books.store.clone();
        let fallen = |thread, fallen: Option<String>| {
            fallen.map_or(Ok(()), |reason| Err(Error::Thread { thread, reason }))
        };
        fallen("store-prepare", store.fallen())?;
        fallen("module-clock", self.host.fallen())?;
        self.check()?;
        let stuck_after = self.verdict.stuck_after;
        let mut stuck = Vec::new();
        for watched in &mut self.stages {
            stuck.extend(watched.look(&store, stuck_after, now)?);
        }
        let mut seen = self.verdict.seen();
        for new in stuck.iter().filter(|new| seen.stuck.iter().all(|old| old.stage != new.stage)) {
            error!(stage = new.stage, cause = new.cause, "stage is stuck");
        }
        *seen = Seen { at: now, stuck, broken: self.audit.broken() };
        Ok(())
    }

    fn check(&mut self) -> Result<(), store::Error> {
        let missing = self.verdict.books.missing()?;
        for finding in self.audit.check(&missing) {
            match finding {
                Finding::Broken(equation, records) => {
                    error!(equation, records, "ledger does not balance: records are lost or counted twice");
                    self.gauges.imbalance(&equation).imbalance_records.set(records);
                }
                Finding::Mended(equation) => {
                    info!(equation, "ledger balances again");
                    self.gauges.imbalance(&equation).imbalance_records.set(0);
                }
            }
        }
        Ok(())
    }
}

impl Watched {
    fn look(
        &mut self,
        store: &Store,
        stuck_after: Duration,
        now: Instant,
    ) -> Result<Option<Stuck>, store::Error> {
        let (sign, slack, cause) = self.kind.sign(store)?;
        let still = self.watch.look(sign, now);
        let limit = stuck_after + self.slack + slack;
        let stuck = still > limit;
        let stage = self.stage.clone();
        Ok(stuck.then(|| Stuck { stage, cause: format!("{cause} for {} s", still.as_secs()) }))
    }
}

impl Kind {
    /// What is seen of it, what it may take beyond its slack, and what it would mean if it stood still.
    fn sign(&self, store: &Store) -> Result<(Sign, Duration, String), store::Error> {
        Ok(match self {
            Self::Input(metrics) => {
                let in_flight = unsigned(&metrics.in_flight_messages);
                let pending = in_flight > 0 && !store.append_waits();
                let sign = Sign { pending, progress: metrics.journaled_messages.get() };
                (sign, Duration::ZERO, format!("{in_flight} messages in flight, none became durable"))
            }
            Self::Pipeline(metrics, calls, beat) => {
                let position = unsigned(&metrics.position_messages);
                let behind = store.journal_end().saturating_sub(position);
                // A module's call is bounded: each one that ends is progress.
                let calls = calls.module_micros.get().wrapping_add(calls.module_traps.get());
                if behind > 0
                    && !store.commit_waits()
                    && metrics.blocked.get() == 0
                    && metrics.paused.get() == 0
                {
                    let moved = position.wrapping_add(metrics.commits.get());
                    let sign = Sign { pending: true, progress: moved.wrapping_add(calls) };
                    let cause =
                        format!("{behind} messages behind the journal's end, its position did not move");
                    (sign, Duration::ZERO, cause)
                } else {
                    let sign = Sign { pending: true, progress: beat.count().wrapping_add(calls) };
                    (sign, Duration::ZERO, "no sign of life".to_owned())
                }
            }
            Self::Output(name, metrics) => {
                let pending = store.pending(name)?;
                let put_off = Duration::from_millis(unsigned(&metrics.put_off_millis));
                let sign = Sign { pending: pending > 0, progress: metrics.attempts.get() };
                (sign, put_off, format!("{pending} results pending, no attempt was made"))
            }
        })
    }
}

#[cfg(test)]
mod tests;
