//! How much goes into the next batch, and into the next smaller one: pure.
//!
//! Two refusals look alike and differ. 413 is about size: both halves may be fine, so the size
//! learned lasts. 400 and 422 are about content: somewhere in the batch is a culprit, and what
//! is left of the batch is bisected until it stands alone. None of it is kept over a restart:
//! it only saves attempts.

use crate::flow::Seq;
use std::ops::Range;

/// Confirmed batches after which a size learned from 413 is tried doubled.
const CALM: u32 = 64;

/// Bounds of the next batch.
#[derive(Debug)]
pub(super) struct Portion {
    results_max: usize,
    bytes_max: usize,
    results: usize,
    bytes: usize,
    /// Refused for its content, and not yet narrowed down: a culprit is in it.
    suspect: Option<Range<Seq>>,
    calm: u32,
    refused_in_row: u32,
}

impl Portion {
    pub(super) fn new(results_max: usize, bytes_max: usize) -> Self {
        Self {
            results_max,
            bytes_max,
            results: results_max,
            bytes: bytes_max,
            suspect: None,
            calm: 0,
            refused_in_row: 0,
        }
    }

    /// For another stretch of the same way: what was learned of sizes holds there too.
    pub(super) fn of_another(&self) -> Self {
        Self { bytes: self.bytes, calm: self.calm, ..Self::new(self.results_max, self.bytes_max) }
    }

    /// Results and line bytes of the next batch, at most.
    pub(super) fn next(&self) -> (usize, usize) {
        let results = match &self.suspect {
            Some(suspect) => (len(suspect) / 2).clamp(1, self.results_max),
            None => self.results,
        };
        (results, self.bytes)
    }

    /// Single results refused with nothing accepted between them.
    pub(super) fn refused_in_row(&self) -> u32 {
        self.refused_in_row
    }

    /// The batch arrived.
    pub(super) fn confirmed(&mut self, batch: &Range<Seq>) {
        self.refused_in_row = 0;
        self.suspect =
            self.suspect.take().map(|suspect| batch.end..suspect.end).filter(|rest| !rest.is_empty());
        if self.suspect.is_none() {
            self.results = self.results.saturating_mul(2).min(self.results_max);
        }
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.bytes = self.bytes.saturating_mul(2).min(self.bytes_max);
        }
    }

    /// The batch, with line bytes of this size, was too large: how many of its results to try
    /// instead, or none when there is only one, which is then the culprit.
    pub(super) fn too_large(&mut self, batch: &Range<Seq>, bytes: usize) -> Option<usize> {
        self.calm = 0;
        if len(batch) < 2 {
            self.bytes = bytes.clamp(1, self.bytes_max);
            return self.culprit();
        }
        self.bytes = (bytes / 2).clamp(1, self.bytes_max);
        Some(len(batch) / 2)
    }

    /// The batch was refused for its content: as for [`Self::too_large`].
    pub(super) fn refused(&mut self, batch: &Range<Seq>) -> Option<usize> {
        if len(batch) < 2 {
            return self.culprit();
        }
        self.suspect = Some(batch.clone());
        Some(len(batch) / 2)
    }

    /// A second one in a row is the start of a run: singly from here, until one is accepted,
    /// rather than bisect the whole for each.
    fn culprit(&mut self) -> Option<usize> {
        self.suspect = None;
        self.refused_in_row = self.refused_in_row.saturating_add(1);
        if self.refused_in_row > 1 {
            self.results = 1;
        }
        None
    }
}

fn len(range: &Range<Seq>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Plays a destination that refuses any batch with a bad result in it or over its size.
    /// Returns what was dead-lettered and the number of attempts.
    fn play(count: u64, bad: &BTreeSet<Seq>, limit: usize, max: usize) -> (BTreeSet<Seq>, u32) {
        let line = 10;
        let mut portion = Portion::new(max, max * line);
        let (mut first, mut begun, mut dead, mut attempts) = (0, None, BTreeSet::new(), 0);
        while first < count {
            let (results, bytes) = portion.next();
            let size = begun.take().unwrap_or(results.min((bytes / line).max(1)));
            let batch = first..(first + size as u64).min(count);
            attempts += 1;
            let narrower = if len(&batch) * line > limit {
                portion.too_large(&batch, len(&batch) * line)
            } else if bad.range(batch.clone()).next().is_some() {
                portion.refused(&batch)
            } else {
                portion.confirmed(&batch);
                first = batch.end;
                continue;
            };
            begun = narrower;
            if narrower.is_none() {
                assert_eq!(len(&batch), 1);
                dead.insert(first);
                first = batch.end;
            }
        }
        (dead, attempts)
    }

    #[track_caller]
    fn check(bad: &[Seq], limit: usize, attempts_max: u32) {
        let bad: BTreeSet<Seq> = bad.iter().copied().collect();
        let (dead, attempts) = play(1000, &bad, limit, 1000);
        assert_eq!(dead, bad);
        assert!(attempts <= attempts_max, "{attempts} attempts");
    }

    #[test]
    fn a_culprit_costs_a_logarithm_of_attempts() {
        check(&[], usize::MAX, 1);
        for culprit in [0, 1, 137, 500, 998, 999] {
            check(&[culprit], usize::MAX, 25);
        }
        check(&[3, 700], usize::MAX, 50);
    }

    #[test]
    fn a_run_of_culprits_costs_one_attempt_each() {
        check(&(0..1000).collect::<Vec<_>>(), usize::MAX, 1030);
        check(&(200..400).collect::<Vec<_>>(), usize::MAX, 280);
    }

    #[test]
    fn a_size_learned_is_not_asked_for_again_and_again() {
        check(&[], 2_600, 10);
        let (dead, attempts) = play(100_000, &BTreeSet::new(), 2_600, 1000);
        assert_eq!(dead.len(), 0);
        assert!(attempts < 430, "{attempts} attempts of which 400 are needed");
    }

    #[test]
    fn full_size_returns_once_the_limit_is_gone() {
        let mut portion = Portion::new(1000, 10_000);
        assert_eq!(portion.too_large(&(0..1000), 10_000), Some(500));
        assert_eq!(portion.next(), (1000, 5_000));
        for n in 0..u64::from(CALM) {
            portion.confirmed(&(n..n + 1));
        }
        assert_eq!(portion.next(), (1000, 10_000));
    }

    proptest! {
        #[test]
        fn dead_letters_are_exactly_the_culprits(
            count in 1u64..300,
            bad in proptest::collection::btree_set(0u64..300, 0..20),
            limit in 10usize..4_000,
            max in 1usize..400,
        ) {
            let bad: BTreeSet<Seq> = bad.into_iter().filter(|seq| *seq < count).collect();
            prop_assert_eq!(play(count, &bad, limit, max).0, bad);
        }
    }
}
