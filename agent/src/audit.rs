//! Looks after the running agent, every [`LOOK_EVERY`]: that the ledger balances, that every stage goes on, that the
//! threads which are no stages still run.
//!
//! It only reads counters and asks the store, so it disturbs nobody. What it sees is what `/live`
//! and `/status` answer. Were it stuck itself, `/live` would say so.

mod reader;
mod signs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::{error, info};

use crate::blocking::{BlockingThread, ThreadError};
use crate::ledger::{LedgerAudit, LedgerFinding};
use crate::liveness::StandstillWatch;
use crate::metrics::Metrics;
use crate::module::ModuleHost;
use crate::store;
pub use reader::LedgerReader;

/// The time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A fault that only a restart mends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread is gone that others rely on.
    #[error("thread `{thread}`: {reason}")]
    Thread {
        /// Its name.
        thread: &'static str,
        /// The words of its end.
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

/// A stage that has work and does nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckStage {
    /// The stage, as the log names it.
    pub stage: String,
    /// The work that waits.
    pub cause: String,
}

/// The outcome of the last look.
#[derive(Debug)]
struct AuditResult {
    at: Instant,
    stuck: Vec<StuckStage>,
    broken: BTreeMap<String, i64>,
}

/// A handle by which others see the outcome of the last look. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditView {
    last: Arc<Mutex<AuditResult>>,
    reader: LedgerReader,
    stuck_after: Duration,
}

impl AuditView {
    /// Returns the stages that are stuck, the audit included.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Vec<StuckStage> {
        let last = self.last();
        let mut stuck = last.stuck.clone();
        if now.saturating_duration_since(last.at) > self.stuck_after {
            let cause = format!("no look for more than {:?}", self.stuck_after);
            stuck.push(StuckStage { stage: "audit".to_owned(), cause });
        }
        stuck
    }

    /// Returns the ledger as `/status` shows it.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn ledger(&self) -> Result<Value, store::Error> {
        let counts = self.reader.read()?;
        let broken = self.last().broken.clone();
        Ok(json!({ "balances": broken.is_empty(), "imbalance_records": broken, "counts": counts }))
    }

    fn last(&self) -> MutexGuard<'_, AuditResult> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of the agent that looks after the others.
#[derive(Debug)]
pub struct Auditor {
    view: AuditView,
    audit: LedgerAudit,
    metrics: Arc<Metrics>,
    host: ModuleHost,
    /// The time that each stage has stood still, by its name in the log.
    watches: BTreeMap<String, StandstillWatch>,
}

impl Auditor {
    /// Looks after all that the reader's roster lists.
    #[must_use]
    pub fn new(reader: LedgerReader, stuck_after: Duration, metrics: Arc<Metrics>, host: ModuleHost) -> Self {
        let nothing = AuditResult { at: Instant::now(), stuck: Vec::new(), broken: BTreeMap::new() };
        let view = AuditView { last: Arc::new(Mutex::new(nothing)), reader, stuck_after };
        Self { view, audit: LedgerAudit::default(), metrics, host, watches: BTreeMap::new() }
    }

    /// Returns a handle that sees the outcome of each look.
    #[must_use]
    pub fn view(&self) -> AuditView {
        self.view.clone()
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
        let fallen = |thread, fallen: Option<String>| {
            fallen.map_or(Ok(()), |reason| Err(Error::Thread { thread, reason }))
        };
        fallen("store-prepare", self.view.reader.store().fallen())?;
        fallen("module-clock", self.host.fallen())?;
        self.check()?;
        let stuck = self.stuck(now)?;
        let mut last = self.view.last();
        for new in stuck.iter().filter(|new| last.stuck.iter().all(|old| old.stage != new.stage)) {
            error!(stage = new.stage, cause = new.cause, "stage is stuck");
        }
        *last = AuditResult { at: now, stuck, broken: self.audit.broken() };
        Ok(())
    }

    /// Checks that the ledger balances.
    fn check(&mut self) -> Result<(), store::Error> {
        let missing = self.view.reader.missing()?;
        for finding in self.audit.check(&missing) {
            match finding {
                LedgerFinding::Broken(equation, records) => {
                    error!(equation, records, "ledger does not balance: records are lost or counted twice");
                    self.metrics.imbalance(&equation).imbalance_records.set(records);
                }
                LedgerFinding::Mended(equation) => {
                    info!(equation, "ledger balances again");
                    self.metrics.imbalance(&equation).imbalance_records.set(0);
                }
            }
        }
        Ok(())
    }

    /// Returns the stages that have stood still for longer than they may.
    fn stuck(&mut self, now: Instant) -> Result<Vec<StuckStage>, store::Error> {
        let signs = signs::all(self.view.reader.store(), &self.view.reader.roster())?;
        let stages: BTreeSet<String> = signs.iter().map(|sign| sign.stage.clone()).collect();
        self.watches.retain(|stage, _| stages.contains(stage));
        let mut stuck = Vec::new();
        for sign in signs {
            let watch = self.watches.entry(sign.stage.clone()).or_insert_with(|| StandstillWatch::new(now));
            let still = watch.look(sign.progress, now);
            if still > self.view.stuck_after + sign.slack {
                let cause = format!("{} for {} s", sign.cause, still.as_secs());
                stuck.push(StuckStage { stage: sign.stage, cause });
            }
        }
        Ok(stuck)
    }
}

#[cfg(test)]
mod tests;
