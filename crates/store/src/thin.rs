//! Thins out what an outbox holds for a pipeline: its results that are not begun give way to fewer.
//!
//! The closed segments are composed anew, oldest first: results of other pipelines keep their
//! order, and the survivors are packed to the front of the numbers that may move, so that batches
//! stay whole; what is left of them is a gap. Numbers not begun were never sent, so no destination
//! can tell. A segment that became small is taken together with the one before it.
//!
//! **Invariants.** What is confirmed or begun keeps its number. Before segments are exchanged the row
//! `x` says what they are to hold; with its removal the tally and the count of missing numbers
//! change.
//!
//! **A crash here** leaves all as it was, or the exchange is completed at the next open: the digest
//! in the row tells which.
//!
//! **Limits.** One or two segments are in memory.

use super::codec::{self, Row};
use super::error::Error;
use super::folder::Folder;
use super::log::Page;
use super::meta::Meta;
use super::outbox::{Outbox, clip};
use super::segment::Segment;
use super::segments::Segments;
use super::{Store, lock};
use headwater_flow::{Seq, Timestamp};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::Path;

/// Tries of an exchange while somebody reads the segment.
const TRIES: u32 = 50;

/// A record of a pipeline in an outbox that is not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingRecord {
    /// Where it stands. Not kept: it tells the order.
    pub number: Seq,
    /// When it was made; never before an earlier one of the outbox.
    pub made: Timestamp,
    /// What it can be merged by; empty where it cannot.
    pub state: Vec<u8>,
    /// As its maker encoded it.
    pub record: Vec<u8>,
}

/// The records that replace others: fewer, none of them before the first.
#[derive(Debug, Default)]
pub struct Replacement {
    /// In the order of their numbers.
    pub records: Vec<PendingRecord>,
    /// The pipeline's tally with it.
    pub tally: Vec<u8>,
}

/// How far thinning has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinOutcome {
    /// Fewer records are there, as was asked; the next segment begins here.
    Fewer(Seq),
    /// Nothing in this segment gives way; the next one begins here.
    Same(Seq),
    /// The segment is being read or sent: later again.
    Busy,
    /// No closed segment is left that holds records of the pipeline.
    End,
}

/// An exchange of segments under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) output: String,
    pub(super) pipeline: String,
    /// The numbers of the segments.
    pub(super) range: Range<Seq>,
    /// Missing numbers of the outbox after it.
    pub(super) missing: u64,
    /// Of the records after it.
    pub(super) digest: [u8; 16],
    /// The pipeline's tally after it.
    pub(super) tally: Vec<u8>,
}

/// Records with their numbers.
type Records = Vec<(Seq, Vec<u8>)>;

impl Store {
    /// Hands the pipeline's records that are not begun to `thin`, of the first closed segment from `from`
    /// on that has any, and puts what it answers in their place. `None` leaves them.
    pub fn thin(
        &self,
        output: &str,
        pipeline: &str,
        from: Seq,
        thin: &mut dyn FnMut(Vec<PendingRecord>) -> Option<Replacement>,
    ) -> Result<ThinOutcome, Error> {
        let outbox = self.outbox(output)?;
        let _exchanging = lock(&outbox.exchanging);
        self.0.health.check()?;
        let movable = outbox.movable();
        let committed = outbox.committed();
        let within = |segment: &Range<Seq>| segment.end > from && segment.end <= committed;
        for segment in outbox.log.closed().into_iter().filter(within) {
            let records = read(&outbox, &segment)?;
            if own(&outbox, pipeline, &records, &clip(&movable, &segment))?.is_empty() {
                continue;
            }
            let range = with_small_before(&outbox, &segment)?;
            let records = if range == segment { records } else { read(&outbox, &range)? };
            let may_move = clip(&movable, &range);
            let pending = own(&outbox, pipeline, &records, &may_move)?;
            let before = pending.len();
            return match thin(pending) {
                None => Ok(ThinOutcome::Same(segment.end)),
                Some(replacement) => {
                    debug_assert!(replacement.records.len() <= before, "the numbers must suffice");
                    let plan = Plan { outbox: &outbox, pipeline, range, movable: &movable };
                    let done = plan.exchange(&self.0.meta, &records, replacement);
                    let done = self.0.health.judge(done)?;
                    Ok(if done { ThinOutcome::Fewer(segment.end) } else { ThinOutcome::Busy })
                }
            };
        }
        Ok(ThinOutcome::End)
    }

    /// Closes the outbox's last segment, so that it can be thinned out, if its first record was
    /// made before.
    pub fn seal_made_before(&self, output: &str, before: Timestamp) -> Result<(), Error> {
        let outbox = self.outbox(output)?;
        let start = outbox.log.closed().last().map_or(outbox.log.start(), |closed| closed.end);
        let (mut made, first) = (None, Page { records_max: 1, bytes_max: 1 });
        outbox.log.read(start..outbox.committed(), first, |_, record| {
            made = Some(codec::record(record).map_err(|garbled| outbox.garbled(garbled))?.made);
            Ok(())
        })?;
        let _appending = lock(&outbox.appending);
        if made.is_some_and(|made| made < before) { outbox.log.seal() } else { Ok(()) }
    }

    /// When the newest record of the outbox was made: a clock that is behind it is wrong.
    pub fn newest(&self, output: &str) -> Result<Timestamp, Error> {
        Ok(self.outbox(output)?.newest())
    }
}

/// An exchange to be made.
struct Plan<'a> {
    outbox: &'a Outbox,
    pipeline: &'a str,
    range: Range<Seq>,
    movable: &'a [Range<Seq>],
}

impl Plan<'_> {
    /// Whether it was made.
    fn exchange(&self, meta: &Meta, before: &Records, replacement: Replacement) -> Result<bool, Error> {
        let records = self.compose(before, replacement.records)?;
        let made = self.outbox.log.folder().join("new-thinner");
        if made.exists() {
            std::fs::remove_dir_all(&made).map_err(|source| Error::io("remove", &made, source))?;
        }
        Segment::compose(&made, self.range.clone(), &records)?;
        let gone = self.moving(before) - self.moving(&records);
        let exchanged = self.outbox.exchange(&self.range, self.movable, || {
            let exchange = Exchange {
                output: self.outbox.output().to_owned(),
                pipeline: self.pipeline.to_owned(),
                range: self.range.clone(),
                missing: self.outbox.missing() + gone,
                digest: digest(&records),
                tally: replacement.tally,
            };
            let row = Row::exchange(self.outbox.output());
            meta.apply(&[(row.clone(), Some(codec::put_exchange(&exchange)))])?;
            if !self.replace(&made)? {
                meta.apply(&[(row, None)])?;
                return Ok(None);
            }
            complete(meta, &exchange)?;
            Ok(Some(exchange.missing))
        })?;
        if !exchanged {
            std::fs::remove_dir_all(&made).map_err(|source| Error::io("remove", &made, source))?;
        }
        Ok(exchanged)
    }

    fn replace(&self, made: &Path) -> Result<bool, Error> {
        for _ in 0..TRIES {
            if self.outbox.log.replace(self.range.clone(), made)? {
                return Ok(true);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(false)
    }

    /// The records after it: what is under way where it was, the rest packed in order.
    fn compose(&self, before: &Records, replacing: Vec<PendingRecord>) -> Result<Records, Error> {
        let under_way = clip(&self.outbox.under_way(), &self.range);
        let within = |ranges: &[Range<Seq>], seq: Seq| ranges.iter().any(|range| range.contains(&seq));
        let mut records: Records = Vec::with_capacity(before.len());
        let mut moving: Vec<(Seq, Vec<u8>)> = Vec::with_capacity(before.len());
        for (seq, record) in before {
            if within(&under_way, *seq) {
                records.push((*seq, record.clone()));
            } else if within(self.movable, *seq) && self.owner(record)? != self.pipeline {
                moving.push((*seq, record.clone()));
            }
        }
        moving.extend(replacing.into_iter().map(|one| {
            let mut record = Vec::with_capacity(one.record.len() + one.state.len() + 40);
            codec::put_record(&mut record, self.pipeline, one.made, &one.state, &one.record);
            (one.number, record)
        }));
        moving.sort_by_key(|(seq, _)| *seq);
        let mut moving = moving.into_iter().peekable();
        for part in clip(self.movable, &self.range) {
            let mut next = part.start;
            while let Some((_, record)) = moving.next_if(|(seq, _)| *seq < part.end) {
                records.push((next, record));
                next += 1;
            }
        }
        records.sort_by_key(|(seq, _)| *seq);
        Ok(records)
    }

    fn owner<'r>(&self, record: &'r [u8]) -> Result<&'r str, Error> {
        Ok(codec::record(record).map_err(|garbled| self.outbox.garbled(garbled))?.writer)
    }

    /// Records that may move.
    fn moving(&self, records: &Records) -> u64 {
        let movable = clip(self.movable, &self.range);
        let moves = |(seq, _): &&(Seq, Vec<u8>)| movable.iter().any(|range| range.contains(seq));
        records.iter().filter(moves).count() as u64
    }
}

/// Completes the exchanges that a crash interrupted, or forgets those it came before.
pub(super) fn recover(meta: &Meta, folder: &Folder) -> Result<(), Error> {
    let mut exchanges = Vec::new();
    meta.scan(&Row::exchanges(), |_, value| {
        let garbled = |garbled| Error::garbled(&folder.meta(), "row of an exchange", garbled);
        exchanges.push(codec::exchange(&value).map_err(garbled)?);
        Ok(())
    })?;
    for exchange in exchanges {
        let segments = Segments::find(&folder.outbox(&exchange.output))?;
        let Some((first, segment)) = segments.of(exchange.range.start)? else {
            return Err(Error::damaged(segments.folder(), "a segment that was thinned out is missing"));
        };
        let mut records = Records::new();
        let (reached, _) = segment.read(first, exchange.range.end, |seq, record| {
            records.push((seq, record.to_vec()));
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        drop(segment);
        if reached == exchange.range.end && digest(&records) == exchange.digest {
            segments.remove_others(exchange.range.clone())?;
            complete(meta, &exchange)?;
        } else {
            meta.apply(&[(Row::exchange(&exchange.output), None)])?;
        }
    }
    Ok(())
}

fn complete(meta: &Meta, exchange: &Exchange) -> Result<(), Error> {
    meta.apply(&[
        (Row::exchange(&exchange.output), None),
        (Row::tally(&exchange.pipeline), Some(exchange.tally.clone())),
        (Row::missing(&exchange.output), Some(codec::put_number(exchange.missing))),
    ])
}

/// The segment, with the one before where both together are hardly more than one.
fn with_small_before(outbox: &Outbox, segment: &Range<Seq>) -> Result<Range<Seq>, Error> {
    let closed = outbox.log.closed();
    let before = closed.iter().rfind(|other| other.end == segment.start);
    let Some(before) = before else { return Ok(segment.clone()) };
    let bytes = outbox.log.segment_bytes(before.start)? + outbox.log.segment_bytes(segment.start)? / 2;
    let small = bytes <= outbox.log.segment_bytes_max();
    Ok(if small { before.start..segment.end } else { segment.clone() })
}

fn read(outbox: &Outbox, range: &Range<Seq>) -> Result<Records, Error> {
    let (mut records, all) = (Records::new(), Page { records_max: usize::MAX, bytes_max: usize::MAX });
    outbox.log.read(range.clone(), all, |seq, record| {
        records.push((seq, record.to_vec()));
        Ok(())
    })?;
    Ok(records)
}

/// Returns the pipeline's own among the records that may move.
fn own(
    outbox: &Outbox,
    pipeline: &str,
    records: &Records,
    movable: &[Range<Seq>],
) -> Result<Vec<PendingRecord>, Error> {
    let mut pending = Vec::new();
    for (number, record) in records {
        let stored = codec::record(record).map_err(|garbled| outbox.garbled(garbled))?;
        if stored.writer == pipeline && movable.iter().any(|range| range.contains(number)) {
            pending.push(PendingRecord {
                number: *number,
                made: stored.made,
                state: stored.state.to_vec(),
                record: stored.body.to_vec(),
            });
        }
    }
    Ok(pending)
}

/// What tells a segment as it is to be from the one before.
pub(super) fn digest(records: &[(Seq, Vec<u8>)]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for (seq, record) in records {
        hasher.update(seq.to_le_bytes());
        hasher.update((record.len() as u64).to_le_bytes());
        hasher.update(record);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize()[..16]);
    digest
}
