//! A segmented append-only log of records with contiguous numbers: the journal, each outbox,
//! the dead letters.
//!
//! **Invariants.** Numbers are contiguous over all segments, those of gaps among them: a gap stands for
//! records that damage or a policy took. The last segment is never removed, so that the end is never
//! forgotten; a record below `end` is durable. An append is written by
//! at most 1 MiB or one record at a time, each as a whole or not at all.
//!
//! **Limits.** 20,000 records or 4 MB a segment and one write more; 16 MiB a record.
//!
//! **A crash here** leaves records that nobody was told of. In the journal they stay: the broker
//! sends them again, and they are recognised. In the others they lie beyond the committed end
//! and are discarded at open.

use super::error::{Error, Health};
use super::frame::{Draft, Group, RECORD_BYTES_MAX};
use super::lock;
use super::mark::Mark;
use super::prepare::{Prepared, Preparer};
use super::quota::Quota;
use super::segment::{Segment, Tail};
use super::segments::Segments;
use crate::metrics;
use headwater_flow::Seq;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Bytes written as one batch of the engine.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Where a log ends when it is opened.
#[derive(Debug)]
pub(super) enum End {
    /// Where its records end. Those below `marked` must be there; those below `used` were read,
    /// and their numbers are not given again.
    Held { mark: Mark, marked: Seq, used: Seq },
    /// Here: records beyond do not exist, and are discarded.
    Committed(Seq),
}

/// What all logs of a store share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<'a> {
    pub(super) preparer: &'a Preparer,
    pub(super) health: &'a Health,
    pub(super) size: Size,
}

/// When a segment is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// About a second of a busy journal; a minute of a quiet one.
pub(super) const SEGMENT: Size = Size { records: 20_000, bytes: 4_000_000 };

/// How much one read may return.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) records_max: usize,
    /// The last record may go over it.
    pub(super) bytes_max: usize,
}

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    segments: Segments,
    writer: Mutex<Writer>,
    end: AtomicU64,
    size: Size,
    health: Health,
    metrics: metrics::Log,
}

#[derive(Debug)]
struct Writer {
    segment: Arc<Segment>,
    first: Seq,
    tail: Tail,
    prepared: Prepared,
    mark: Option<Mark>,
}

impl Log {
    /// Opens or creates the log in `folder`.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it does not reach as far as it must.
    pub(super) fn open(
        folder: &Path,
        end: End,
        shared: Shared<'_>,
        metrics: metrics::Log,
    ) -> Result<Self, Error> {
        let segments = Segments::find(folder)?;
        let prepared = shared.preparer.place(folder.join("new-segment"));
        let writer = match end {
            End::Committed(end) => Writer::open_committed(&segments, prepared, end)?,
            End::Held { mark, marked, used } => Writer::open_held(&segments, prepared, mark, marked, used)?,
        };
        let end = writer.tail.next;
        metrics.segments.inc_by(gauge(segments.len() as u64));
        let pending = end.saturating_sub(segments.start());
        metrics.pending_records.inc_by(gauge(pending));
        Ok(Self {
            segments,
            end: AtomicU64::new(end),
            writer: Mutex::new(writer),
            size: shared.size,
            health: shared.health.clone(),
            metrics,
        })
    }

    /// Appends all records; their numbers, once they survive a power cut.
    pub(super) fn append(&self, group: Group) -> Result<Range<Seq>, Error> {
        if group.largest() > RECORD_BYTES_MAX {
            let (path, bytes) = (self.segments.folder().to_owned(), group.largest());
            let bytes_max = RECORD_BYTES_MAX;
            return Err(Error::TooLarge { path, bytes, bytes_max });
        }
        let mut writer = lock(&self.writer);
        self.health.check()?;
        let first = writer.tail.next;
        if group.is_empty() {
            return Ok(first..first);
        }
        let (records, bytes) = (group.records(), group.bytes());
        let written = self.write(&mut writer, first, group.into_frames());
        self.health.judge(written)?;
        let end = writer.tail.next;
        debug_assert_eq!(end, first + records, "frames hold the group's records");
        self.end.store(end, Ordering::Release);
        self.metrics.appended_records.inc_by(records);
        self.metrics.appended_bytes.inc_by(bytes);
        self.metrics.pending_records.inc_by(gauge(records));
        Ok(first..end)
    }

    /// Hands the records in `range` to `each`, as many as a page holds, at least one if there is
    /// one. Below the log's start it begins there, and it steps over gaps. Returns the number up to which
    /// there is nothing left to read.
    ///
    /// # Errors
    /// [`Error::Damaged`] where a record of the range that the log must hold is not there.
    pub(super) fn read(
        &self,
        range: Range<Seq>,
        page: Page,
        mut each: impl FnMut(Seq, &[u8]) -> Result<(), Error>,
    ) -> Result<Seq, Error> {
        let (mut records, mut bytes) = (0, 0);
        self.read_until(range, |seq, record| {
            each(seq, record)?;
            records += 1;
            bytes += record.len();
            let full = records >= page.records_max || bytes >= page.bytes_max;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    /// As [`Self::read`], until `each` breaks.
    pub(super) fn read_until(
        &self,
        range: Range<Seq>,
        each: impl FnMut(Seq, &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<Seq, Error> {
        self.health.heed(self.walk(range, each))
    }

    fn walk(
        &self,
        range: Range<Seq>,
        mut each: impl FnMut(Seq, &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<Seq, Error> {
        let until = range.end.min(self.end());
        let mut from = range.start;
        while from.max(self.start()) < until {
            from = from.max(self.start());
            let Some((first, segment)) = self.segments.of(from)? else {
                continue; // trimmed since its start was asked for
            };
            let (next, flow) = segment.read(from, until, &mut each)?;
            if flow.is_break() {
                return Ok(next);
            }
            let has_more = |(later, _): (Seq, _)| later > first;
            if next < until && !self.segments.of(next)?.is_some_and(has_more) {
                let detail = format!("record {next} is missing");
                return Err(Error::damaged(self.segments.folder(), detail));
            }
            from = next;
        }
        Ok(from.max(self.start()).min(until))
    }

    /// The first record's number, `end` if there is none.
    pub(super) fn start(&self) -> Seq {
        self.segments.start()
    }

    /// The first record of the last `count` segments.
    pub(super) fn start_of_last(&self, count: usize) -> Seq {
        self.segments.start_of_last(count)
    }

    /// One past the last durable record.
    pub(super) fn end(&self) -> Seq {
        self.end.load(Ordering::Acquire)
    }

    /// Removes the segments that hold only records below `below`, the last one excepted.
    pub(super) fn trim(&self, below: Seq) -> Result<(), Error> {
        while self.trim_first(below)? {}
        Ok(())
    }

    /// Removes the first segment if it holds only records below `below` and is not the last; whether it did.
    pub(super) fn trim_first(&self, below: Seq) -> Result<bool, Error> {
        let Some(gone) = self.health.heed(self.segments.remove_first(below))? else { return Ok(false) };
        self.metrics.segments.dec();
        self.metrics.pending_records.dec_by(gauge(gone.end - gone.start));
        Ok(true)
    }

    /// Puts the segment composed at `made` in the place of those of the same numbers, of which none may be
    /// the last. `false`, and nothing done, while one of them is read.
    pub(super) fn replace(&self, numbers: Range<Seq>, made: &Path) -> Result<bool, Error> {
        let before = self.segments.len();
        let replaced = self.segments.replace(numbers, made)?;
        self.metrics.segments.dec_by(gauge((before - self.segments.len().min(before)) as u64));
        Ok(replaced)
    }

    /// Begins a new segment, unless the last one is empty.
    pub(super) fn seal(&self) -> Result<(), Error> {
        let mut writer = lock(&self.writer);
        self.health.check()?;
        if writer.tail.next == writer.first {
            return Ok(());
        }
        let sealed = self.sync(&writer).and_then(|()| self.rotate(&mut writer));
        self.health.judge(sealed)
    }

    pub(super) fn folder(&self) -> &Path {
        self.segments.folder()
    }

    /// All segments but the last, with the numbers of their records.
    pub(super) fn closed(&self) -> Vec<Range<Seq>> {
        self.segments.closed()
    }

    /// Disk that the segment which begins at `first` takes.
    pub(super) fn segment_bytes(&self, first: Seq) -> Result<u64, Error> {
        self.segments.measure(first)
    }

    /// Bytes of a full segment.
    pub(super) fn segment_bytes_max(&self) -> u64 {
        self.size.bytes
    }

    /// Disk that it takes.
    pub(super) fn bytes(&self) -> Result<u64, Error> {
        self.segments.bytes()
    }

    /// Whether so many bytes more are within the quota.
    pub(super) fn fits(&self, bytes: u64, quota: Quota) -> Result<bool, Error> {
        let held = self.bytes()?;
        self.metrics.bytes.set(gauge(held));
        self.metrics.quota_bytes.set(gauge(quota.bytes_max));
        Ok(held + bytes <= quota.bytes_max)
    }

    /// Counts records that were given up.
    pub(super) fn count_given_up(&self, records: u64) {
        self.metrics.given_up_records.inc_by(records);
    }

    /// Shows whether a write waits for room.
    pub(super) fn show_blocked(&self, blocked: bool) {
        self.metrics.blocked.set(blocked.into());
    }

    /// Shows what it holds.
    pub(super) fn gauge(&self, quota: Quota) -> Result<(), Error> {
        self.metrics.bytes.set(gauge(self.bytes()?));
        self.metrics.quota_bytes.set(gauge(quota.bytes_max));
        Ok(())
    }

    fn write(&self, writer: &mut Writer, first: Seq, frames: Vec<Draft>) -> Result<(), Error> {
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            if writer.is_filled(self.size, 1) {
                self.sync(writer)?;
                headwater_fail::point("log.filled");
                self.rotate(writer)?;
            }
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(frame) = frames.next_if(|frame| !frame.begins_record() || bytes < BATCH_BYTES_MAX)
            {
                bytes += frame.len();
                batch.push(frame);
            }
            writer.segment.append(&mut writer.tail, first, batch)?;
            headwater_fail::point("log.written");
        }
        self.sync(writer)?;
        headwater_fail::point("log.marked");
        if writer.is_filled(self.size, 2) {
            writer.prepared.order();
        }
        Ok(())
    }

    fn rotate(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.segment.check_blobs()?;
        let begun = self.segments.begin(writer.tail.next, &writer.prepared)?;
        (writer.first, writer.segment) = begun;
        headwater_fail::point("log.rotated");
        writer.tail = writer.segment.scan()?;
        self.segments.close_all_idle();
        self.metrics.segments.inc();
        Ok(())
    }

    fn sync(&self, writer: &Writer) -> Result<(), Error> {
        let began = Instant::now();
        writer.segment.sync()?;
        headwater_fail::point("log.synced");
        if let Some(mark) = &writer.mark {
            mark.set(writer.tail.next)?;
        }
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.syncs.inc();
        self.metrics.sync_micros.inc_by(micros);
        Ok(())
    }
}

impl Writer {
    fn open_committed(segments: &Segments, prepared: Prepared, end: Seq) -> Result<Self, Error> {
        segments.discard(end)?;
        let mut writer = Self::open(segments, prepared, end)?;
        if writer.tail.next > end && writer.first <= end {
            writer.segment.truncate(end)?;
            headwater_fail::point("log.truncated");
            writer.tail = writer.segment.scan()?;
        }
        if writer.tail.next == end {
            return Ok(writer);
        }
        let detail = format!("it ends at {}, {end} was committed", writer.tail.next);
        Err(Error::damaged(segments.folder(), detail))
    }

    fn open_held(
        segments: &Segments,
        prepared: Prepared,
        mark: Mark,
        marked: Seq,
        used: Seq,
    ) -> Result<Self, Error> {
        let mut writer = Self::open(segments, prepared, marked.max(used))?;
        let held = writer.tail.next;
        if held < marked {
            let detail = format!("it ends at {held}, all below {marked} was acknowledged");
            return Err(Error::damaged(segments.folder(), detail));
        }
        if held < used {
            let detail = format!("it ends at {held}, all below {used} was read");
            return Err(Error::damaged(segments.folder(), detail));
        }
        writer.mark = Some(mark);
        Ok(writer)
    }

    /// At the end of the last segment; of a new one where there is none and none was ever needed.
    fn open(segments: &Segments, prepared: Prepared, known: Seq) -> Result<Self, Error> {
        let (first, segment) = match segments.last(known)? {
            Some(last) => last,
            None if known == 0 => segments.begin(0, &prepared)?,
            None => {
                let detail = format!("all its segments are missing, it had {known} records");
                return Err(Error::damaged(segments.folder(), detail));
            }
        };
        // What a killed process wrote and never synced can be read: it must not be taken for durable.
        segment.sync()?;
        let tail = segment.scan()?;
        let mark = None;
        Ok(Self { segment, first, tail, prepared, mark })
    }

    /// Whether the segment holds a `part`th of what it should.
    fn is_filled(&self, size: Size, part: u64) -> bool {
        (self.tail.next - self.first) * part >= size.records || self.tail.bytes * part >= size.bytes
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
