//! One segment of a log: a database whose keys are slots, each written once.
//!
//! The slots are made ahead, empty, one by one: so the pages of the engine have their final
//! shape before any record comes, nine slots each, and each later write is one small link to a
//! page. Inserting new keys instead splits and rewrites every page again and again, which costs
//! five bytes written per byte of payload instead of 1.05 (measured with 4 KiB values).
//!
//! **Invariants.** Slot numbers are contiguous from 0; the used ones come first and hold frames
//! with contiguous sequence numbers from the segment's first, a gap's among them; all later ones are
//! empty. What breaks this is reported as damage when it is read.

use super::engine::{Churn, Engine, VALUE_BYTES_MAX, Value};
use super::error::Error;
use super::frame::{Body, Draft, Frame, Group, unpack};
use headwater_flow::Seq;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Slots made with the segment: about what 4 MiB take.
const SLOTS_AT_FIRST: u32 = 1024;
/// Slots made at once when small groups used all.
const SLOTS_MORE: u32 = 256;

/// The bytes of a damaged segment as they were before the engine opened it.
pub(super) const FOUND: &str = "db.found";
/// More than any segment has: one of 20,000 records and one write more.
const SLOTS_MAX: u32 = 65_536;

/// One open segment.
#[derive(Debug)]
pub(super) struct Segment {
    engine: Engine,
    first: Seq,
}

/// Where a segment's records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The next record's number.
    pub(super) next: Seq,
    /// The next slot to use.
    pub(super) slot: u32,
    /// Slots made.
    pub(super) slots: u32,
    /// Bytes of the frames.
    pub(super) bytes: u64,
}

impl Segment {
    /// Makes an empty segment in `folder`, durable but for its name.
    pub(super) fn create(folder: &Path) -> Result<(), Error> {
        let engine = Engine::create(folder)?;
        make_slots(&engine, 0, SLOTS_AT_FIRST)?;
        engine.finish()
    }

    /// Makes a segment in `folder` that holds these records, in order of their numbers, and gaps for
    /// all other numbers of `range`; durable but for its name.
    pub(super) fn compose(folder: &Path, range: Range<Seq>, records: &[(Seq, Vec<u8>)]) -> Result<(), Error> {
        let segment = Self { engine: Engine::create(folder)?, first: range.start };
        make_slots(&segment.engine, 0, SLOTS_AT_FIRST)?;
        let mut tail = Tail { next: range.start, slot: 0, slots: SLOTS_AT_FIRST, bytes: 0 };
        for run in records.chunk_by(|(before, _), (after, _)| before + 1 == *after) {
            segment.skip_to(&mut tail, run[0].0)?;
            let group = Group::of(run.iter().map(|(_, record)| record));
            let base = tail.next;
            segment.append(&mut tail, base, group.into_frames())?;
        }
        segment.skip_to(&mut tail, range.end)?;
        segment.engine.finish()
    }

    pub(super) fn open(folder: &Path, first: Seq) -> Result<Self, Error> {
        Ok(Self { engine: Engine::open(folder, Churn::Once)?, first })
    }

    /// Opens one that must reach up to number `least`, after a look at all of it: on some damage the
    /// engine drops what is behind it, and writes over that. So the bytes as they were are kept then.
    pub(super) fn open_reaching(folder: &Path, first: Seq, least: Seq) -> Result<Self, Error> {
        // Where they cannot be read, the engine will say.
        let bytes = std::fs::read(folder.join("db")).unwrap_or_default();
        let opened = Self::open(folder, first).and_then(|segment| {
            let next = segment.scan()?.next;
            if next < least { Err(segment.no_record(next)) } else { Ok(segment) }
        });
        if let Err(Error::Damaged { .. }) = &opened
            && !bytes.is_empty()
            && let Err(error) = std::fs::write(folder.join(FOUND), bytes)
        {
            tracing::warn!(%error, path = %folder.display(), "bytes of a damaged segment not kept");
        }
        opened
    }

    /// Reads all there is and finds the end.
    pub(super) fn scan(&self) -> Result<Tail, Error> {
        let mut tail = Tail { next: self.first, slot: 0, slots: self.slots()?, bytes: 0 };
        let mut part = 0;
        while let Some(value) = self.value(tail.slot)? {
            let frame = self.frame(tail.slot, &value)?;
            self.check_first(tail.slot, frame, tail.next)?;
            tail.slot += 1;
            tail.bytes += value.len() as u64;
            let (records, index, next_part) = match frame.body {
                Body::Packed { count, .. } => (u64::from(count), 0, 0),
                Body::Part { index, total, .. } if index + 1 == total => (1, index, 0),
                Body::Part { index, .. } => (0, index, index + 1),
                Body::Gap { numbers } => (numbers, 0, 0),
            };
            if index != part {
                return Err(self.no_record(frame.first));
            }
            part = next_part;
            tail.next += records;
        }
        if part != 0 {
            return Err(self.no_record(tail.next));
        }
        for slot in tail.slot..tail.slots {
            if self.value(slot)?.is_some() {
                let detail = format!("slot {} is empty, slot {slot} is not", tail.slot);
                return Err(Error::damaged(self.engine.path(), detail));
            }
        }
        Ok(tail)
    }

    /// Writes frames into the next slots; durable with the next `sync`.
    pub(super) fn append(
        &self,
        tail: &mut Tail,
        base: Seq,
        frames: impl IntoIterator<Item = Draft>,
    ) -> Result<(), Error> {
        let mut changes = Vec::new();
        let mut after = *tail;
        for frame in frames {
            after.next += frame.records;
            after.bytes += frame.len() as u64;
            changes.push((after.slot.to_be_bytes().to_vec(), Some(frame.seal(base))));
            after.slot += 1;
        }
        if after.slot > after.slots {
            let more = (after.slot - after.slots).next_multiple_of(SLOTS_MORE);
            make_slots(&self.engine, after.slots, after.slots + more)?;
            headwater_fail::point("segment.grown");
            after.slots += more;
        }
        self.engine.apply(changes)?;
        *tail = after;
        Ok(())
    }

    /// Forgets the records from number `end` on, which must begin a frame; durable when it returns.
    pub(super) fn truncate(&self, end: Seq) -> Result<(), Error> {
        let tail = self.scan()?;
        if tail.next <= end {
            return Ok(());
        }
        let Some(from) = self.find(end, tail.slots)? else {
            return Err(self.no_record(end));
        };
        let value = self.value(from)?.ok_or_else(|| self.no_record(end))?;
        self.check_first(from, self.frame(from, &value)?, end)?;
        let empty = |slot: u32| (slot.to_be_bytes().to_vec(), Some(Vec::new()));
        self.engine.apply((from..tail.slot).map(empty).collect())?;
        self.sync()
    }

    /// Hands the records in `from..until` to `each` until it breaks; says the number after the
    /// last one read or missing from a gap. Less than `until` without a break: the segment ends there.
    pub(super) fn read(
        &self,
        from: Seq,
        until: Seq,
        mut each: impl FnMut(Seq, &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(Seq, ControlFlow<()>), Error> {
        let slots = self.slots()?;
        let Some(mut slot) = self.find(from, slots)? else {
            return Ok((from, ControlFlow::Continue(())));
        };
        let mut next = None;
        let mut done = from;
        while done < until
            && let Some(value) = self.value(slot)?
        {
            let frame = self.frame(slot, &value)?;
            self.check_first(slot, frame, next.unwrap_or(frame.first))?;
            let (frames, records, flow) = match frame.body {
                Body::Packed { count, bytes } => {
                    let mut flow = ControlFlow::Continue(());
                    for (seq, record) in (frame.first..).zip(unpack(count, bytes)) {
                        let record = record.map_err(|garbled| self.garbled(slot, garbled))?;
                        if seq >= done && seq < until && flow.is_continue() {
                            flow = each(seq, record)?;
                            done = seq + 1;
                        }
                    }
                    (1, u64::from(count), flow)
                }
                Body::Part { total, .. } => {
                    let record = self.join(slot, frame.first, total)?;
                    let mut flow = ControlFlow::Continue(());
                    if frame.first >= done {
                        flow = each(frame.first, &record)?;
                        done = frame.first + 1;
                    }
                    (u32::from(total), 1, flow)
                }
                Body::Gap { numbers } => {
                    done = done.max(until.min(frame.first + numbers));
                    (1, numbers, ControlFlow::Continue(()))
                }
            };
            if flow.is_break() {
                return Ok((done, flow));
            }
            next = Some(frame.first + records);
            slot += frames;
        }
        Ok((done, ControlFlow::Continue(())))
    }

    /// Writes a gap up to number `next`.
    fn skip_to(&self, tail: &mut Tail, next: Seq) -> Result<(), Error> {
        if next <= tail.next {
            return Ok(());
        }
        let (base, gap) = (tail.next, Group::gap(next - tail.next));
        self.append(tail, base, gap.into_frames())
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.engine.sync()
    }

    /// Fails when the engine put a value into a file of its own.
    pub(super) fn check_blobs(&self) -> Result<(), Error> {
        self.engine.check_blobs()
    }

    /// The slot where the record's frame, or its first part, is.
    fn find(&self, seq: Seq, slots: u32) -> Result<Option<u32>, Error> {
        let (mut low, mut high) = (0, slots);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let value = self.value(middle)?;
            let frame = value.as_ref().map(|value| self.frame(middle, value)).transpose()?;
            match frame {
                Some(frame) if frame.first <= seq => {
                    low = middle + 1;
                    found = Some(match frame.body {
                        Body::Packed { .. } | Body::Gap { .. } => middle,
                        Body::Part { index, .. } => middle.saturating_sub(u32::from(index)),
                    });
                }
                _ => high = middle,
            }
        }
        Ok(found)
    }

    /// A record split over `total` slots.
    fn join(&self, slot: u32, first: Seq, total: u16) -> Result<Vec<u8>, Error> {
        let mut record = Vec::with_capacity(usize::from(total) * VALUE_BYTES_MAX);
        for number in 0..total {
            let slot = slot + u32::from(number);
            let value = self.value(slot)?.ok_or_else(|| self.no_record(first))?;
            let frame = self.frame(slot, &value)?;
            match frame.body {
                Body::Part { index, total: parts, bytes }
                    if index == number && parts == total && frame.first == first =>
                {
                    record.extend_from_slice(bytes);
                }
                _ => return Err(self.no_record(first)),
            }
        }
        Ok(record)
    }

    fn slots(&self) -> Result<u32, Error> {
        let Some(key) = self.engine.last_key()? else {
            return Err(Error::damaged(self.engine.path(), "it has no slots"));
        };
        let key = <[u8; 4]>::try_from(key)
            .map_err(|_| Error::damaged(self.engine.path(), "a key is not a slot"))?;
        Ok(u32::from_be_bytes(key).saturating_add(1))
    }

    /// The value of a used slot.
    fn value(&self, slot: u32) -> Result<Option<Value>, Error> {
        Ok(self.engine.get(&slot.to_be_bytes())?.filter(|value| !value.is_empty()))
    }

    fn frame<'a>(&self, slot: u32, value: &'a Value) -> Result<Frame<'a>, Error> {
        Frame::parse(value).map_err(|garbled| self.garbled(slot, garbled))
    }

    fn check_first(&self, slot: u32, frame: Frame<'_>, expected: Seq) -> Result<(), Error> {
        if frame.first == expected && (slot > 0 || frame.first == self.first) {
            return Ok(());
        }
        let detail = format!("slot {slot} begins at {}, not at {expected}", frame.first);
        Err(Error::damaged(self.engine.path(), detail))
    }

    fn garbled(&self, slot: u32, garbled: super::codec::Garbled) -> Error {
        Error::garbled(self.engine.path(), &format!("slot {slot}"), garbled)
    }

    fn no_record(&self, seq: Seq) -> Error {
        Error::damaged(self.engine.path(), format!("record {seq} is not whole"))
    }
}

/// One by one, not as a batch: a batch leaves pages that are rewritten later.
fn make_slots(engine: &Engine, from: u32, to: u32) -> Result<(), Error> {
    (from..to).try_for_each(|slot| engine.insert(&slot.to_be_bytes(), &[]))
}

/// Hands the value of each used slot to `each`, stepping over what the engine does not give, until it
/// says `false`: for a damaged database.
pub(super) fn each_slot(engine: &Engine, mut each: impl FnMut(&[u8]) -> bool) {
    let known = engine.last_key().ok().flatten().and_then(|key| key.as_slice().try_into().ok());
    let slots = known.map_or(SLOTS_MAX, |key| u32::from_be_bytes(key).saturating_add(1).min(SLOTS_MAX));
    for slot in 0..slots {
        if let Ok(Some(value)) = engine.get(&slot.to_be_bytes())
            && !value.is_empty()
            && !each(&value)
        {
            return;
        }
    }
}
