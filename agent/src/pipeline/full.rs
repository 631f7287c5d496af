//! What a pipeline does when the outbox of its output has reached its quota, and with what is too old.
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

use super::tally::Tally;
use super::thin::{self, Merge, What, Whose};
use crate::flow::{ReportKind, Seq, Timestamp};
use crate::metrics;
use crate::store::{self, CLOCK_SET, Store, Thinned};

/// Merging doubles the width of windows at most so often.
const LEVELS_MAX: usize = 16;
/// The outbox counts as full until it had room for so long.
const ROOM_FOR: Duration = Duration::from_secs(30);
/// What is older than `age_max` by this part of it goes: so often there is a report at most.
const AGE_PARTS: u32 = 16;

/// What a pipeline does when its outbox is full.
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
pub(super) struct Bounds {
    pub(super) policy: WhenFull,
    /// Length of a window as it is made, in microseconds.
    pub(super) window: u64,
    /// Length that merging may give it at most.
    pub(super) widest: u64,
    /// Results older than this that are not delivered are given up.
    pub(super) age_max: Option<Duration>,
}

/// What to do about a commit that found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relief {
    /// There may be room now.
    Again,
    /// Only time helps.
    Wait,
    /// Commit without the results.
    Drop,
}

/// A pipeline's dealings with its outbox.
#[derive(Debug)]
pub(super) struct Full {
    bounds: Bounds,
    /// As committed.
    pub(super) tally: Tally,
    metrics: metrics::Pipeline,
    lines: Lines,
    /// Before this nothing of the pipeline's own is left to drop.
    dropped: Seq,
    /// Before this all is merged, by how often the width was doubled.
    merged: [Seq; LEVELS_MAX],
    /// When it last was full.
    since: Option<Instant>,
    looked: Instant,
}

/// Where it finds its lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) store: &'a Store,
    pub(super) outbox: &'a str,
    /// By what name the outbox knows them.
    pub(super) writer: &'a str,
    pub(super) whose: Whose<'a>,
}

/// Counters of what becomes of the lines.
#[derive(Debug)]
struct Lines {
    dropped: Counter,
    expired: Counter,
    reports: Gauge,
}

impl Lines {
    fn of(what: What, metrics: &metrics::Pipeline) -> Self {
        let (dropped, expired, reports) = match what {
            What::Results => (&metrics.dropped_results, &metrics.expired_results, &metrics.report_lines),
            What::Late => {
                (&metrics.dropped_late_events, &metrics.expired_late_events, &metrics.late_report_lines)
            }
        };
        Self { dropped: dropped.clone(), expired: expired.clone(), reports: reports.clone() }
    }
}

impl Full {
    pub(super) fn new(what: What, bounds: Bounds, tally: Tally, metrics: metrics::Pipeline) -> Self {
        let lines = Lines::of(what, &metrics);
        let (dropped, merged, looked) = (0, [0; LEVELS_MAX], Instant::now());
        let full = Self { bounds, tally, metrics, lines, dropped, merged, since: None, looked };
        full.count(&Tally::default());
        full
    }

    /// What helps now that there is no room.
    pub(super) fn relieve(
        &mut self,
        place: Place<'_>,
        aggregate: Option<&mut impl Merge>,
    ) -> Result<Relief, store::Error> {
        if self.since.replace(Instant::now()).is_none() {
            let (pipeline, outbox, policy) = (place.whose.pipeline, place.outbox, self.bounds.policy);
            warn!(pipeline, outbox, ?policy, "outbox has reached its quota");
        }
        let expired = self.tally.expired;
        self.expire(place)?;
        if self.tally.expired > expired {
            return Ok(Relief::Again);
        }
        match self.bounds.policy {
            WhenFull::Block => {
                self.metrics.blocked.set(1);
                Ok(Relief::Wait)
            }
            WhenFull::DropNewest => Ok(Relief::Drop),
            WhenFull::DropOldest => self.drop_oldest(place),
            WhenFull::Coarsen => match aggregate {
                Some(aggregate) => self.coarsen(place, aggregate),
                None => self.drop_oldest(place),
            },
        }
    }

    /// A commit had room, or needed none.
    pub(super) fn committed(&mut self, tally: Tally, pipeline: &str) {
        self.metrics.blocked.set(0);
        self.set(tally);
        if self.since.is_some_and(|since| since.elapsed() >= ROOM_FOR) {
            self.since = None;
            info!(pipeline, "outbox has room again");
        }
    }

    /// Gives up what is too old, if it is time to look.
    pub(super) fn expire(&mut self, place: Place<'_>) -> Result<(), store::Error> {
        let Some(age_max) = self.bounds.age_max else { return Ok(()) };
        let every = (age_max / AGE_PARTS).clamp(Duration::from_millis(100), Duration::from_mins(10));
        if self.looked.elapsed() < every {
            return Ok(());
        }
        self.looked = Instant::now();
        let now = place.whose.now;
        if now < place.store.newest(place.outbox)? {
            return Ok(());
        }
        let (oldest, due) = (now.before(age_max), now.before(age_max + every));
        place.store.seal_made_before(place.outbox, due)?;
        let is_old = |made: Timestamp, limit| (CLOCK_SET..limit).contains(&made);
        let mut from = 0;
        loop {
            let (tally, mut next) = (self.tally, None);
            let mut young = false;
            let thinned = place.store.thin(place.outbox, place.writer, from, &mut |lines| {
                young = lines.last().is_some_and(|line| line.made >= oldest);
                lines.iter().any(|line| is_old(line.made, due)).then_some(())?;
                let is_old = |line: &store::Waiting| is_old(line.made, oldest);
                let (thinner, tally) = thin::drop(lines, place.whose, ReportKind::Expired, &tally, is_old)?;
                next = Some(tally);
                Some(thinner)
            })?;
            match thinned {
                Thinned::Fewer(after) => {
                    self.set(next.unwrap_or(tally));
                    from = after;
                }
                Thinned::Same(after) => from = after,
                Thinned::Busy | Thinned::End => return Ok(()),
            }
            if young {
                return Ok(());
            }
        }
    }

    fn drop_oldest(&mut self, place: Place<'_>) -> Result<Relief, store::Error> {
        loop {
            let (tally, mut next) = (self.tally, None);
            let thinned = place.store.thin(place.outbox, place.writer, self.dropped, &mut |lines| {
                let (thinner, tally) = thin::drop(lines, place.whose, ReportKind::Dropped, &tally, |_| true)?;
                next = Some(tally);
                Some(thinner)
            })?;
            match thinned {
                Thinned::Fewer(after) => {
                    self.set(next.unwrap_or(tally));
                    self.dropped = after;
                    return Ok(Relief::Again);
                }
                Thinned::Same(after) => self.dropped = after,
                Thinned::Busy => return Ok(Relief::Wait),
                Thinned::End => return Ok(Relief::Drop),
            }
        }
    }

    fn coarsen(&mut self, place: Place<'_>, aggregate: &mut impl Merge) -> Result<Relief, store::Error> {
        let Bounds { window, widest, .. } = self.bounds;
        for level in 0..LEVELS_MAX {
            let cell = window.saturating_mul(2 << level);
            if cell > widest {
                break;
            }
            loop {
                let (tally, mut next) = (self.tally, None);
                let metrics = &self.metrics;
                let failed = |reason: String| {
                    metrics.failed_merges.inc();
                    if metrics.failed_merges.get() == 1 {
                        warn!(pipeline = place.whose.pipeline, reason, "failed to merge windows");
                    }
                };
                let (outbox, writer) = (place.outbox, place.writer);
                let thinned = place.store.thin(outbox, writer, self.merged[level], &mut |lines| {
                    let (thinner, tally) =
                        thin::coarsen(lines, place.whose, cell, aggregate, &tally, failed)?;
                    next = Some(tally);
                    Some(thinner)
                })?;
                match thinned {
                    Thinned::Fewer(after) => {
                        self.set(next.unwrap_or(tally));
                        self.merged[level] = after;
                        return Ok(Relief::Again);
                    }
                    Thinned::Same(after) => self.merged[level] = after,
                    Thinned::Busy => return Ok(Relief::Wait),
                    Thinned::End => break,
                }
            }
        }
        self.drop_oldest(place)
    }

    fn set(&mut self, tally: Tally) {
        let before = std::mem::replace(&mut self.tally, tally);
        self.count(&before);
    }

    /// Brings the counters, which show committed work only, up to date.
    fn count(&self, before: &Tally) {
        let (metrics, lines, now) = (&self.metrics, &self.lines, &self.tally);
        lines.dropped.inc_by(now.dropped - before.dropped);
        metrics.coarsened_results.inc_by(now.coarsened - before.coarsened);
        lines.expired.inc_by(now.expired - before.expired);
        metrics.expired_messages.inc_by(now.expired_messages - before.expired_messages);
        metrics.given_up_letters.inc_by(now.given_up_letters - before.given_up_letters);
        lines.reports.set(i64::try_from(now.reports).unwrap_or(i64::MAX));
    }
}
