//! One output's results on their way out: a log, its committed end, and the begun batches.
//!
//! **Invariants.** Results are numbered from 0 within the outbox's epoch. Only those below the
//! committed end exist. A batch begins at what is confirmed of its stretch (`sending.rs`), or behind
//! the gap that follows, and spans no gap; once begun its bounds change only by narrowing, which is
//! durable before its first attempt.

use super::codec::{self, Row};
use super::error::Error;
use super::folder::Folder;
use super::log::{End, Log, Page, Shared};
use super::meta::{Change, Meta};
use super::sending::{EncoderMark, Sending};
use super::{Batch, BatchBounds, lock, sync};
use crate::metrics;
use headwater_flow::{Epoch, Seq, Timestamp};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file beside the log that holds its epoch in hexadecimal: with it and the log alone, what was sent
/// before is sent again under the same numbers, and recognised.
pub(super) const EPOCH: &str = "epoch";

/// One output's outbox.
#[derive(Debug)]
pub(super) struct Outbox {
    output: String,
    epoch: Epoch,
    pub(super) log: Log,
    /// Held from the append to the commit's end: rows are committed in the order of their numbers.
    pub(super) appending: Mutex<()>,
    committed: AtomicU64,
    sending: Mutex<Sending>,
    confirmed: AtomicU64,
    arrived: AtomicU64,
    /// Numbers from `confirmed` on that hold no record: changed while `sending` is held.
    missing: AtomicU64,
    /// When the newest result was made: later ones are never stamped earlier.
    newest: AtomicU64,
    /// Held while segments are exchanged or removed.
    pub(super) exchanging: Mutex<()>,
}

impl Outbox {
    /// Opens it, or creates it with a new epoch, which is durable before its folder exists.
    pub(super) fn open(
        output: &str,
        folder: &Folder,
        meta: &Meta,
        shared: Shared<'_>,
        metrics: metrics::Log,
    ) -> Result<Self, Error> {
        let path = folder.outbox(output);
        let garbled = |garbled| Error::garbled(&folder.meta(), "row of an output", garbled);
        let (epoch, end) = match meta.get(&Row::outbox(output))? {
            Some(row) => codec::outbox(&row).map_err(garbled)?,
            None => (create(output, &path, meta)?, 0),
        };
        let sending = match meta.get(&Row::batch(output))? {
            Some(row) => codec::batch(&row).map_err(garbled)?,
            None => Sending::default(),
        };
        if sending.begun() > end {
            let detail = format!("output {output:?}: batch to {}, but only {end} committed", sending.begun());
            return Err(Error::damaged(&folder.meta(), detail));
        }
        let missing = meta.number(&Row::missing(output))?;
        let log = Log::open(&path, End::Committed(end), shared, metrics)?;
        keep_epoch(&path, epoch)?;
        let newest = newest(&log)?;
        Ok(Self {
            output: output.to_owned(),
            epoch,
            log,
            appending: Mutex::default(),
            committed: AtomicU64::new(end),
            confirmed: AtomicU64::new(sending.confirmed()),
            arrived: AtomicU64::new(sending.arrived()),
            sending: Mutex::new(sending),
            missing: AtomicU64::new(missing),
            newest: AtomicU64::new(newest.0),
            exchanging: Mutex::default(),
        })
    }

    pub(super) fn output(&self) -> &str {
        &self.output
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// One past the last result that exists.
    pub(super) fn committed(&self) -> Seq {
        self.committed.load(Ordering::Acquire)
    }

    /// All below was confirmed by the destination.
    pub(super) fn confirmed(&self) -> Seq {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Results committed and not confirmed.
    pub(super) fn pending(&self) -> u64 {
        let gone = self.arrived.load(Ordering::Acquire) + self.missing();
        self.committed().saturating_sub(gone)
    }

    /// When the newest result was made, by the clock of then.
    pub(super) fn newest(&self) -> Timestamp {
        Timestamp(self.newest.load(Ordering::Acquire))
    }

    /// What the next result is stamped with: the clock's time, but not before an earlier result's.
    pub(super) fn stamp(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.newest.fetch_max(now.0, Ordering::AcqRel).max(now.0))
    }

    /// Removes the segments of which all is confirmed.
    pub(super) fn trim(&self) -> Result<(), Error> {
        let _exchanging = lock(&self.exchanging);
        self.log.trim(self.confirmed())
    }

    /// Numbers that are neither confirmed nor begun: what they hold may be another result tomorrow.
    pub(super) fn movable(&self) -> Vec<Range<Seq>> {
        lock(&self.sending).movable(self.committed())
    }

    /// Numbers of the begun batches.
    pub(super) fn under_way(&self) -> Vec<Range<Seq>> {
        lock(&self.sending).under_way()
    }

    pub(super) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Acquire)
    }

    /// Lets `exchange` exchange segments if the numbers in `range` that may move still are `movable`;
    /// meanwhile no batch is begun.
    pub(super) fn exchange(
        &self,
        range: &Range<Seq>,
        movable: &[Range<Seq>],
        exchange: impl FnOnce() -> Result<Option<u64>, Error>,
    ) -> Result<bool, Error> {
        let sending = lock(&self.sending);
        if clip(&sending.movable(self.committed()), range) != clip(movable, range) {
            return Ok(false);
        }
        let Some(missing) = exchange()? else { return Ok(false) };
        self.missing.store(missing, Ordering::Release);
        Ok(true)
    }

    /// These results, stretch by stretch, oldest first; the last one may be empty.
    pub(super) fn stretches(&self) -> Vec<Range<Seq>> {
        lock(&self.sending).pending(self.committed())
    }

    /// The change of `meta` that commits the results below `end`.
    pub(super) fn commit_change(&self, end: Seq) -> Change {
        (Row::outbox(&self.output), Some(codec::put_outbox(self.epoch, end)))
    }

    /// After that change is durable.
    pub(super) fn set_committed(&self, end: Seq) {
        self.committed.store(end, Ordering::Release);
    }

    /// Begins a batch in the stretch whose next record is `from`, the oldest if none is named; returns the one
    /// that is begun there, if one is.
    pub(super) fn begin(
        &self,
        meta: &Meta,
        from: Option<Seq>,
        bounds: &BatchBounds<'_>,
        encoder: Option<&EncoderMark>,
    ) -> Result<Option<Batch>, Error> {
        let mut sending = lock(&self.sending);
        let from = from.unwrap_or(sending.confirmed());
        let Some(stretch) = sending.stretch(from) else {
            return Err(self.no_batch(format!("no stretch goes on at {from}")));
        };
        if stretch.begun > from {
            return self.batch(from..stretch.begun, stretch.encoder).map(Some);
        }
        let (range, records) = self.records(from..stretch.end.min(self.committed()), bounds)?;
        if range.end > from {
            // Numbers of a gap before the batch are done with.
            let missing = self.missing().saturating_sub(range.start - from);
            let passed =
                (range.start > from).then(|| (Row::missing(&self.output), Some(codec::put_number(missing))));
            let begun = sending.with_begun(from, &range, encoder);
            self.replace(
                &mut sending,
                begun,
                || headwater_fail::point("outbox.begun"),
                |change| meta.apply(&[change].into_iter().chain(passed).collect::<Vec<_>>()),
            )?;
            self.missing.store(missing, Ordering::Release);
        }
        let encoder = encoder.cloned();
        Ok((!records.is_empty()).then_some(Batch { range, records, encoder }))
    }

    /// Begins the begun batch of a stretch anew, under the same numbers, with another encoder.
    pub(super) fn begin_anew(&self, meta: &Meta, from: Seq, encoder: &EncoderMark) -> Result<(), Error> {
        let mut sending = lock(&self.sending);
        let Some(stretch) = sending.stretch(from).filter(|stretch| stretch.begun > from) else {
            return Err(self.no_batch(format!("none is begun at {from}")));
        };
        let begun = sending.with_begun(from, &(from..stretch.begun), Some(encoder));
        let done = || headwater_fail::point("outbox.begun-anew");
        self.replace(&mut sending, begun, done, |change| meta.apply(&[change]))
    }

    pub(super) fn narrow(&self, meta: &Meta, from: Option<Seq>, results: usize) -> Result<Batch, Error> {
        let mut sending = lock(&self.sending);
        let from = from.unwrap_or(sending.confirmed());
        let stretch = sending.stretch(from);
        let begun = stretch.as_ref().map_or(from, |stretch| stretch.begun);
        let end = from.saturating_add(results as Seq);
        if results == 0 || end > begun {
            return Err(self.no_batch(format!("{results} results of {from}..{begun}")));
        }
        let batch = self.batch(from..end, stretch.and_then(|stretch| stretch.encoder))?;
        let narrowed = sending.with_begun(from, &batch.range, batch.encoder.as_ref());
        self.replace(
            &mut sending,
            narrowed,
            || headwater_fail::point("outbox.narrowed"),
            |change| meta.apply(&[change]),
        )?;
        Ok(batch)
    }

    /// Forgets the begun batch: `commit` makes the change of `meta` it is given durable.
    pub(super) fn confirm(
        &self,
        batch: &Range<Seq>,
        commit: impl FnOnce(Change) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut sending = lock(&self.sending);
        let Some(confirmed) = sending.with_confirmed(batch) else {
            return Err(self.no_batch(format!("{batch:?} confirmed, begun is {:?}", sending.numbers())));
        };
        self.replace(&mut sending, Some(confirmed), || headwater_fail::point("outbox.confirmed"), commit)
    }

    /// Lets what follows `at` overtake what is before it; whether it now does.
    pub(super) fn cut(&self, meta: &Meta, at: Seq) -> Result<bool, Error> {
        let mut sending = lock(&self.sending);
        let Some(cut) = sending.with_cut(at).filter(|_| at <= self.committed()) else {
            return Ok(false);
        };
        self.replace(
            &mut sending,
            Some(cut),
            || headwater_fail::point("outbox.cut"),
            |change| meta.apply(&[change]),
        )?;
        Ok(true)
    }

    /// Makes the next state durable, and only then the state.
    fn replace(
        &self,
        sending: &mut Sending,
        next: Option<Sending>,
        done: fn(),
        commit: impl FnOnce(Change) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(next) = next else {
            return Err(self.no_batch(format!("no such step from {:?}", sending.numbers())));
        };
        commit((Row::batch(&self.output), Some(codec::put_batch(&next))))?;
        done();
        *sending = next;
        self.confirmed.store(sending.confirmed(), Ordering::Release);
        self.arrived.store(sending.arrived(), Ordering::Release);
        Ok(())
    }

    fn batch(&self, range: Range<Seq>, encoder: Option<EncoderMark>) -> Result<Batch, Error> {
        let (found, records) = self.records(range.clone(), &BatchBounds::NONE)?;
        if found == range {
            Ok(Batch { range, records, encoder })
        } else {
            Err(self.no_batch(format!("of the results {range:?} only {found:?} are there")))
        }
    }

    /// Returns the first records of the range that follow each other, and their numbers. Without records the
    /// numbers are empty, and all before them are gone.
    fn records(
        &self,
        range: Range<Seq>,
        bounds: &BatchBounds<'_>,
    ) -> Result<(Range<Seq>, Vec<Vec<u8>>), Error> {
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut first = range.start;
        let mut bytes: usize = 0;
        let reached = self.log.read_until(range, |seq, record| {
            if records.is_empty() {
                first = seq;
            }
            if seq != first + records.len() as Seq {
                return Ok(ControlFlow::Break(()));
            }
            let body = codec::record(record).map_err(|garbled| self.garbled(garbled))?.body;
            bytes = bytes.saturating_add((bounds.size)(body));
            records.push(body.to_vec());
            let full = records.len() >= bounds.records_max || bytes >= bounds.bytes_max;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let end = if records.is_empty() { reached } else { first + records.len() as Seq };
        Ok((if records.is_empty() { end } else { first }..end, records))
    }

    pub(super) fn garbled(&self, garbled: codec::Garbled) -> Error {
        Error::garbled(self.log.folder(), "a result", garbled)
    }

    fn no_batch(&self, detail: String) -> Error {
        Error::NoBatch { output: self.output.clone(), detail }
    }
}

/// The parts of `ranges` that lie in `range`.
pub(super) fn clip(ranges: &[Range<Seq>], range: &Range<Seq>) -> Vec<Range<Seq>> {
    let part = |one: &Range<Seq>| one.start.max(range.start)..one.end.min(range.end);
    ranges.iter().map(part).filter(|part| !part.is_empty()).collect()
}

/// When the last result was made, if there is one.
fn newest(log: &Log) -> Result<Timestamp, Error> {
    let (mut newest, end) = (Timestamp(0), log.end());
    log.read(end.saturating_sub(1)..end, Page { records_max: 1, bytes_max: 1 }, |_, record| {
        let garbled = |garbled| Error::garbled(log.folder(), "a result", garbled);
        newest = codec::record(record).map_err(garbled)?.made;
        Ok(())
    })?;
    Ok(newest)
}

/// The row of a new outbox.
fn create(output: &str, path: &Path, meta: &Meta) -> Result<Epoch, Error> {
    if path.exists() {
        return Err(Error::damaged(path, "its row is missing from `meta`"));
    }
    let epoch = new_epoch()?;
    meta.apply(&[(Row::outbox(output), Some(codec::put_outbox(epoch, 0)))])?;
    headwater_fail::point("outbox.created");
    Ok(epoch)
}

/// A new epoch.
pub(super) fn new_epoch() -> Result<Epoch, Error> {
    random_bits().map(Epoch)
}

/// The second copy of the epoch, beside the log; `None` where there is none.
pub(super) fn kept_epoch(folder: &Path) -> Result<Option<Epoch>, Error> {
    let path = folder.join(EPOCH);
    match std::fs::read(&path) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            Ok(text.strip_suffix('\n').and_then(|text| u128::from_str_radix(text, 16).ok()).map(Epoch))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // The folder is a file, or the file a folder: then it tells nothing.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotADirectory | std::io::ErrorKind::IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(Error::io("read", &path, source)),
    }
}

/// Writes it, durably, unless it is there.
fn keep_epoch(folder: &Path, epoch: Epoch) -> Result<(), Error> {
    if kept_epoch(folder)? == Some(epoch) {
        return Ok(());
    }
    let (made, path) = (folder.join(".epoch"), folder.join(EPOCH));
    let write = || {
        let mut file = std::fs::File::create(&made)?;
        std::io::Write::write_all(&mut file, format!("{epoch}\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&made, &path)
    };
    write().map_err(|source| Error::io("write", &path, source))?;
    sync::sync_path(folder)
}

fn random_bits() -> Result<u128, Error> {
    use std::io::Read;
    let path = Path::new("/dev/urandom");
    let mut bits = [0; 16];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bits))
        .map_err(|source| Error::io("read", path, source))?;
    Ok(u128::from_le_bytes(bits))
}
