//! Sends what is due to one destination, in order.
//!
//! Owns the HTTP client of one `[output.NAME]`, the judgement of answers, and the pace of
//! attempts. The outbox stays the store's: a batch begun there keeps its bounds until it is
//! confirmed, whatever happens here.
//!
//! Invariants:
//! - One batch is under way at a time, so results arrive in the order of their numbers.
//! - Every attempt for a batch carries the same bytes and the same `Idempotency-Key`.
//! - A result leaves the outbox only confirmed, or dead-lettered because the destination refused
//!   it alone with 400, 413 or 422. Nothing else, however long it lasts, drops anything.
//!
//! Narrowing makes batches with bounds of their own, and so keys of their own. That is right
//! because the larger batch was refused as a whole: nothing of it is stored under the old key.
//! Where that was a lie (a proxy's 413 for bytes that an earlier, unanswered attempt had
//! delivered), results reach the destination twice, under two keys. The own collector takes
//! results by their identity, not by their batch, so there they count once; with
//! `expect = "status"` it is the backend's matter, as after any answer that got lost.
//!
//! Limits: one batch in memory, as lines and as a body; an answer is read up to 64 KiB; every
//! wait has an end in [`Config`]. A destination that answers one particular batch with 5xx for
//! ever holds up those behind it, in its own output only.
//!
//! A crash here costs the attempt under way: the batch goes out again under the same key.

mod alarm;
mod backoff;
mod breaker;
mod client;
mod config;
mod encode;
mod judge;
mod outbox;
mod parcel;
mod portion;
#[cfg(test)]
mod tests;

pub use config::{Compression, Config, Expect};
pub use outbox::Outbox;

use crate::flow::{Seq, Timestamp};
use crate::metrics;
use crate::secret::{self, Revealed};
use crate::store::{self, Store};
use alarm::Alarm;
use breaker::Breaker;
use client::Client;
use judge::{Fault, Pace, Terms, Verdict};
use parcel::{Parcel, Parcels};
use portion::Portion;
use std::mem::{Discriminant, discriminant};
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// A token that was refused is looked at so many times within `backoff_max` for a change.
const TOKEN_LOOKS: u32 = 8;

/// What only a change of the configuration or a restart mends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("failed to set up output {output}: {}", faults.join("; "))]
    Config {
        /// Name of the output.
        output: String,
        /// Everything that is wrong with it.
        faults: Vec<String>,
    },
    /// The token cannot be read at start.
    #[error("failed to set up output {output}")]
    Token {
        /// Name of the output.
        output: String,
        /// Which token, and why.
        source: secret::Error,
    },
    /// There is no HTTP client.
    #[error(
        "failed to set up the HTTP client of output {output}: are the system's CA certificates installed?"
    )]
    Client {
        /// Name of the output.
        output: String,
        /// What the client said.
        source: client::BuildError,
    },
    /// The outbox cannot be used any more.
    #[error("failed to use the outbox of output {output}")]
    Store {
        /// Name of the output.
        output: String,
        /// What the store said.
        source: store::Error,
    },
    /// The store panicked or was closed.
    #[error("failed to go on with output {output}: its store has stopped")]
    StoreGone {
        /// Name of the output.
        output: String,
    },
    /// A batch cannot be compressed.
    #[error("failed to compress a batch of output {output}: is there memory left?")]
    Encode {
        /// Name of the output.
        output: String,
        /// What the compressor said.
        source: std::io::Error,
    },
}

/// Sends one output's batches in order.
#[derive(Debug)]
pub struct Forward<O = Store> {
    config: Config,
    client: Client,
    parcels: Parcels<O>,
    metrics: metrics::Output,
    portion: Portion,
    breaker: Breaker,
    alarm: Alarm<Discriminant<Fault>>,
    /// Failed attempts in a row.
    failures: u32,
    /// The next attempt comes not before.
    due: Instant,
}

impl<O: Outbox> Forward<O> {
    /// Checks the configuration, builds the HTTP client, and reads the token once to see that it
    /// can be read. `agent` is the first part of every key.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Token`] or [`Error::Client`].
    pub fn build(
        name: &str,
        agent: &str,
        config: Config,
        outbox: O,
        metrics: metrics::Output,
    ) -> Result<Self, Error> {
        let output = || name.to_owned();
        let mut faults = config.faults();
        if agent.is_empty() || !agent.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
        {
            faults.push("agent.id must be visible ASCII without quotes and backslashes".to_owned());
        }
        if !faults.is_empty() {
            return Err(Error::Config { output: output(), faults });
        }
        if let Some(token) = &config.token {
            token.read_token().map_err(|source| Error::Token { output: output(), source })?;
        }
        let client = Client::build(&config).map_err(|source| Error::Client { output: output(), source })?;
        let parcels =
            Parcels { output: name.into(), agent: agent.into(), compression: config.compression, outbox };
        Ok(Self {
            client,
            parcels,
            metrics,
            portion: Portion::new(config.results_max, config.bytes_max),
            breaker: Breaker::new(config.breaker_failures),
            alarm: Alarm::new(),
            failures: 0,
            due: Instant::now(),
            config,
        })
    }

    /// Runs until `shutdown` turns true or its sender is gone; an attempt under way may then end
    /// within `drain`.
    ///
    /// # Errors
    ///
    /// Only where a restart helps: the store has failed.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let mut changed = self.parcels.outbox.outbox_changed(&self.parcels.output);
        let mut next = Continue(());
        while next.is_continue() {
            changed.borrow_and_update();
            next = match self.parcels.begin(self.portion.next()).await? {
                None => self.idle(&mut changed, &mut shutdown).await?,
                Some(parcel) => {
                    let is_last = parcel.is_last();
                    match self.deliver(parcel, &mut changed, &mut shutdown).await? {
                        Continue(()) if is_last => self.linger(&mut shutdown).await,
                        next => next,
                    }
                }
            };
        }
        Ok(())
    }

    /// Until there are new results, and some more to go with them.
    async fn idle(
        &self,
        changed: &mut watch::Receiver<Seq>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<ControlFlow<()>, Error> {
        tokio::select! {
            biased;
            () = stopped(shutdown) => return Ok(Break(())),
            changed = changed.changed() => changed.map_err(|_| self.parcels.store_gone())?,
        }
        Ok(self.linger(shutdown).await)
    }

    async fn linger(&self, shutdown: &mut watch::Receiver<bool>) -> ControlFlow<()> {
        tokio::select! {
            biased;
            () = stopped(shutdown) => Break(()),
            () = tokio::time::sleep(self.config.linger) => Continue(()),
        }
    }

    /// One batch, or the first of the smaller ones it is narrowed to, until it is done with.
    async fn deliver(
        &mut self,
        mut parcel: Parcel,
        changed: &mut watch::Receiver<Seq>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<ControlFlow<()>, Error> {
        self.count(parcel.pending);
        let mut last_token = None;
        loop {
            if self.pause(last_token.take(), changed, shutdown).await?.is_break() {
                return Ok(Break(()));
            }
            let Continue((verdict, token)) = self.attempt(&parcel, shutdown).await else {
                return Ok(Break(()));
            };
            match verdict {
                Verdict::Confirmed => {
                    self.confirmed(parcel).await?;
                    return Ok(Continue(()));
                }
                Verdict::Retry { fault, pace, after } => {
                    self.put_off(&fault, pace, after, parcel.pending);
                    last_token = fault.is_about_credentials().then_some(token);
                }
                Verdict::Refused { fault } => match self.narrower(&parcel, &fault) {
                    Some(results) => parcel = self.parcels.narrow(results).await?,
                    None => {
                        self.refused(parcel, fault).await?;
                        return Ok(Continue(()));
                    }
                },
            }
        }
    }

    /// Until the next attempt is due; when credentials are at fault (`last_token`: those of the
    /// last attempt), no longer than until there are others.
    async fn pause(
        &mut self,
        last_token: Option<Option<Revealed>>,
        changed: &mut watch::Receiver<Seq>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<ControlFlow<()>, Error> {
        loop {
            let now = Instant::now();
            let left = self.breaker.admit(now).max(self.due.saturating_duration_since(now));
            if left.is_zero() {
                return Ok(if *shutdown.borrow() { Break(()) } else { Continue(()) });
            }
            let look = match &last_token {
                Some(_) => left.min(self.config.backoff_max / TOKEN_LOOKS).max(Duration::from_millis(1)),
                None => left,
            };
            tokio::select! {
                biased;
                () = stopped(shutdown) => return Ok(Break(())),
                () = tokio::time::sleep(look) => if let Some(last) = &last_token
                    && self.token().await.is_ok_and(|token| token != *last)
                {
                    self.due = Instant::now();
                },
                changed = changed.changed() => {
                    changed.map_err(|_| self.parcels.store_gone())?;
                    self.count(self.parcels.pending().await?);
                }
            }
        }
    }

    /// Sends it once. Shutdown cuts it short after `drain`.
    async fn attempt(
        &self,
        parcel: &Parcel,
        shutdown: &mut watch::Receiver<bool>,
    ) -> ControlFlow<(), (Verdict, Option<Revealed>)> {
        let once = async {
            let token = match self.token().await {
                Ok(token) => token,
                Err(error) => {
                    let verdict =
                        Verdict::Retry { fault: error.into(), pace: Pace::Slow, after: Duration::ZERO };
                    return (verdict, None);
                }
            };
            let outcome = self.client.post(&parcel.key, parcel.body.clone(), token.as_ref()).await;
            let terms = Terms {
                expect: self.config.expect,
                key: &parcel.key,
                now: Timestamp::now(),
                retry_after_max: self.config.retry_after_max,
            };
            (judge::judge(outcome, &terms), token)
        };
        tokio::select! {
            biased;
            done = once => Continue(done),
            () = overdue(shutdown, self.config.drain) => Break(()),
        }
    }

    async fn token(&self) -> Result<Option<Revealed>, secret::Error> {
        match &self.config.token {
            Some(token) => token.read_token_aside().await.map(Some),
            None => Ok(None),
        }
    }

    async fn confirmed(&mut self, parcel: Parcel) -> Result<(), Error> {
        let (results, bytes) = (parcel.len(), parcel.body.len());
        self.portion.confirmed(&parcel.batch.range);
        crate::fail::point("forward.confirming");
        let pending = self.parcels.confirm(parcel.batch.range, None).await?;
        self.metrics.delivered_results.inc_by(results);
        self.metrics.delivered_batches.inc();
        self.metrics.delivered_bytes.inc_by(bytes as u64);
        self.count(pending);
        self.alive();
        if self.alarm.succeeded(Instant::now()) {
            info!(output = %self.parcels.output, pending, "delivery works again");
        }
        Ok(())
    }

    /// The same bytes again, later.
    fn put_off(&mut self, fault: &Fault, pace: Pace, after: Duration, pending: u64) {
        let now = Instant::now();
        let slow = backoff::slow(self.config.backoff_max, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        match pace {
            Pace::Gone => self.breaker.failed(now, slow),
            Pace::Busy | Pace::Slow => self.breaker.succeeded(),
        }
        let wait = match pace {
            Pace::Slow => slow,
            Pace::Gone | Pace::Busy => {
                let (min, max) = (self.config.backoff_min, self.config.backoff_max);
                backoff::full_jitter(self.failures, min, max, fastrand::f64())
            }
        };
        // On top of what the destination asked for: it asks the same of everybody.
        self.due = now + after + wait;
        self.metrics.failed_attempts.inc();
        self.metrics.breaker_open.set(self.breaker.is_open().into());
        if self.alarm.failed(now, discriminant(fault)) {
            let (output, destination) = (&self.parcels.output, self.config.destination());
            let wait_ms = (after + wait).as_millis();
            warn!(%output, %destination, failures = self.failures, pending, wait_ms, %fault, "delivery failed, the same batch is sent again");
        }
    }

    /// How many of its results to try instead; none when it has but one.
    fn narrower(&mut self, parcel: &Parcel, fault: &Fault) -> Option<usize> {
        self.alive();
        let range = &parcel.batch.range;
        let results = match fault {
            Fault::TooLarge { .. } => self.portion.too_large(range, parcel.bytes()),
            _ => self.portion.refused(range),
        };
        if let Some(results) = results {
            self.metrics.failed_attempts.inc();
            debug!(output = %self.parcels.output, key = parcel.key, results, %fault, "batch refused, trying fewer results");
        }
        results
    }

    /// A single result that the destination will never take.
    async fn refused(&mut self, parcel: Parcel, fault: Fault) -> Result<(), Error> {
        let now = Instant::now();
        let letter = parcel.dead_letter(fault.to_string(), Timestamp::now());
        crate::fail::point("forward.refused");
        let pending = self.parcels.confirm(parcel.batch.range, Some(letter)).await?;
        self.metrics.rejected_results.inc();
        self.count(pending);
        let in_row = self.portion.refused_in_row();
        if in_row >= self.config.refused_in_row_max {
            self.due = now + backoff::slow(self.config.backoff_max, fastrand::f64());
        }
        if self.alarm.failed(now, discriminant(&fault)) {
            let (output, destination) = (&self.parcels.output, self.config.destination());
            warn!(%output, %destination, key = parcel.key, in_row, %fault, "result refused and dead-lettered");
        }
        Ok(())
    }

    /// The destination answered as one that lives.
    fn alive(&mut self) {
        self.failures = 0;
        self.breaker.succeeded();
        self.metrics.breaker_open.set(0);
    }

    fn count(&self, pending: u64) {
        self.metrics.pending_results.set(pending.try_into().unwrap_or(i64::MAX));
    }
}

/// When `shutdown` is true or nobody is left to say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

async fn overdue(shutdown: &mut watch::Receiver<bool>, drain: Duration) {
    stopped(shutdown).await;
    tokio::time::sleep(drain).await;
}
