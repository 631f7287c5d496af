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
use super::sending::Sending;
use super::{Batch, lock};
use crate::flow::{Epoch, Seq};
use crate::metrics;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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
        let log = Log::open(&path, End::Committed(end), shared, metrics)?;
        Ok(Self {
            output: output.to_owned(),
            epoch,
            log,
            appending: Mutex::default(),
            committed: AtomicU64::new(end),
            confirmed: AtomicU64::new(sending.confirmed()),
            arrived: AtomicU64::new(sending.arrived()),
            sending: Mutex::new(sending),
        })
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
        let arrived = self.arrived.load(Ordering::Acquire);
        self.committed().saturating_sub(arrived)
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

    /// In the stretch whose next result is `from`, the oldest if none is named.
    pub(super) fn begin(&self, meta: &Meta, from: Option<Seq>, page: Page) -> Result<Option<Batch>, Error> {
        let mut sending = lock(&self.sending);
        let from = from.unwrap_or(sending.confirmed());
        let Some(stretch) = sending.stretch(from) else {
            return Err(self.no_batch(format!("no stretch goes on at {from}")));
        };
        if stretch.begun > from {
            return self.batch(from..stretch.begun).map(Some);
        }
        let (range, lines) = self.lines(from..stretch.end.min(self.committed()), page)?;
        if range.end > from {
            // Numbers of a gap before the batch are done with.
            let begun = sending.with_begun(from, &range);
            self.replace(&mut sending, begun, "outbox.begun", |change| meta.apply(&[change]))?;
        }
        Ok((!lines.is_empty()).then_some(Batch { range, lines }))
    }

    pub(super) fn narrow(&self, meta: &Meta, from: Option<Seq>, results: usize) -> Result<Batch, Error> {
        let mut sending = lock(&self.sending);
        let from = from.unwrap_or(sending.confirmed());
        let begun = sending.stretch(from).map_or(from, |stretch| stretch.begun);
        let end = from.saturating_add(results as Seq);
        if results == 0 || end > begun {
            return Err(self.no_batch(format!("{results} results of {from}..{begun}")));
        }
        let batch = self.batch(from..end)?;
        let narrowed = sending.with_begun(from, &batch.range);
        self.replace(&mut sending, narrowed, "outbox.narrowed", |change| meta.apply(&[change]))?;
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
        self.replace(&mut sending, Some(confirmed), "outbox.confirmed", commit)
    }

    /// Lets what follows `at` overtake what is before it; whether it now does.
    pub(super) fn cut(&self, meta: &Meta, at: Seq) -> Result<bool, Error> {
        let mut sending = lock(&self.sending);
        let Some(cut) = sending.with_cut(at).filter(|_| at <= self.committed()) else {
            return Ok(false);
        };
        self.replace(&mut sending, Some(cut), "outbox.cut", |change| meta.apply(&[change]))?;
        Ok(true)
    }

    /// Makes the next state durable, and only then the state.
    fn replace(
        &self,
        sending: &mut Sending,
        next: Option<Sending>,
        done: &'static str,
        commit: impl FnOnce(Change) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(next) = next else {
            return Err(self.no_batch(format!("no such step from {:?}", sending.numbers())));
        };
        commit((Row::batch(&self.output), Some(codec::put_batch(&next))))?;
        crate::fail::point(done);
        *sending = next;
        self.confirmed.store(sending.confirmed(), Ordering::Release);
        self.arrived.store(sending.arrived(), Ordering::Release);
        Ok(())
    }

    fn batch(&self, range: Range<Seq>) -> Result<Batch, Error> {
        let page = Page { records_max: usize::MAX, bytes_max: usize::MAX };
        let (found, lines) = self.lines(range.clone(), page)?;
        if found == range {
            Ok(Batch { range, lines })
        } else {
            Err(self.no_batch(format!("of the results {range:?} only {found:?} are there")))
        }
    }

    /// The first results of the range that follow each other, and their numbers. Without results the
    /// numbers are empty, and all before them are gone.
    fn lines(&self, range: Range<Seq>, page: Page) -> Result<(Range<Seq>, Vec<Vec<u8>>), Error> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let (mut first, mut contiguous) = (range.start, true);
        let reached = self.log.read(range, page, |seq, line| {
            if lines.is_empty() {
                first = seq;
            }
            contiguous &= seq == first + lines.len() as Seq;
            if contiguous {
                lines.push(line.to_vec());
            }
            Ok(())
        })?;
        let end = if lines.is_empty() { reached } else { first + lines.len() as Seq };
        Ok((if lines.is_empty() { end } else { first }..end, lines))
    }

    fn no_batch(&self, detail: String) -> Error {
        Error::NoBatch { output: self.output.clone(), detail }
    }
}

/// The row of a new outbox.
fn create(output: &str, path: &Path, meta: &Meta) -> Result<Epoch, Error> {
    if path.exists() {
        return Err(Error::damaged(path, "its row is missing from `meta`"));
    }
    let epoch = Epoch(random_bits()?);
    meta.apply(&[(Row::outbox(output), Some(codec::put_outbox(epoch, 0)))])?;
    crate::fail::point("outbox.created");
    Ok(epoch)
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
