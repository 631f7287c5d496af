//! The overflow policy of a pipeline: at the quota of its outbox, and for records that are too old.
//!
//! | policy | at the quota |
//! | --- | --- |
//! | `block` | the commit waits; the pipeline reads no further, and the journal fills |
//! | `drop-newest` | results are not appended but counted, and reported once there is room |
//! | `drop-oldest` | a segment's worth of the pipeline's oldest results goes, one report in its place |
//! | `coarsen` | adjacent windows of a key are merged, pairs first, then pairs of pairs; then `drop-oldest` |
//!
//! With the outbox of the late output it is the same, but that nothing is merged.
//!
//! Where `drop-oldest` finds nothing of the pipeline's own that may go, the newest are dropped. Other
//! pipelines' results are never touched.
//!
//! **A crash here** forgets how far coarsening had come, which costs a look at each segment.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{info, warn};

use super::tally::LossTally;
use super::thin::{self, RecordKind, RecordOwner, WindowMerge};
use crate::flow::{ReportKind, Seq, Timestamp};
use crate::metrics;
use crate::store::{self, CLOCK_SET, PendingRecord, Store, ThinOutcome};

/// Merging doubles the width of windows at most so often.
const LEVELS_MAX: usize = 16;
/// The outbox counts as full until it had room for so long.
const ROOM_FOR: Duration = Duration::from_secs(30);
/// Records older than `age_max` by this part of it are dropped: so often there is a report at most.
const AGE_PARTS: u32 = 16;

/// The policy of a pipeline for a full outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits, and loses nothing.
    #[default]
    Block,
    /// Gives up its oldest results.
    DropOldest,
    /// Gives up new results.
    DropNewest,
    /// Merges windows into wider ones, up to a bound; then gives up the oldest.
    Coarsen,
}

/// A pipeline's own bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverflowBounds {
    pub(super) policy: WhenFull,
    /// Length of a window as it is made, in microseconds.
    pub(super) window: u64,
    /// Length that merging may give it at most.
    pub(super) widest: u64,
    /// Results older than this that are not delivered are given up.
    pub(super) age_max: Option<Duration>,
}

/// The way on for a commit that found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverflowRelief {
    /// There may be room now.
    Again,
    /// Only time helps.
    Wait,
    /// Commit without the results.
    Drop,
}

/// The policy of a pipeline at one outbox, and how far it has come there.
#[derive(Debug)]
pub(super) struct OverflowPolicyState {
    bounds: OverflowBounds,
    /// As committed.
    pub(super) tally: LossTally,
    metrics: metrics::Pipeline,
    counters: LossCounters,
    /// Before this nothing of the pipeline's own is left to drop.
    dropped: Seq,
    /// Before this all is merged, by how often the width was doubled.
    merged: [Seq; LEVELS_MAX],
    /// When it last was full.
    since: Option<Instant>,
    looked: Instant,
}

/// The place of the pipeline's records in the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutboxPlace<'a> {
    pub(super) store: &'a Store,
    pub(super) outbox: &'a str,
    /// The name under which the outbox knows them.
    pub(super) writer: &'a str,
    pub(super) owner: RecordOwner<'a>,
}

/// Counters of the records that are gone.
#[derive(Debug)]
struct LossCounters {
    dropped: Counter,
    expired: Counter,
    reports: Gauge,
}

impl LossCounters {
    fn new(kind: RecordKind, metrics: &metrics::Pipeline) -> Self {
        match kind {
            RecordKind::Results => Self {
                dropped: metrics.dropped_results.clone(),
                expired: metrics.expired_results.clone(),
                reports: metrics.report_lines.clone(),
            },
            RecordKind::Late => Self {
                dropped: metrics.dropped_late_events.clone(),
                expired: metrics.expired_late_events.clone(),
                reports: metrics.late_report_lines.clone(),
            },
        }
    }
}

impl OverflowPolicyState {
    pub(super) fn new(
        kind: RecordKind,
        bounds: OverflowBounds,
        tally: LossTally,
        metrics: metrics::Pipeline,
    ) -> Self {
        let state = Self {
            bounds,
            tally,
            counters: LossCounters::new(kind, &metrics),
            metrics,
            dropped: 0,
            merged: [0; LEVELS_MAX],
            since: None,
            looked: Instant::now(),
        };
        state.count(&LossTally::default());
        state
    }

    /// Does what helps now that there is no room.
    pub(super) fn relieve(
        &mut self,
        place: OutboxPlace<'_>,
        aggregate: Option<&mut impl WindowMerge>,
    ) -> Result<OverflowRelief, store::Error> {
        if self.since.replace(Instant::now()).is_none() {
            let pipeline = place.owner.pipeline;
            let outbox = place.outbox;
            let policy = self.bounds.policy;
            warn!(pipeline, outbox, ?policy, "outbox has reached its quota");
        }
        let expired = self.tally.expired;
        self.expire(place)?;
        if self.tally.expired > expired {
            return Ok(OverflowRelief::Again);
        }
        match self.bounds.policy {
            WhenFull::Block => {
                self.metrics.blocked.set(1);
                Ok(OverflowRelief::Wait)
            }
            WhenFull::DropNewest => Ok(OverflowRelief::Drop),
            WhenFull::DropOldest => self.drop_oldest(place),
            WhenFull::Coarsen => match aggregate {
                Some(aggregate) => self.coarsen(place, aggregate),
                None => self.drop_oldest(place),
            },
        }
    }

    /// Takes note of a commit that had room, or needed none.
    pub(super) fn committed(&mut self, tally: LossTally, pipeline: &str) {
        self.metrics.blocked.set(0);
        self.set(tally);
        if self.since.is_some_and(|since| since.elapsed() >= ROOM_FOR) {
            self.since = None;
            info!(pipeline, "outbox has room again");
        }
    }

    /// Drops records that are too old, if it is time to look.
    pub(super) fn expire(&mut self, place: OutboxPlace<'_>) -> Result<(), store::Error> {
        let Some(age_max) = self.bounds.age_max else { return Ok(()) };
        let every = (age_max / AGE_PARTS).clamp(Duration::from_millis(100), Duration::from_mins(10));
        if self.looked.elapsed() < every {
            return Ok(());
        }
        self.looked = Instant::now();
        let now = place.owner.now;
        if now < place.store.newest(place.outbox)? {
            return Ok(());
        }
        let oldest = now.before(age_max);
        let due = now.before(age_max + every);
        place.store.seal_made_before(place.outbox, due)?;
        let is_old = |made: Timestamp, limit| (CLOCK_SET..limit).contains(&made);
        let mut from = 0;
        loop {
            let tally = self.tally;
            let mut next = None;
            let mut young = false;
            let thinned = place.store.thin(place.outbox, place.writer, from, &mut |records| {
                young = records.last().is_some_and(|record| record.made >= oldest);
                records.iter().any(|record| is_old(record.made, due)).then_some(())?;
                let is_old = |record: &PendingRecord| is_old(record.made, oldest);
                let (replacement, tally) =
                    thin::drop(records, place.owner, ReportKind::Expired, &tally, is_old)?;
                next = Some(tally);
                Some(replacement)
            })?;
            match thinned {
                ThinOutcome::Fewer(after) => {
                    self.set(next.unwrap_or(tally));
                    from = after;
                }
                ThinOutcome::Same(after) => from = after,
                ThinOutcome::Busy | ThinOutcome::End => return Ok(()),
            }
            if young {
                return Ok(());
            }
        }
    }

    fn drop_oldest(&mut self, place: OutboxPlace<'_>) -> Result<OverflowRelief, store::Error> {
        loop {
            let tally = self.tally;
            let mut next = None;
            let thinned = place.store.thin(place.outbox, place.writer, self.dropped, &mut |records| {
                let (replacement, tally) =
                    thin::drop(records, place.owner, ReportKind::Dropped, &tally, |_| true)?;
                next = Some(tally);
                Some(replacement)
            })?;
            match thinned {
                ThinOutcome::Fewer(after) => {
                    self.set(next.unwrap_or(tally));
                    self.dropped = after;
                    return Ok(OverflowRelief::Again);
                }
                ThinOutcome::Same(after) => self.dropped = after,
                ThinOutcome::Busy => return Ok(OverflowRelief::Wait),
                ThinOutcome::End => return Ok(OverflowRelief::Drop),
            }
        }
    }

    fn coarsen(
        &mut self,
        place: OutboxPlace<'_>,
        aggregate: &mut impl WindowMerge,
    ) -> Result<OverflowRelief, store::Error> {
        let OverflowBounds { window, widest, .. } = self.bounds;
        for level in 0..LEVELS_MAX {
            let cell = window.saturating_mul(2 << level);
            if cell > widest {
                break;
            }
            loop {
                let tally = self.tally;
                let mut next = None;
                let metrics = &self.metrics;
                let failed = |reason: String| {
                    metrics.failed_merges.inc();
                    if metrics.failed_merges.get() == 1 {
                        warn!(pipeline = place.owner.pipeline, reason, "failed to merge windows");
                    }
                };
                let from = self.merged[level];
                let thinned = place.store.thin(place.outbox, place.writer, from, &mut |records| {
                    let (replacement, tally) =
                        thin::coarsen(records, place.owner, cell, aggregate, &tally, failed)?;
                    next = Some(tally);
                    Some(replacement)
                })?;
                match thinned {
                    ThinOutcome::Fewer(after) => {
                        self.set(next.unwrap_or(tally));
                        self.merged[level] = after;
                        return Ok(OverflowRelief::Again);
                    }
                    ThinOutcome::Same(after) => self.merged[level] = after,
                    ThinOutcome::Busy => return Ok(OverflowRelief::Wait),
                    ThinOutcome::End => break,
                }
            }
        }
        self.drop_oldest(place)
    }

    fn set(&mut self, tally: LossTally) {
        let before = std::mem::replace(&mut self.tally, tally);
        self.count(&before);
    }

    /// Brings the counters, which show committed work only, up to date.
    fn count(&self, before: &LossTally) {
        let metrics = &self.metrics;
        let counters = &self.counters;
        let now = &self.tally;
        counters.dropped.inc_by(now.dropped - before.dropped);
        metrics.coarsened_results.inc_by(now.coarsened - before.coarsened);
        counters.expired.inc_by(now.expired - before.expired);
        metrics.expired_messages.inc_by(now.expired_messages - before.expired_messages);
        metrics.given_up_letters.inc_by(now.given_up_letters - before.given_up_letters);
        counters.reports.set(i64::try_from(now.reports).unwrap_or(i64::MAX));
    }
}
