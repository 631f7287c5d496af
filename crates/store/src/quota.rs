//! How much each log may hold, and for how long.
//!
//! What counts are the disk bytes of a log's segments: those of closed ones once measured, those of
//! the last one as they are. A quota is checked before a write.
//!
//! **Limits.** A log may go over its quota by what is written at once: one group of messages for
//! each input, one commit for each pipeline. A log that holds nothing undelivered takes one write of
//! any size. Both, and the segments made ahead or in exchange for others, are at most [`MARGIN_BYTES`] a
//! log. Beside the logs stand the ballast and `meta`, which grows with the open windows only.

use super::Store;
use super::error::Error;
use super::log::Log;
use super::outbox::Outbox;
use headwater_flow::{ReportKind, Seq, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What was stamped before this was stamped by a clock that nobody had set: nothing is known of its age.
pub const CLOCK_SET: Timestamp = Timestamp(1_577_836_800_000_000);

/// Smallest quota of a log: a few segments.
pub const QUOTA_BYTES_MIN: u64 = 16 << 20;

/// Disk that a log may take beyond its quota: the segment made ahead, the one made in exchange for others,
/// and the last write. Measured through an outage that fills all logs several times over: at most 4.2 MiB.
pub const MARGIN_BYTES: u64 = 8 << 20;

/// How much a log may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Disk bytes, at least [`QUOTA_BYTES_MIN`].
    pub bytes_max: u64,
    /// What is older and was not delivered is given up, counted and reported. `None`: it is kept.
    pub age_max: Option<Duration>,
}

/// The quotas of a state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Messages that a pipeline has not read yet, or that are kept to recognise redeliveries.
    pub journal: Quota,
    /// Dead letters: at the quota the oldest go.
    pub dead_letters: Quota,
    /// Outboxes by name: an output's, or [`super::late`] of it; others have the default.
    pub outboxes: BTreeMap<String, Quota>,
}

impl Quota {
    /// For the journal: hours of a busy gateway, and little beside an SD card.
    pub const JOURNAL: Self = Self { bytes_max: 256 << 20, age_max: None };
    /// For an outbox: a week of a thousand devices' minute windows.
    pub const OUTBOX: Self = Self { bytes_max: 1 << 30, age_max: None };
    /// For the late readings on their way to an output: they are to be few.
    pub const LATE: Self = Self { bytes_max: 64 << 20, age_max: None };
    /// For the dead letters.
    pub const DEAD_LETTERS: Self = Self { bytes_max: 64 << 20, age_max: None };
}

impl Default for Quotas {
    fn default() -> Self {
        let (journal, dead_letters) = (Quota::JOURNAL, Quota::DEAD_LETTERS);
        Self { journal, dead_letters, outboxes: BTreeMap::new() }
    }
}

impl Quotas {
    /// Of an output's outbox; that of its live pipelines has the same for itself.
    #[must_use]
    pub fn outbox(&self, outbox: &str) -> Quota {
        let live = self.outboxes.iter().find(|(output, _)| super::live(output) == outbox);
        self.outboxes.get(outbox).or(live.map(|(_, quota)| quota)).copied().unwrap_or(Quota::OUTBOX)
    }
}

impl Store {
    /// Fails while the journal has no room for so many bytes, after giving up what is kept only to
    /// recognise redeliveries, oldest first and no more than needed.
    pub(super) fn check_journal(&self, bytes: u64) -> Result<(), Error> {
        let (journal, quota) = (&self.0.journal, self.0.quotas.journal);
        let mut fits = journal.fits(bytes, quota)?;
        if !fits && let Some(read) = self.slowest()? {
            while !fits && journal.trim_first(read)? {
                fits = journal.fits(bytes, quota)?;
            }
            fits |= read >= journal.end();
        }
        Self::verdict(journal, None, quota, fits)
    }

    /// Fails while the outbox has no room for so many bytes, after giving up what was confirmed.
    pub(super) fn check_outbox(&self, outbox: &Outbox, bytes: u64) -> Result<(), Error> {
        let quota = self.0.quotas.outbox(outbox.output());
        let mut fits = outbox.log.fits(bytes, quota)? || outbox.pending() == 0;
        if !fits {
            outbox.trim()?;
            fits = outbox.log.fits(bytes, quota)?;
        }
        Self::verdict(&outbox.log, Some(outbox.output()), quota, fits)
    }

    /// Gives up the oldest dead letters, a segment at a time, while so many bytes more are not within
    /// their quota, and those of which the last one is too old. A clock behind the newest letter, or one
    /// that was not set when a letter was written, makes nothing too old.
    pub(super) fn bound_letters(&self, bytes: u64, now: Timestamp) -> Result<(), Error> {
        let (log, quota) = (&self.0.dead_letters, self.0.quotas.dead_letters);
        let written = |number: Seq| -> Result<Option<Timestamp>, Error> {
            Ok(self.dead_letters(number, 1)?.pop().map(|(_, letter)| Timestamp(letter.time)))
        };
        while let Some(oldest) = log.closed().first().cloned() {
            let mut kind = (!log.fits(bytes, quota)?).then_some(ReportKind::Dropped);
            if let (None, Some(age_max)) = (kind, quota.age_max) {
                let newest = written(log.end().saturating_sub(1))?;
                let last = written(oldest.end - 1)?.filter(|last| *last >= CLOCK_SET);
                let goes = newest.is_some_and(|newest| newest <= now)
                    && last.is_some_and(|last| last < now.before(age_max));
                kind = goes.then_some(ReportKind::Expired);
            }
            let Some(kind) = kind else { return Ok(()) };
            let gone = self.give_up_letters(oldest.end, kind)?;
            if log.start() < oldest.end {
                return Ok(());
            }
            if gone == 0 {
                // Another thread's, or begun before a crash.
                continue;
            }
            log.count_given_up(gone);
            tracing::warn!(
                gone,
                why = kind.as_str(),
                first = oldest.start,
                "gave up the oldest dead letters: over quota or too old"
            );
        }
        Ok(())
    }

    /// Shows what the logs hold.
    pub(super) fn gauge_quotas(&self) -> Result<(), Error> {
        let quotas = &self.0.quotas;
        self.0.journal.gauge(quotas.journal)?;
        self.0.dead_letters.gauge(quotas.dead_letters)?;
        let outboxes: Vec<Arc<Outbox>> = super::lock(&self.0.outboxes).values().cloned().collect();
        outboxes.iter().try_for_each(|outbox| outbox.log.gauge(quotas.outbox(outbox.output())))
    }

    /// Up to where all pipelines have read; `None` until it is known which there are.
    fn slowest(&self) -> Result<Option<Seq>, Error> {
        let Some(readers) = super::lock(&self.0.readers).clone() else { return Ok(None) };
        let mut slowest = self.journal_end();
        for reader in readers {
            slowest = slowest.min(self.position(&reader)?.map_or(0, |(position, _)| position));
        }
        Ok(Some(slowest))
    }

    fn verdict(log: &Log, outbox: Option<&str>, quota: Quota, fits: bool) -> Result<(), Error> {
        log.show_blocked(!fits);
        if fits {
            return Ok(());
        }
        let (path, bytes_max) = (log.folder().to_owned(), quota.bytes_max);
        Err(Error::Quota { path, outbox: outbox.map(str::to_owned), bytes: log.bytes()?, bytes_max })
    }
}
