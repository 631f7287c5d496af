//! The dead letters, and what is to be replayed of them.
//!
//! **Invariants.** A letter is marked as replayed in the same batch of `meta` that puts it into its
//! pipeline's queue, and it leaves the queue in the commit that holds what became of it. So a
//! replay that was asked for happens once, whatever is killed when, and a second one is refused.
//!
//! **Limits.** [`QUEUE_MAX`] letters wait for a pipeline; more are refused until it has taken some. The
//! marks take a bit a letter. They go with the letters, the oldest first (`given_up.rs`): a
//! queued letter that is gone is stepped over and named in the log.

use super::codec::{self, Row};
use super::error::Error;
use super::folder::check_name;
use super::frame::Group;
use super::given_up::GivenUp;
use super::log::Page;
use super::meta::Change;
use super::{Store, lock, written_for};
use headwater_flow::{DeadLetter, Seq, StoredLetter};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// Bytes of dead letters read at once.
const PAGE_BYTES: usize = 1 << 20;
/// Letters that may wait for one pipeline.
pub const QUEUE_MAX: usize = 10_000;

/// What moves while letters are added, asked for or taken; held until that is committed.
#[derive(Debug)]
pub(super) struct Letters {
    /// Their committed end.
    pub(super) end: Seq,
    /// What is to be replayed, by pipeline; read from `meta` when first asked for.
    queues: HashMap<String, VecDeque<Seq>>,
    /// What went without a replay.
    pub(super) given_up: GivenUp,
}

/// A wish to replay one letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its number.
    pub number: Seq,
    /// Also if it was replayed before.
    pub again: bool,
    /// What is to be replayed in its place: kept as letters of their own.
    pub mended: Vec<DeadLetter>,
}

/// Why a letter is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none of that number.
    #[error("there is no such dead letter: it was never written, or trimmed since")]
    Missing,
    /// It was given to a replay before.
    #[error("it was replayed before: `--again` replays it once more, and it may then count twice")]
    Replayed,
    /// It is in the queue.
    #[error("it waits to be replayed")]
    Waiting,
    /// The queue has no room.
    #[error("{QUEUE_MAX} letters wait to be replayed: try again when some of them were")]
    Full,
}

impl Letters {
    pub(super) fn new(end: Seq, given_up: GivenUp) -> Self {
        Self { end, queues: HashMap::new(), given_up }
    }
}

impl Store {
    /// A page of dead letters from a number on: at least one if there is one, about 1 MiB of them.
    pub fn dead_letters(&self, from: Seq, max: usize) -> Result<Vec<(Seq, DeadLetter)>, Error> {
        let (below, end) = {
            let letters = lock(&self.0.letters);
            (letters.given_up.below(), letters.end)
        };
        self.letters_between(from.max(below), end, max)
    }

    /// The same, whether they are given up or not.
    pub(super) fn letters_between(
        &self,
        from: Seq,
        end: Seq,
        max: usize,
    ) -> Result<Vec<(Seq, DeadLetter)>, Error> {
        let page = Page { records_max: max, bytes_max: PAGE_BYTES };
        let mut letters = Vec::new();
        self.0.dead_letters.read(from..end, page, |seq, record| {
            let letter = codec::dead_letter(record)
                .map_err(|garbled| Error::garbled(&self.0.folder.dead_letters(), "a dead letter", garbled))?;
            letters.push((seq, letter));
            Ok(())
        })?;
        Ok(letters)
    }

    /// As [`Self::dead_letters`], with what is known of their replays.
    pub fn kept_letters(&self, from: Seq, max: usize) -> Result<Vec<StoredLetter>, Error> {
        let page = self.dead_letters(from, max)?;
        let mut marks = Marks::default();
        page.into_iter()
            .map(|(number, letter)| Ok(StoredLetter { number, replayed: marks.has(self, number)?, letter }))
            .collect()
    }

    /// Puts letters into the queue of the pipeline that refused them, durably; what speaks against
    /// each that is not put there. Whether the pipeline can take them is the caller's to know.
    ///
    /// # Errors
    /// [`Error::Full`] when the disk is nearly full: nothing was done, try again later.
    pub fn replay_letters(&self, pipeline: &str, wishes: &[Wish]) -> Result<Vec<Result<(), Refusal>>, Error> {
        check_name(pipeline)?;
        let bytes: usize =
            wishes.iter().flat_map(|wish| &wish.mended).map(|letter| letter.payload.len()).sum();
        self.0.room.check_commit(written_for(bytes as u64))?;
        let mut letters = lock(&self.0.letters);
        let (start, end) = (self.0.dead_letters.start().max(letters.given_up.below()), letters.end);
        let queue = self.queue(&mut letters, pipeline)?.clone();
        let (mut marks, mut mended, mut verdicts) = (Marks::default(), Vec::new(), Vec::new());
        let mut longer = queue.clone();
        for wish in wishes {
            let refusal = if !(start..end).contains(&wish.number) {
                Some(Refusal::Missing)
            } else if longer.contains(&wish.number) {
                Some(Refusal::Waiting)
            } else if marks.has(self, wish.number)? && !wish.again {
                Some(Refusal::Replayed)
            } else {
                (longer.len() + wish.mended.len().max(1) > QUEUE_MAX).then_some(Refusal::Full)
            };
            verdicts.push(refusal.map_or(Ok(()), Err));
            if refusal.is_some() {
                continue;
            }
            marks.set(self, wish.number)?;
            if wish.mended.is_empty() {
                longer.push_back(wish.number);
            }
            for letter in &wish.mended {
                let number = end + mended.len() as Seq;
                marks.set(self, number)?;
                longer.push_back(number);
                mended.push(letter.clone());
            }
        }
        if longer.len() == queue.len() {
            return Ok(verdicts);
        }
        let mut changes = marks.changes();
        changes.push(queue_change(pipeline, &longer));
        self.commit_appended(&mut letters, &mended, |end| {
            changes.extend(end);
            self.0.meta.apply(&changes)
        })?;
        letters.queues.insert(pipeline.to_owned(), longer);
        lock(&self.0.tail).nudges += 1;
        self.0.grown.notify_all();
        Ok(verdicts)
    }

    /// The next letters in the pipeline's queue, at least one if there is one; `None` for one that
    /// is gone: given up, or damaged. They stay there until a commit says that they were replayed.
    pub fn letters_to_replay(
        &self,
        pipeline: &str,
        max: usize,
    ) -> Result<Vec<(Seq, Option<DeadLetter>)>, Error> {
        check_name(pipeline)?;
        let next: Vec<Seq> =
            self.queue(&mut lock(&self.0.letters), pipeline)?.iter().take(max).copied().collect();
        let (mut found, mut bytes) = (Vec::with_capacity(next.len()), 0);
        for number in next {
            let letter = self.dead_letters(number, 1)?.pop().filter(|(seq, _)| *seq == number);
            bytes += letter.as_ref().map_or(0, |(_, letter)| letter.payload.len());
            found.push((number, letter.map(|(_, letter)| letter)));
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(found)
    }

    /// Letters that wait for the pipeline to replay them.
    pub fn waiting_letters(&self, pipeline: &str) -> Result<usize, Error> {
        check_name(pipeline)?;
        Ok(self.queue(&mut lock(&self.0.letters), pipeline)?.len())
    }

    /// One past the last dead letter.
    #[must_use]
    pub fn letters_end(&self) -> Seq {
        lock(&self.0.letters).end
    }

    /// Appends dead letters, takes `replayed` from the front of the pipeline's queue and forgets what it
    /// was handed of those given up, and lets `commit` commit all that with the changes of `meta` it is given.
    pub(super) fn commit_letters(
        &self,
        new: &[DeadLetter],
        (pipeline, replayed): (&str, usize),
        commit: impl FnOnce(Vec<Change>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut letters = lock(&self.0.letters);
        let told = letters.given_up.told(pipeline);
        if new.is_empty() && replayed == 0 && told.is_empty() {
            std::mem::drop(letters);
            return commit(Vec::new());
        }
        let mut rest = None;
        if replayed > 0 {
            let queue = self.queue(&mut letters, pipeline)?;
            rest = Some(queue.iter().skip(replayed).copied().collect::<VecDeque<_>>());
        }
        let taken = rest.as_ref().map(|rest| queue_change(pipeline, rest));
        let taken = told.into_iter().chain(taken);
        self.commit_appended(&mut letters, new, |end| commit(taken.chain(end).collect()))?;
        letters.given_up.committed(pipeline);
        if let Some(rest) = rest {
            letters.queues.insert(pipeline.to_owned(), rest);
        }
        Ok(())
    }

    fn commit_appended(
        &self,
        letters: &mut Letters,
        new: &[DeadLetter],
        commit: impl FnOnce(Option<Change>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if new.is_empty() {
            return commit(None);
        }
        let range = self.0.dead_letters.append(Group::of(new.iter().map(codec::put_dead_letter)))?;
        headwater_fail::point("commit.letters-appended");
        // What was appended and not committed would be taken for committed by the next commit.
        self.0.health.judge(commit(Some((Row::dead_letters(), Some(codec::put_number(range.end))))))?;
        letters.end = range.end;
        Ok(())
    }

    fn queue<'a>(&self, letters: &'a mut Letters, pipeline: &str) -> Result<&'a VecDeque<Seq>, Error> {
        if !letters.queues.contains_key(pipeline) {
            let row = self.0.meta.get(&Row::letter_queue(pipeline))?;
            let queue = codec::numbers(&row.unwrap_or_default())
                .map_err(|garbled| self.0.meta.garbled("a queue of replays", garbled))?;
            letters.queues.insert(pipeline.to_owned(), queue.into());
        }
        Ok(&letters.queues[pipeline])
    }
}

fn queue_change(pipeline: &str, queue: &VecDeque<Seq>) -> Change {
    let value = (!queue.is_empty()).then(|| codec::put_numbers(queue.iter().copied()));
    (Row::letter_queue(pipeline), value)
}

/// Letters that share a row of marks.
const BLOCK: Seq = 4096;

pub(super) fn block(number: Seq) -> Seq {
    number / BLOCK
}

/// Which letters were given to a replay: rows of a bit for each, read as they are needed.
#[derive(Default)]
pub(super) struct Marks(HashMap<Seq, (Vec<u8>, bool)>);

impl Marks {
    pub(super) fn has(&mut self, store: &Store, number: Seq) -> Result<bool, Error> {
        let (byte, bit) = place(number);
        Ok(self.row(store, number)?.0[byte] & bit != 0)
    }

    fn set(&mut self, store: &Store, number: Seq) -> Result<(), Error> {
        let (byte, bit) = place(number);
        let (row, changed) = self.row(store, number)?;
        row[byte] |= bit;
        *changed = true;
        Ok(())
    }

    fn changes(self) -> Vec<Change> {
        let changed = self.0.into_iter().filter(|(_, (_, changed))| *changed);
        changed.map(|(block, (row, _))| (Row::letter_marks(block), Some(row))).collect()
    }

    fn row(&mut self, store: &Store, number: Seq) -> Result<&mut (Vec<u8>, bool), Error> {
        let block = block(number);
        match self.0.entry(block) {
            Entry::Occupied(row) => Ok(row.into_mut()),
            Entry::Vacant(place) => {
                let mut row = store.0.meta.get(&Row::letter_marks(block))?.unwrap_or_default();
                row.resize((BLOCK / 8) as usize, 0);
                Ok(place.insert((row, false)))
            }
        }
    }
}

/// Byte and bit of a letter within its row.
fn place(number: Seq) -> (usize, u8) {
    let bit = number % BLOCK;
    ((bit / 8) as usize, 1 << (bit % 8))
}
