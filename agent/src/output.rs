//! Sends what is due to one destination, in order; what is live first.
//!
//! Owns the HTTP client of one `[output.NAME]`, the judgement of answers, and the pace of
//! attempts. The outboxes stay the store's: a batch begun there keeps its bounds until it is
//! confirmed, whatever happens here.
//!
//! Invariants:
//! - One attempt is under way at a time. Results of ordered pipelines arrive in the order of their
//!   numbers.
//! - Every attempt for a batch carries the same bytes and the same `Idempotency-Key`.
//! - A result leaves the outbox only confirmed, or dead-lettered because the destination refused
//!   it alone with 400, 413 or 422. Nothing else, however long it lasts, drops anything.
//!
//! Pipelines with `priority = "live"` have an outbox of their own. Once the destination takes
//! batches and that outbox holds more than [`LIVE_BATCHES`] of them, it is cut one batch before
//! its end: what follows goes first, and the old rest drains beside it, at least every second
//! attempt. A batch there that fails `breaker_failures` times is cut off as well, up to
//! [`GONE_AROUND_MAX`], and goes on being sent at the pace of slow retries while what is behind
//! it overtakes it.
//!
//! Late readings have an outbox of their own as well, which is sent in order beside the others.
//!
//! Where order is kept, nothing overtakes: a destination that answers one particular batch with
//! 5xx for ever holds up those behind it, in that outbox only. It is not narrowed for that. A 5xx
//! does not say that nothing was stored (a proxy's 504 comes after the commit as well as before),
//! so other bounds, which are other keys, could count twice; and sent around, later results would
//! come before earlier ones of their key.
//!
//! Narrowing makes batches with bounds of their own, and so keys of their own. That is right
//! because the larger batch was refused as a whole: nothing of it is stored under the old key.
//! Where that was a lie (a proxy's 413 for bytes that an earlier, unanswered attempt had
//! delivered), results reach the destination twice, under two keys. The own collector takes
//! results by their identity, not by their batch, so there they count once; with
//! `expect = "status"` it is the backend's matter, as after any answer that got lost.
//!
//! Limits: one batch in memory, as lines and as a body; an answer is read up to 64 KiB; every
//! wait has an end in [`Config`]. A backlog drains at one batch (`results_max`, `bytes_max`) for
//! each answer's latency and the two syncs that begin and confirm it. The outbox of live
//! pipelines is cut into [`STRETCHES_MAX`](crate::store::STRETCHES_MAX) stretches at most; then
//! its newest results wait in order until one of them has arrived.
//!
//! A crash here costs the attempt under way: the batch goes out again under the same key.

mod alarm;
mod backoff;
mod breaker;
mod client;
mod config;
mod encode;
mod judge;
mod lanes;
mod outbox;
mod parcel;
mod portion;
#[cfg(test)]
mod tests;

pub use config::{Compression, Config, Expect};
pub use outbox::Outbox;

use crate::blocking::{BlockingThread, ThreadError};
use crate::flow::{Seq, Timestamp};
use crate::metrics;
use crate::roster::RosterReader;
use crate::secret::{self, Revealed};
use crate::store::{self, Store};
use alarm::Alarm;
use breaker::Breaker;
use client::Client;
use judge::{Fault, Pace, Terms, Verdict};
use lanes::{Lanes, Turn};
use parcel::{Parcel, Parcels};
use portion::Portion;
use std::mem::{Discriminant, discriminant};
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// A token that was refused is looked at so many times within `backoff_max` for a change.
const TOKEN_LOOKS: u32 = 8;
/// Batches that live pipelines may have waiting before the newest goes first.
const LIVE_BATCHES: usize = 2;
/// Stretches of live results up to which a batch that fails again and again is cut off: in an
/// outage all fail alike, and room must be left to cut off the backlog after it.
const GONE_AROUND_MAX: usize = store::STRETCHES_MAX / 2;
/// A lane whose results could not be read after all is looked at again after this.
const NOTHING_READ: Duration = Duration::from_millis(100);
/// Longer than any agent runs.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

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
    #[error("failed to set up the HTTP client of output {output}")]
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
    /// There is no thread for it.
    #[error(transparent)]
    Thread(ThreadError),
    /// A batch cannot be compressed.
    #[error("failed to compress a batch of output {output}: is there memory left?")]
    Encode {
        /// Name of the output.
        output: String,
        /// What the compressor said.
        source: std::io::Error,
    },
}

/// Sends one output's batches.
#[derive(Debug)]
pub struct HttpOutput<O = Store> {
    config: Config,
    client: Client,
    parcels: Parcels<O>,
    metrics: metrics::Output,
    lanes: Lanes,
    /// The batch of the last attempt, while it is to be sent again.
    held: Option<Parcel>,
    /// What the destination refused the last time, where credentials were at fault.
    refused_token: Option<Option<Revealed>>,
    breaker: Breaker,
    alarm: Alarm<Discriminant<Fault>>,
    /// Failed attempts in a row.
    failures: u32,
    /// The next attempt comes not before.
    due: Instant,
}

impl<O: Outbox> HttpOutput<O> {
    /// Checks the configuration, builds the HTTP client, and reads the token once to see that it
    /// can be read. `agent` is the first part of every key.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Token`], [`Error::Client`] or [`Error::Store`].
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
        let outboxes = outbox.outboxes(name).map_err(|source| Error::Store { output: output(), source })?;
        let parcels = Parcels {
            output: name.into(),
            agent: agent.into(),
            compression: config.compression,
            thread: BlockingThread::start(&format!("output-{name}")).map_err(Error::Thread)?,
            outbox,
            outboxes: outboxes.into(),
        };
        let lanes = Lanes::new(Portion::new(config.results_max, config.bytes_max), parcels.live());
        Ok(Self {
            client,
            parcels,
            metrics,
            lanes,
            held: None,
            refused_token: None,
            breaker: Breaker::new(config.breaker_failures),
            alarm: Alarm::new(),
            failures: 0,
            due: Instant::now(),
            config,
        })
    }

    /// Runs until `shutdown` turns true or its sender is gone; an attempt under way may then end
    /// within `drain`. Whenever the roster changes it looks for outboxes that new pipelines have brought.
    ///
    /// # Errors
    ///
    /// Only where a restart helps: the store has failed.
    pub async fn run(
        mut self,
        roster: RosterReader,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut changed = OutboxWatch { outboxes: self.parcels.changed(), roster, is_stale: true };
        while self.step(&mut changed, &mut shutdown).await?.is_continue() {}
        Ok(())
    }

    /// One attempt for the lane whose turn it is, or the wait until there is one.
    async fn step(
        &mut self,
        changed: &mut OutboxWatch,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<ControlFlow<()>, Error> {
        self.look(changed).await?;
        if self.pause(changed, shutdown).await?.is_break() {
            return Ok(Break(()));
        }
        let lane = match self.lanes.next(Instant::now()) {
            Turn::Of(lane) => lane,
            Turn::Not(due) => {
                self.rest(due.saturating_duration_since(Instant::now()));
                return self.idle(due, changed, shutdown).await;
            }
            Turn::Nothing => {
                let idle = self.idle(Instant::now() + FOREVER, changed, shutdown).await?;
                return Ok(if idle.is_break() { Break(()) } else { self.linger(shutdown).await });
            }
        };
        let Some(parcel) = self.parcel(lane).await? else { return Ok(Continue(())) };
        let Continue((verdict, token)) = self.attempt(&parcel, shutdown).await else {
            return Ok(Break(()));
        };
        match verdict {
            Verdict::Confirmed => self.confirmed(lane, parcel).await?,
            Verdict::Retry { fault, pace, after } => {
                self.refused_token = fault.is_about_credentials().then_some(token);
                self.put_off(lane, &fault, pace, after);
                self.go_around(lane, &parcel, &fault).await?;
                self.held = Some(parcel);
            }
            Verdict::Refused { fault } => match self.narrower(lane, &parcel, &fault) {
                Some(results) => self.held = Some(self.parcels.narrow(&parcel, results).await?),
                None => self.refused(lane, parcel, fault).await?,
            },
        }
        Ok(Continue(()))
    }

    /// Brings the lanes and the metric in line with the outboxes.
    async fn look(&mut self, changed: &mut OutboxWatch) -> Result<(), Error> {
        if std::mem::take(&mut changed.is_stale) && self.parcels.find_outboxes().await? {
            changed.outboxes = self.parcels.changed();
            self.lanes.set_live(self.parcels.live());
        }
        changed.seen();
        let stretches = self.parcels.stretches().await?;
        self.lanes.follow(&stretches, Instant::now());
        self.count();
        Ok(())
    }

    /// Until then, or until there are new results.
    async fn idle(
        &self,
        until: Instant,
        changed: &mut OutboxWatch,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<ControlFlow<()>, Error> {
        tokio::select! {
            biased;
            () = stopped(shutdown) => return Ok(Break(())),
            () = tokio::time::sleep_until(until.into()) => {}
            changed = changed.changed() => changed.map_err(|_| self.parcels.store_gone())?,
        }
        Ok(Continue(()))
    }

    async fn linger(&self, shutdown: &mut watch::Receiver<bool>) -> ControlFlow<()> {
        tokio::select! {
            biased;
            () = stopped(shutdown) => Break(()),
            () = tokio::time::sleep(self.config.linger) => Continue(()),
        }
    }

    /// The batch of the lane: that of the last attempt if it is the same, else from the outbox.
    async fn parcel(&mut self, lane: usize) -> Result<Option<Parcel>, Error> {
        let lane = self.lanes.lane(lane);
        let held = self.held.take();
        if let Some(held) = held
            && (held.outbox, held.batch.range.start) == (lane.outbox, lane.pending.start)
        {
            return Ok(Some(held));
        }
        let begun = self.parcels.begin(lane.outbox, lane.pending.start, lane.portion.next()).await?;
        match &begun {
            Some(parcel) => lane.pending.start = parcel.batch.range.start,
            // Nothing to read after all: not to be asked for again and again.
            None => lane.due = Instant::now() + self.config.linger.max(NOTHING_READ),
        }
        Ok(begun)
    }

    /// Until the next attempt is due; when credentials are at fault, no longer than until there
    /// are others.
    async fn pause(
        &mut self,
        changed: &mut OutboxWatch,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<ControlFlow<()>, Error> {
        loop {
            let now = Instant::now();
            let left = self.breaker.admit(now).max(self.due.saturating_duration_since(now));
            self.rest(left);
            if left.is_zero() {
                return Ok(if *shutdown.borrow() { Break(()) } else { Continue(()) });
            }
            let look = match &self.refused_token {
                Some(_) => left.min(self.config.backoff_max / TOKEN_LOOKS).max(Duration::from_millis(1)),
                None => left,
            };
            tokio::select! {
                biased;
                () = stopped(shutdown) => return Ok(Break(())),
                () = tokio::time::sleep(look) => if let Some(last) = &self.refused_token
                    && self.token().await.is_ok_and(|token| token != *last)
                {
                    self.due = Instant::now();
                    self.lanes.all_due(self.due);
                },
                changed_now = changed.changed() => {
                    changed_now.map_err(|_| self.parcels.store_gone())?;
                    self.look(changed).await?;
                }
            }
        }
    }

    /// Sends it once. Shutdown cuts it short after `drain`.
    async fn attempt(
        &mut self,
        parcel: &Parcel,
        shutdown: &mut watch::Receiver<bool>,
    ) -> ControlFlow<(), (Verdict, Option<Revealed>)> {
        let drain = self.config.drain;
        let once = async {
            let token = match self.token().await {
                Ok(token) => token,
                Err(error) => {
                    let verdict =
                        Verdict::Retry { fault: error.into(), pace: Pace::Slow, after: Duration::ZERO };
                    return (verdict, None);
                }
            };
            self.metrics.attempts.inc();
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
            () = overdue(shutdown, drain) => Break(()),
        }
    }

    async fn token(&self) -> Result<Option<Revealed>, secret::Error> {
        match &self.config.token {
            Some(token) => token.read_token_aside().await.map(Some),
            None => Ok(None),
        }
    }

    async fn confirmed(&mut self, lane: usize, parcel: Parcel) -> Result<(), Error> {
        let (results, bytes, range) = (parcel.len(), parcel.body.len(), parcel.batch.range.clone());
        crate::fail::point("output.confirming");
        self.parcels.confirm(parcel, None).await?;
        let linger = self.config.linger;
        let lane = self.lanes.lane(lane);
        lane.portion.confirmed(&range);
        lane.arrived(range.end, Instant::now() + linger);
        let backlog = (lane.outbox, lane.overtaken(self.config.results_max, LIVE_BATCHES));
        self.metrics.delivered_results.inc_by(results);
        self.metrics.delivered_batches.inc();
        self.metrics.delivered_bytes.inc_by(bytes as u64);
        self.count();
        self.alive();
        if self.alarm.succeeded(Instant::now()) {
            let pending = self.lanes.pending();
            info!(output = %self.parcels.output, pending, "delivery works again");
        }
        if let (outbox, Some(at)) = backlog
            && self.parcels.cut(outbox, at).await?
        {
            self.lanes.begin_anew();
            info!(output = %self.parcels.output, at, "live results overtake the backlog before them");
        }
        Ok(())
    }

    /// The same bytes again, later.
    fn put_off(&mut self, lane: usize, fault: &Fault, pace: Pace, after: Duration) {
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
        let lane = self.lanes.lane(lane);
        lane.failures = lane.failures.saturating_add(1);
        // Others succeeded meanwhile: it is this batch, not the destination.
        let is_stuck = lane.failures >= self.config.breaker_failures && lane.failures > self.failures;
        lane.due = if is_stuck { now + slow } else { self.due };
        let pending = self.lanes.pending();
        self.metrics.failed_attempts.inc();
        self.metrics.breaker_open.set(self.breaker.is_open().into());
        if self.alarm.failed(now, discriminant(fault)) {
            let (output, destination) = (&self.parcels.output, self.config.destination());
            let wait_ms = (after + wait).as_millis();
            warn!(%output, %destination, failures = self.failures, pending, wait_ms, %fault, "delivery failed, the same batch is sent again");
        }
    }

    /// Lets what is behind a live batch that fails and fails overtake it: it may be the batch.
    async fn go_around(&mut self, lane: usize, parcel: &Parcel, fault: &Fault) -> Result<(), Error> {
        let is_room = self.lanes.beside(lane) < GONE_AROUND_MAX;
        let lane = self.lanes.lane(lane);
        let is_stuck = lane.failures >= self.config.breaker_failures && fault.is_an_answer();
        if lane.is_live()
            && is_stuck
            && is_room
            && self.parcels.cut(parcel.outbox, parcel.batch.range.end).await?
        {
            let (output, key) = (&self.parcels.output, &parcel.key);
            warn!(%output, %key, %fault, "batch failed again and again, live results overtake it");
        }
        Ok(())
    }

    /// How many of its results to try instead; none when it has but one.
    fn narrower(&mut self, lane: usize, parcel: &Parcel, fault: &Fault) -> Option<usize> {
        self.alive();
        let range = &parcel.batch.range;
        let lane = self.lanes.lane(lane);
        lane.failures = 0;
        let results = match fault {
            Fault::TooLarge { .. } => lane.portion.too_large(range, parcel.bytes()),
            _ => lane.portion.refused(range),
        };
        if let Some(results) = results {
            self.metrics.failed_attempts.inc();
            debug!(output = %self.parcels.output, key = %parcel.key, results, %fault, "batch refused, trying fewer results");
        }
        results
    }

    /// A single result that the destination will never take.
    async fn refused(&mut self, lane: usize, parcel: Parcel, fault: Fault) -> Result<(), Error> {
        let now = Instant::now();
        let letter = parcel.dead_letter(fault.to_string(), Timestamp::now());
        let (key, end) = (parcel.key.clone(), parcel.batch.range.end);
        crate::fail::point("output.refused");
        self.parcels.confirm(parcel, Some(letter)).await?;
        self.metrics.rejected_results.inc();
        let lane = self.lanes.lane(lane);
        lane.arrived(end, now);
        let in_row = lane.portion.refused_in_row();
        self.count();
        if in_row >= self.config.refused_in_row_max {
            self.due = now + backoff::slow(self.config.backoff_max, fastrand::f64());
        }
        if self.alarm.failed(now, discriminant(&fault)) {
            let (output, destination) = (&self.parcels.output, self.config.destination());
            warn!(%output, %destination, %key, in_row, %fault, "result refused and dead-lettered");
        }
        Ok(())
    }

    /// The destination answered as one that lives.
    fn alive(&mut self) {
        self.failures = 0;
        self.breaker.succeeded();
        self.metrics.breaker_open.set(0);
    }

    /// No attempt is to be expected for so long: `/live` wants to know.
    fn rest(&self, left: Duration) {
        self.metrics.put_off_millis.set(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    }

    fn count(&self) {
        let pending = self.lanes.pending();
        self.metrics.pending_results.set(pending.try_into().unwrap_or(i64::MAX));
    }
}

/// Watches for new results in any outbox, and for outboxes that there may be more of.
struct OutboxWatch {
    /// At most three: the output's own, that of live pipelines and that of late readings.
    outboxes: Vec<watch::Receiver<Seq>>,
    roster: RosterReader,
    /// Outboxes may have come since they were last looked for.
    is_stale: bool,
}

impl OutboxWatch {
    fn seen(&mut self) {
        self.outboxes.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }

    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let mut outboxes = self.outboxes.iter_mut();
        tokio::select! {
            changed = grown(outboxes.next()) => changed,
            changed = grown(outboxes.next()) => changed,
            changed = grown(outboxes.next()) => changed,
            () = self.roster.changed() => {
                self.is_stale = true;
                Ok(())
            }
        }
    }
}

async fn grown(outbox: Option<&mut watch::Receiver<Seq>>) -> Result<(), watch::error::RecvError> {
    match outbox {
        Some(outbox) => outbox.changed().await,
        None => std::future::pending().await,
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
