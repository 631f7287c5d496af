//! Dead letters that are given up: at their quota, or because they are too old.
//!
//! **Invariant.** Each letter that goes before it was given to a replay is told upstream once. It is
//! added up for its pipeline in the batch of `meta` from which on it cannot be read, before its segment
//! is removed; and the pipeline's commit that takes the sum over, into a report or its own books,
//! removes it here. A letter that was to be replayed and had to go is told by the pipeline that finds
//! it gone, in the commit that takes it from the queue.
//!
//! Those of pipelines that are no longer there are taken over by the first of those that are.
//!
//! **A crash here** leaves at worst a segment that holds only letters given up: it goes next.

use super::codec::{self, Row};
use super::error::Error;
use super::letters::{Marks, block};
use super::meta::Change;
use super::{Store, lock};
use headwater_flow::{DeadLetter, LossRun, ReportKind, Seq, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// What is not told yet, by the pipelines that refused the letters.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// The first letter that is not given up.
    below: Seq,
    owed: BTreeMap<String, Owed>,
}

#[derive(Clone, Debug, Default)]
struct Owed {
    /// Since it was last handed over.
    new: Sum,
    /// Handed over to this pipeline, which has not committed since.
    handed: Option<(String, Sum)>,
}

/// What went at the quota, and because of its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// At the quota.
    pub dropped: LossRun,
    /// Because of its age.
    pub expired: LossRun,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.dropped.add(&other.dropped);
        self.expired.add(&other.expired);
    }

    /// Nothing went.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.expired.is_empty()
    }

    fn change(&self, pipeline: &str) -> Change {
        let numbers = self.dropped.to_numbers().into_iter().chain(self.expired.to_numbers());
        (Row::given_up(pipeline), (!self.is_empty()).then(|| codec::put_numbers(numbers)))
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let numbers = codec::numbers(value).ok()?;
        let (dropped, expired) = numbers.split_first_chunk()?;
        let expired = expired.try_into().ok()?;
        Some(Self { dropped: LossRun::from_numbers(*dropped), expired: LossRun::from_numbers(expired) })
    }
}

impl Owed {
    fn all(&self) -> Sum {
        let mut all = self.handed.as_ref().map_or_else(Sum::default, |(_, sum)| *sum);
        all.add(&self.new);
        all
    }
}

impl GivenUp {
    /// As the rows say.
    pub(super) fn of(below: Seq, rows: Vec<(Row, Vec<u8>)>) -> Self {
        let owed = rows.iter().filter_map(|(row, value)| {
            let new = Sum::decode(value)?;
            Some((row.parts()?.1.to_owned(), Owed { new, handed: None }))
        });
        Self { below, owed: owed.collect() }
    }

    pub(super) fn below(&self) -> Seq {
        self.below
    }

    /// What a commit of the pipeline that takes over what it was handed removes.
    pub(super) fn told(&self, pipeline: &str) -> Vec<Change> {
        let handed = self.owed.iter().filter(|(_, owed)| is_handed(owed, pipeline));
        handed.map(|(owner, owed)| owed.new.change(owner)).collect()
    }

    /// It is committed.
    pub(super) fn committed(&mut self, pipeline: &str) {
        self.owed.values_mut().filter(|owed| is_handed(owed, pipeline)).for_each(|owed| owed.handed = None);
        self.owed.retain(|_, owed| !owed.all().is_empty());
    }
}

fn is_handed(owed: &Owed, pipeline: &str) -> bool {
    owed.handed.as_ref().is_some_and(|(to, _)| to == pipeline)
}

impl Store {
    /// The letters that were given up and that the pipeline is to tell of: its next commit is taken as
    /// holding that. Until then they are handed over again.
    #[must_use]
    pub fn given_up(&self, pipeline: &str) -> Sum {
        let mut letters = lock(&self.0.letters);
        let mut handed = Sum::default();
        for (owner, owed) in &mut letters.given_up.owed {
            if self.is_teller(pipeline, owner) {
                let all = owed.all();
                *owed = Owed { new: Sum::default(), handed: Some((pipeline.to_owned(), all)) };
                handed.add(&all);
            }
        }
        handed
    }

    /// Whether there is anything that [`Self::given_up`] would hand over.
    #[must_use]
    pub fn has_given_up(&self, pipeline: &str) -> bool {
        lock(&self.0.letters).given_up.owed.keys().any(|owner| self.is_teller(pipeline, owner))
    }

    /// The first letter that is kept.
    #[must_use]
    pub fn letters_start(&self) -> Seq {
        self.0.dead_letters.start().max(lock(&self.0.letters).given_up.below)
    }

    /// Gives up the segments of dead letters that hold only numbers below `below`, the last one
    /// excepted; how many letters went, replayed ones among them.
    pub(super) fn give_up_letters(&self, below: Seq, kind: ReportKind) -> Result<u64, Error> {
        let mut letters = lock(&self.0.letters);
        let log = &self.0.dead_letters;
        let ends = log.closed().into_iter().map(|segment| segment.end);
        let Some(end) = ends.take_while(|end| *end <= below.min(letters.end)).last() else { return Ok(0) };
        let first = log.start().max(letters.given_up.below);
        if first < end {
            let mut owed = letters.given_up.owed.clone();
            for (owner, sum) in self.sums(first, end, kind)? {
                owed.entry(owner).or_default().new.add(&sum);
            }
            let mut changes: Vec<_> = owed.iter().map(|(owner, owed)| owed.all().change(owner)).collect();
            changes.push((Row::letters_below(), Some(codec::put_number(end))));
            // With the letters: without its mark one that is there could be replayed twice.
            changes.extend((block(first)..block(end)).map(|block| (Row::letter_marks(block), None)));
            self.0.meta.apply(&changes)?;
            (letters.given_up.below, letters.given_up.owed) = (end, owed);
            headwater_fail::point("letters.given-up");
        }
        log.trim(end)?;
        Ok(end.saturating_sub(first))
    }

    /// What goes, by pipeline: what was replayed, or is to be, is not lost here.
    fn sums(&self, first: Seq, end: Seq, kind: ReportKind) -> Result<HashMap<String, Sum>, Error> {
        let (mut sums, mut marks, mut from) = (HashMap::<String, Sum>::new(), Marks::default(), first);
        loop {
            let page = self.letters_between(from, end, usize::MAX)?;
            let Some((last, _)) = page.last() else { return Ok(sums) };
            from = last + 1;
            for (number, letter) in page {
                if marks.has(self, number)? {
                    continue;
                }
                let sum = sums.entry(letter.pipeline.clone()).or_default();
                let run = if kind == ReportKind::Expired { &mut sum.expired } else { &mut sum.dropped };
                run.add(&LossRun::single(Some(number), arrival(&letter)));
            }
        }
    }

    fn is_teller(&self, pipeline: &str, owner: &str) -> bool {
        if pipeline == owner {
            return true;
        }
        let readers = lock(&self.0.readers);
        readers.as_ref().is_some_and(|readers| {
            readers.first().is_some_and(|first| first == pipeline) && readers.iter().all(|name| name != owner)
        })
    }
}

/// When its message arrived; where that is not known, when it was refused.
fn arrival(letter: &DeadLetter) -> (Timestamp, Timestamp) {
    let time = if letter.received.0 > 0 { letter.received } else { Timestamp(letter.time) };
    (time, time)
}
