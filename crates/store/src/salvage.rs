//! What is left of a damaged segment: the slots that the engine still gives, and the frames that lie
//! in the bytes of its file.
//!
//! sled stores values uncompressed and in one piece, so a frame whose checksum matches can be carved
//! out, wherever it is. In the journal a frame is written once. In the other logs the bytes may also
//! hold the frames of a step that was never committed, under numbers that were given again: where two
//! different records are found for one number, neither is trusted.

use super::engine::Engine;
use super::error::Error;
use super::frame::{Body, Frame, unpack};
use super::segment;
use headwater_flow::Seq;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long the engine may take for a damaged database; then only the bytes are searched.
pub(super) const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// What was found under each number; `None` where two were found that differ.
type Pieces<K> = BTreeMap<K, Option<Vec<u8>>>;

/// Slots read ahead of who takes them.
const SLOTS_AHEAD: usize = 256;

/// Records found so far.
#[derive(Debug)]
pub(super) struct Found {
    range: Range<Seq>,
    records: Pieces<Seq>,
    /// Parts of split records: by number, of how many, by index.
    parts: BTreeMap<(Seq, u16), Pieces<u16>>,
    gaps: Vec<Range<Seq>>,
}

/// What a segment can be composed of again.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// In order of their numbers.
    pub(super) records: Vec<(Seq, Vec<u8>)>,
    /// Numbers that had no record before the damage either.
    pub(super) gaps: Vec<Range<Seq>>,
}

impl Found {
    /// Nothing yet; what is found outside of `range` is left out.
    pub(super) fn new(range: Range<Seq>) -> Self {
        Self { range, records: BTreeMap::new(), parts: BTreeMap::new(), gaps: Vec::new() }
    }

    /// Takes what the engine gives slot by slot. It may hang on a damaged database, so it works on a
    /// thread of its own, which is left alone then.
    pub(super) fn by_engine(&mut self, folder: &Path) -> Result<(), Error> {
        let (given, values) = mpsc::sync_channel(SLOTS_AHEAD);
        let path = folder.to_owned();
        let read = move || -> Result<(), Error> {
            let engine = Engine::open_damaged(&path)?;
            segment::each_slot(&engine, |value| given.send(value.to_vec()).is_ok());
            Ok(())
        };
        let thread = std::thread::Builder::new()
            .name("store-salvage".to_owned())
            .spawn(read)
            .map_err(|source| Error::io("start a thread for", folder, source))?;
        loop {
            match values.recv_timeout(ENGINE_PATIENCE) {
                Ok(value) => self.take(Frame::parse(&value).ok()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Error::damaged(folder, "the engine hangs"));
                }
            }
        }
        thread.join().unwrap_or_else(|_| Err(Error::damaged(folder, "the engine panicked")))
    }

    /// Searches the bytes of the database's file.
    pub(super) fn by_bytes(&mut self, bytes: &[u8]) {
        for at in 0..bytes.len() {
            self.take(Frame::begins(&bytes[at..], &self.range));
        }
    }

    pub(super) fn finish(mut self) -> Salvaged {
        for ((seq, total), parts) in std::mem::take(&mut self.parts) {
            let whole: Option<Vec<_>> = (0..total).map(|index| parts.get(&index)?.clone()).collect();
            if let Some(whole) = whole {
                self.record(seq, &whole.concat());
            }
        }
        let records = self.records.into_iter();
        let records = records.filter_map(|(seq, record)| record.map(|record| (seq, record))).collect();
        Salvaged { records, gaps: self.gaps }
    }

    fn take(&mut self, frame: Option<Frame<'_>>) {
        let Some(frame) = frame else { return };
        match frame.body {
            Body::Packed { count, bytes } => {
                let records: Result<Vec<_>, _> = unpack(count, bytes).collect();
                for (seq, record) in (frame.first..).zip(records.into_iter().flatten()) {
                    self.record(seq, record);
                }
            }
            Body::Part { index, total, bytes } => {
                let parts = self.parts.entry((frame.first, total)).or_default();
                put(parts, index, bytes);
            }
            Body::Gap { numbers } => self.gaps.push(frame.first..frame.first.saturating_add(numbers)),
        }
    }

    fn record(&mut self, seq: Seq, record: &[u8]) {
        if self.range.contains(&seq) {
            put(&mut self.records, seq, record);
        }
    }
}

fn put<K: Ord>(found: &mut Pieces<K>, key: K, bytes: &[u8]) {
    let known = found.entry(key).or_insert_with(|| Some(bytes.to_vec()));
    if known.as_ref().is_some_and(|known| known != bytes) {
        *known = None;
    }
}

impl Salvaged {
    /// The numbers of `range` that are lost: neither record nor gap.
    pub(super) fn lost(&self, range: &Range<Seq>) -> Vec<Range<Seq>> {
        let records = self.records.iter().map(|(seq, _)| *seq..seq + 1);
        let mut held: Vec<_> = records.chain(self.gaps.iter().cloned()).collect();
        held.sort_by_key(|held| held.start);
        let (mut lost, mut next) = (Vec::new(), range.start);
        for held in held {
            if held.start > next {
                lost.push(next..held.start.min(range.end));
            }
            next = next.max(held.end);
        }
        if next < range.end {
            lost.push(next..range.end);
        }
        lost.retain(|lost| !lost.is_empty());
        lost
    }

    /// One past the last record.
    pub(super) fn end(&self) -> Option<Seq> {
        self.records.last().map(|(seq, _)| seq + 1)
    }
}
