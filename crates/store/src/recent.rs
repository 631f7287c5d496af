//! Window state that changed lately: in memory, and in a log of blocks within `meta`.
//!
//! With many keys in turn each reading changes another row. As rows of their own these would be written in
//! no order, which costs the engine a page each. So a commit writes its changes one after the other
//! into blocks, in the one batch that makes it; state is moved to rows only when there is too much of it
//! to be held in memory.
//!
//! **Invariants.** Blocks are numbered without gaps, and replayed in their order they give what is held.
//! What is held goes before rows of the same key. Only the oldest block ever goes, and what of it
//! still holds goes with it into the newest or into rows: so the mark that something was removed
//! needs to outlast no more than the blocks before it. A block of which nothing holds goes unread, as nearly
//! all do with many keys in turn.
//!
//! **Limits.** [`Bounds`]: of memory, and of the log to twice what of it still holds and
//! [`SPARE_BYTES`].
//!
//! **A crash here** costs nothing: all of it is in the one batch.

mod held;

use super::codec::{self, Garbled, Row};
use super::error::Error;
use super::meta::{self, Meta};
use super::{Change, EachOf, WINDOW_TAIL_BYTES};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use held::{Held, Rows, Tail};

/// Bytes of a block that is not of one large row: those of one value of the engine.
const BLOCK_BYTES: usize = codec::CHUNK_BODY_MAX;
/// Log that may hold nothing any more, beside as much as does.
const SPARE_BYTES: usize = 256 << 10;
/// Bytes of old blocks that a commit goes through for each that it writes: twice as many keep the log bounded.
pub(super) const PACE: usize = 3;
/// What a row and a key take in memory beside their bytes.
const HELD_ROW_BYTES: usize = 60;
const HELD_KEY_BYTES: usize = 140;

/// The late changes of one pipeline.
#[derive(Debug)]
pub(super) struct Recent {
    pipeline: String,
    held: HashMap<Box<[u8]>, Rows>,
    /// Bytes of memory that this takes, and most that it may.
    bytes: usize,
    bytes_max: usize,
    /// In the store, by number, oldest first.
    blocks: VecDeque<Block>,
    /// Number of the next block.
    next: u64,
    free: BTreeSet<u32>,
    /// Of each block, and of those of the commit at work, how many rows still hold; and the first one's number.
    holding: VecDeque<u32>,
    first: u64,
    /// Bytes of all blocks, and of what of them still holds.
    log_bytes: usize,
    live_bytes: usize,
    /// Keys that may have rows of their own, by their hashes.
    settled: HashSet<u64>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Block {
    slot: u32,
    bytes: usize,
}

/// What a commit adds to the log.
#[derive(Debug, Default)]
struct Draft {
    /// Full blocks.
    sealed: Vec<Vec<u8>>,
    last: Vec<u8>,
    bytes: usize,
}

impl Recent {
    /// What the store holds of the pipeline.
    pub(super) fn open(meta: &Meta, pipeline: &str, bytes_max: usize) -> Result<Self, Error> {
        let mut recent = Self {
            pipeline: pipeline.to_owned(),
            held: HashMap::new(),
            bytes: 0,
            bytes_max,
            blocks: VecDeque::new(),
            next: 0,
            free: BTreeSet::new(),
            holding: VecDeque::new(),
            first: 0,
            log_bytes: 0,
            live_bytes: 0,
            settled: HashSet::new(),
            hasher: RandomState::new(),
        };
        let mut blocks = Vec::new();
        meta.scan(&Row::recents(pipeline), |row, value| {
            let (slot, number) =
                row.slot().zip(codec::block_number(&value).ok()).ok_or_else(|| gone(meta))?;
            blocks.push((number, slot, value.len()));
            Ok(())
        })?;
        blocks.sort_unstable();
        if blocks.windows(2).any(|pair| pair[0].0 + 1 != pair[1].0) {
            return Err(gone(meta));
        }
        let slots = blocks.iter().map(|(_, slot, _)| slot + 1).max().unwrap_or(0);
        recent.free = (0..slots).collect();
        recent.first = blocks.first().map_or(0, |(number, ..)| *number);
        for (number, slot, bytes) in blocks {
            recent.free.remove(&slot);
            let value = meta.get(&Row::recent(pipeline, slot))?.ok_or_else(|| gone(meta))?;
            recent.replay(number, &value).map_err(|garbled| meta.garbled("a block of windows", garbled))?;
            recent.blocks.push_back(Block { slot, bytes });
            recent.log_bytes += bytes;
            recent.next = number + 1;
        }
        meta.scan(&Row::windows(pipeline), |_, value| {
            let (key, _) = codec::window(&value).map_err(|garbled| meta.garbled("a window", garbled))?;
            recent.settled.insert(recent.hasher.hash_one(split(&key).0));
            Ok(())
        })?;
        Ok(recent)
    }

    /// Shows the rows of a key, those held and those of the store, by their tails.
    pub(super) fn shelf<E: From<Error>>(
        &mut self,
        meta: &Meta,
        shelf: &[u8],
        each: EachOf<'_, E>,
    ) -> Result<(), E> {
        let held = self.held.get(shelf);
        let hash = (!self.settled.is_empty()).then(|| self.hasher.hash_one(shelf));
        if let Some(hash) = hash.filter(|hash| self.settled.contains(hash)) {
            let rows = settled(meta, &self.pipeline, shelf)?;
            if rows.is_empty() {
                self.settled.remove(&hash);
            }
            let is_held = |tail| held.is_some_and(|held| held.find(tail).is_ok());
            for (tail, value) in rows.iter().filter(|(tail, _)| !is_held(tail)) {
                each(cut(tail), value)?;
            }
        }
        held.into_iter().flat_map(Rows::iter).try_for_each(|row| each(cut(&row.tail), &row.value))
    }

    /// Bytes of memory that this takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether some row of the key is held.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        self.held.contains_key(split(key).0)
    }

    /// All keys of which some row is held.
    pub(super) fn shelves(&self) -> Vec<Box<[u8]>> {
        self.held.keys().cloned().collect()
    }

    /// Takes changes, and adds to `batch` what makes them durable. Fails that batch, nothing may be asked
    /// of this any more.
    pub(super) fn take(
        &mut self,
        meta: &Meta,
        changes: &[Change],
        batch: &mut Vec<meta::Change>,
    ) -> Result<(), Error> {
        let mut draft = Draft::default();
        for (key, value) in changes {
            let (shelf, tail) = split(key);
            match value {
                Some(value) => self.put(&mut draft, shelf, tail, value),
                None => self.remove(&mut draft, shelf, tail, batch),
            }
        }
        let (written, mut freed, mut gone_through) = (draft.bytes, Vec::new(), 0);
        loop {
            let is_long = self.log_bytes + draft.bytes > 2 * self.live_bytes + SPARE_BYTES
                && gone_through <= PACE * (written + BLOCK_BYTES);
            let is_much = self.bytes > self.bytes_max;
            if !is_long && !is_much {
                break;
            }
            let Some(oldest) = self.blocks.pop_front() else { break };
            self.log_bytes -= oldest.bytes;
            self.first += 1;
            freed.push(oldest.slot);
            if self.holding.pop_front().is_none_or(|rows| rows == 0) {
                // Nobody needs to read it.
                continue;
            }
            gone_through += oldest.bytes;
            let row = Row::recent(&self.pipeline, oldest.slot);
            let block = meta.get(&row)?.ok_or_else(|| gone(meta))?;
            self.renew(&block, is_much, &mut draft, batch)
                .map_err(|garbled| meta.garbled("a block of windows", garbled))?;
        }
        self.write(draft, freed, batch);
        Ok(())
    }

    fn put(&mut self, draft: &mut Draft, shelf: &[u8], tail: Tail, value: &[u8]) {
        let block = draft.push(self.next, shelf, &tail, Some(value));
        self.hold(block);
        self.live_bytes += entry_bytes(shelf, value);
        self.bytes += HELD_ROW_BYTES + value.len();
        let row = || Held { tail, block, value: value.into() };
        let Some(held) = self.held.get_mut(shelf) else {
            self.bytes += HELD_KEY_BYTES + shelf.len();
            self.held.insert(shelf.into(), Rows::One(row()));
            return;
        };
        let at = match held.find(&tail) {
            Ok(at) => at,
            Err(at) => return held.insert(at, row()),
        };
        let before = held.at(at);
        self.live_bytes -= entry_bytes(shelf, &before.value);
        self.bytes -= HELD_ROW_BYTES + before.value.len();
        let of = std::mem::replace(&mut before.block, block);
        if before.value.len() == value.len() {
            before.value.copy_from_slice(value);
        } else {
            before.value = value.into();
        }
        self.release(of);
    }

    /// A block has one row more that holds.
    fn hold(&mut self, block: u64) {
        let at = (block - self.first) as usize;
        if at >= self.holding.len() {
            self.holding.resize(at + 1, 0);
        }
        self.holding[at] += 1;
    }

    /// A block has one less, unless it is on its way out.
    fn release(&mut self, block: u64) {
        if let Some(rows) = block.checked_sub(self.first).and_then(|at| self.holding.get_mut(at as usize)) {
            *rows -= 1;
        }
    }

    fn remove(&mut self, draft: &mut Draft, shelf: &[u8], tail: Tail, batch: &mut Vec<meta::Change>) {
        // What is neither held nor in rows is not in the log either, or marked there as removed.
        if self.forget(shelf, tail, |_| true).is_some() {
            draft.push(self.next, shelf, &tail, None);
        }
        if self.settled.contains(&self.hasher.hash_one(shelf)) {
            batch.push((Row::window(&self.pipeline, &joined(shelf, &tail)), None));
        }
    }

    /// Holds a row no more, if it is `as` said.
    fn forget(&mut self, shelf: &[u8], tail: Tail, is: impl Fn(&Held) -> bool) -> Option<Box<[u8]>> {
        let held = self.held.get_mut(shelf)?;
        let at = held.find(&tail).ok().filter(|at| is(held.at(*at)))?;
        let row = match held.remove(at) {
            Some(row) => row,
            None => {
                self.bytes -= HELD_KEY_BYTES + shelf.len();
                let Some(Rows::One(row)) = self.held.remove(shelf) else { return None };
                row
            }
        };
        self.live_bytes -= entry_bytes(shelf, &row.value);
        self.bytes -= HELD_ROW_BYTES + row.value.len();
        self.release(row.block);
        Some(row.value)
    }

    /// Moves what still holds of a block to the end of the log, or into rows.
    fn renew(
        &mut self,
        block: &[u8],
        into_rows: bool,
        draft: &mut Draft,
        batch: &mut Vec<meta::Change>,
    ) -> Result<(), Garbled> {
        let (number, entries) = codec::block(block)?;
        for entry in entries {
            let (shelf, tail, _) = entry?;
            let tail = padded(tail)?;
            let Some(value) = self.forget(shelf, tail, |row| row.block == number) else { continue };
            if into_rows {
                let key = joined(shelf, &tail);
                let row = codec::put_window(&key, &value);
                batch.push((Row::window(&self.pipeline, &key), Some(row)));
                self.settled.insert(self.hasher.hash_one(shelf));
            } else {
                self.put(draft, shelf, tail, &value);
            }
        }
        Ok(())
    }

    /// Gives blocks their places: those of the blocks that go, as far as there are any.
    fn write(&mut self, draft: Draft, freed: Vec<u32>, batch: &mut Vec<meta::Change>) {
        self.free.extend(&freed);
        for block in draft.sealed.into_iter().chain([draft.last]).filter(|block| !block.is_empty()) {
            let slots = (self.blocks.len() + self.free.len()) as u32;
            let slot = self.free.pop_first().unwrap_or(slots);
            self.log_bytes += block.len();
            self.next += 1;
            self.blocks.push_back(Block { slot, bytes: block.len() });
            batch.push((Row::recent(&self.pipeline, slot), Some(block)));
        }
        let unused = freed.into_iter().filter(|slot| self.free.contains(slot));
        batch.extend(unused.map(|slot| (Row::recent(&self.pipeline, slot), None)));
    }

    fn replay(&mut self, number: u64, block: &[u8]) -> Result<(), Garbled> {
        let mut unwritten = Draft::default();
        let (_, entries) = codec::block(block)?;
        self.next = number;
        for entry in entries {
            let (shelf, tail, value) = entry?;
            let tail = padded(tail)?;
            match value {
                Some(value) => {
                    unwritten.clear();
                    self.put(&mut unwritten, shelf, tail, value);
                }
                None => drop(self.forget(shelf, tail, |_| true)),
            }
        }
        Ok(())
    }
}

/// Of all blocks, by their numbers: those behind which others are missing, or that are none.
pub(super) fn incomplete(mut blocks: Vec<(Option<u64>, Row)>) -> Vec<Row> {
    blocks.sort_by_cached_key(|(number, row)| (row.name(), *number));
    let bad = |pair: &[(Option<u64>, Row)]| {
        let [(before, row), (after, other)] = pair else { return None };
        let follows = before.is_some() && before.map(|before| before + 1) == *after;
        (row.name() == other.name() && !follows).then(|| row.clone())
    };
    let none = blocks.iter().filter(|(number, _)| number.is_none()).map(|(_, row)| row.clone());
    blocks.windows(2).filter_map(bad).chain(none).collect()
}

impl Draft {
    /// Adds a row to the last block, or to a new one; the number of that, when `first` is the first one's.
    fn push(&mut self, first: u64, shelf: &[u8], tail: &Tail, value: Option<&[u8]>) -> u64 {
        let bytes = entry_bytes(shelf, value.unwrap_or_default());
        if !self.last.is_empty() && self.last.len() + bytes > BLOCK_BYTES {
            self.sealed.push(std::mem::take(&mut self.last));
        }
        let number = first + self.sealed.len() as u64;
        if self.last.is_empty() {
            self.last.reserve_exact(BLOCK_BYTES);
            codec::put_block(&mut self.last, number);
        }
        codec::put_entry(&mut self.last, shelf, cut(tail), value);
        self.bytes += bytes;
        number
    }

    fn clear(&mut self) {
        self.sealed.clear();
        self.last.clear();
    }
}

/// The rows of a key that are in the store.
fn settled(meta: &Meta, pipeline: &str, shelf: &[u8]) -> Result<Vec<(Tail, Vec<u8>)>, Error> {
    let mut rows = Vec::new();
    meta.scan(&Row::shelf(pipeline, shelf), |_, value| {
        let (key, value) = codec::window(&value).map_err(|garbled| meta.garbled("a window", garbled))?;
        let (of, tail) = split(&key);
        if of == shelf {
            rows.push((tail, value));
        }
        Ok(())
    })?;
    Ok(rows)
}

/// At most what a row takes in a block.
fn entry_bytes(shelf: &[u8], value: &[u8]) -> usize {
    shelf.len() + WINDOW_TAIL_BYTES + value.len() + 12
}

/// The key of the window, and what tells it apart.
fn split(key: &[u8]) -> (&[u8], Tail) {
    match codec::window_tail(key) {
        Some((shelf, tail)) => (shelf, *tail),
        None => (key, Tail::default()),
    }
}

fn cut(tail: &Tail) -> &[u8] {
    if *tail == Tail::default() { &[] } else { tail }
}

fn padded(tail: &[u8]) -> Result<Tail, Garbled> {
    if tail.is_empty() {
        return Ok(Tail::default());
    }
    tail.try_into().map_err(|_| Garbled("a window's key has another end"))
}

fn joined(shelf: &[u8], tail: &Tail) -> Vec<u8> {
    [shelf, cut(tail)].concat()
}

fn gone(meta: &Meta) -> Error {
    meta.damaged("blocks of windows are missing")
}
