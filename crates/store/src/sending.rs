//! What of an outbox has arrived and what is under way: pure.
//!
//! What has not arrived is cut into stretches, each sent in its own order and with at most one
//! batch begun. An outbox begins as one stretch without end. Cutting one in two lets what is
//! behind overtake what is before; a stretch that has wholly arrived is forgotten.
//!
//! **Limits.** [`STRETCHES_MAX`] stretches: with so many, none is cut, and each keeps plain order,
//! until another has arrived.

use headwater_flow::Seq;
use std::ops::Range;

/// Stretches of an outbox, at most.
pub const STRETCHES_MAX: usize = 8;

/// The stretches, oldest first; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending(Vec<Stretch>);

/// Numbers that follow each other: `confirmed..begun` is under way, `begun..end` is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first number that has not arrived.
    pub confirmed: Seq,
    /// End of the begun batch; `confirmed` when none is.
    pub begun: Seq,
    /// Where the next stretch began; of the last one, the end of all numbers.
    pub end: Seq,
}

/// Nothing has arrived, and nothing is under way.
impl Default for Sending {
    fn default() -> Self {
        Self(vec![Stretch { confirmed: 0, begun: 0, end: Seq::MAX }])
    }
}

impl Sending {
    /// Reads `confirmed, begun` of the first stretch and `end, confirmed, begun` of the others,
    /// `end` being that of the stretch before. `None` unless no number is less than the one before.
    pub fn of(numbers: &[Seq]) -> Option<Self> {
        let stretches = numbers.len() / 3 + 1;
        if numbers.len() % 3 != 2 || stretches > STRETCHES_MAX || !numbers.is_sorted() {
            return None;
        }
        let stretch = |at: usize| Stretch {
            confirmed: numbers[3 * at],
            begun: numbers[3 * at + 1],
            end: numbers.get(3 * at + 2).copied().unwrap_or(Seq::MAX),
        };
        let sending = Self((0..stretches).map(stretch).collect());
        // What has wholly arrived is forgotten at once: its place names the next stretch as well.
        sending.0.iter().all(|stretch| stretch.confirmed < stretch.end).then_some(sending)
    }

    /// As [`Self::of`] reads them.
    pub fn numbers(&self) -> Vec<Seq> {
        let mut numbers: Vec<_> =
            self.0.iter().flat_map(|stretch| [stretch.confirmed, stretch.begun, stretch.end]).collect();
        numbers.pop();
        numbers
    }

    /// Everything below has arrived.
    pub fn confirmed(&self) -> Seq {
        self.0[0].confirmed
    }

    /// How many have arrived, those above [`Self::confirmed`] too.
    pub fn arrived(&self) -> u64 {
        let above = self.0.windows(2).map(|pair| pair[1].confirmed - pair[0].end);
        self.confirmed() + above.sum::<u64>()
    }

    /// The end of what was ever begun.
    pub fn begun(&self) -> Seq {
        self.0[self.0.len() - 1].begun
    }

    /// What has not arrived, stretch by stretch; the last one may be empty.
    pub fn pending(&self, committed: Seq) -> Vec<Range<Seq>> {
        self.0.iter().map(|stretch| stretch.confirmed..stretch.end.min(committed)).collect()
    }

    /// What is neither arrived nor begun, stretch by stretch.
    pub(crate) fn movable(&self, committed: Seq) -> Vec<Range<Seq>> {
        self.0.iter().map(|stretch| stretch.begun..stretch.end.min(committed)).collect()
    }

    /// What is begun and has not arrived, stretch by stretch.
    pub fn under_way(&self) -> Vec<Range<Seq>> {
        self.0.iter().map(|stretch| stretch.confirmed..stretch.begun).collect()
    }

    /// The stretch whose next result is `from`.
    pub fn stretch(&self, from: Seq) -> Option<Stretch> {
        self.0.iter().find(|stretch| stretch.confirmed == from).copied()
    }

    /// With this batch begun, or narrowed to it, in the stretch whose next result is `from`. Numbers
    /// from there to the batch are a gap, and done with; an empty batch says that only these were left.
    pub fn with_begun(&self, from: Seq, batch: &Range<Seq>) -> Option<Self> {
        let mut next = self.clone();
        let at = next.0.iter().position(|stretch| stretch.confirmed == from)?;
        let stretch = &mut next.0[at];
        if batch.start < from || batch.end < batch.start || batch.end > stretch.end {
            return None;
        }
        (stretch.confirmed, stretch.begun) = (batch.start, batch.end);
        if stretch.confirmed == stretch.end {
            next.0.remove(at);
        }
        Some(next)
    }

    /// With this batch, which must be a begun one, arrived.
    pub fn with_confirmed(&self, batch: &Range<Seq>) -> Option<Self> {
        let mut next = self.clone();
        let at = next.0.iter().position(|it| it.confirmed == batch.start && it.begun == batch.end)?;
        let stretch = &mut next.0[at];
        if batch.is_empty() {
            return None;
        }
        stretch.confirmed = stretch.begun;
        if stretch.confirmed == stretch.end {
            next.0.remove(at);
        }
        Some(next)
    }

    /// With the stretch around `at` cut in two there. `None` where `at` is begun, nothing before it
    /// is left to be overtaken, or at the limit.
    pub fn with_cut(&self, at: Seq) -> Option<Self> {
        let mut next = self.clone();
        let index = next.0.iter().position(|it| it.confirmed < at && it.begun <= at && at < it.end)?;
        let stretch = &mut next.0[index];
        let behind = Stretch { confirmed: at, begun: at, end: stretch.end };
        stretch.end = at;
        next.0.insert(index + 1, behind);
        (next.0.len() <= STRETCHES_MAX).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn numbers_that_no_version_wrote_are_refused() {
        for good in [&[0, 0][..], &[3, 7], &[3, 7, 9, 9, 9], &[3, 7, 9, 12, 15, 20, 20, 25]] {
            assert_eq!(Sending::of(good).unwrap().numbers(), good);
        }
        let many = (0..STRETCHES_MAX as u64 * 3 + 2).collect::<Vec<_>>();
        for bad in [&[][..], &[1], &[3, 2], &[3, 3, 3, 4, 4], &[0, 1, 0, 1, 1], &[0, 1, 2], &many] {
            assert_eq!(Sending::of(bad), None, "{bad:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Commit(u64),
        Begin { stretch: usize, results: u64 },
        Narrow { stretch: usize, results: u64 },
        Confirm { stretch: usize },
        Cut { back: u64 },
        Crash,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let (stretch, results) = (0..STRETCHES_MAX, 1..40u64);
        prop_oneof![
            2 => (0..60u64).prop_map(Operation::Commit),
            4 => (stretch.clone(), results.clone())
                .prop_map(|(stretch, results)| Operation::Begin { stretch, results }),
            1 => (stretch.clone(), results).prop_map(|(stretch, results)| Operation::Narrow { stretch, results }),
            4 => stretch.prop_map(|stretch| Operation::Confirm { stretch }),
            2 => (0..30u64).prop_map(|back| Operation::Cut { back }),
            2 => Just(Operation::Crash),
        ]
    }

    /// Against a plain model: each number's state on its own.
    #[derive(Debug, Default)]
    struct Model {
        committed: Seq,
        /// Times each number arrived.
        arrived: BTreeMap<Seq, u32>,
        /// What is begun and not confirmed, by its first number: what must come again.
        begun: BTreeMap<Seq, Seq>,
    }

    impl Model {
        fn step(&mut self, sending: &mut Sending, operation: &Operation) {
            let stretches = sending.pending(self.committed);
            let of = |at: usize| stretches[at % stretches.len()].clone();
            match *operation {
                Operation::Commit(more) => self.committed += more,
                Operation::Begin { stretch, results } => {
                    let pending = of(stretch);
                    let batch = pending.start..(pending.start + results).min(pending.end);
                    let known = sending.stretch(pending.start).unwrap();
                    if known.begun == known.confirmed && !batch.is_empty() {
                        *sending = sending.with_begun(pending.start, &batch).unwrap();
                        self.begun.insert(batch.start, batch.end);
                    }
                }
                Operation::Narrow { stretch, results } => {
                    let first = of(stretch).start;
                    if let Some(end) = self.begun.get_mut(&first)
                        && first + results < *end
                    {
                        *end = first + results;
                        *sending = sending.with_begun(first, &(first..*end)).unwrap();
                    }
                }
                Operation::Confirm { stretch } => {
                    let first = of(stretch).start;
                    if let Some(end) = self.begun.remove(&first) {
                        assert_eq!(sending.with_confirmed(&(first..end + 1)), None);
                        *sending = sending.with_confirmed(&(first..end)).unwrap();
                        (first..end).for_each(|seq| *self.arrived.entry(seq).or_default() += 1);
                    }
                }
                Operation::Cut { back } => {
                    if let Some(cut) = sending.with_cut(self.committed.saturating_sub(back)) {
                        *sending = cut;
                    }
                }
                Operation::Crash => *sending = Sending::of(&sending.numbers()).unwrap(),
            }
        }

        fn check(&self, sending: &Sending) {
            assert_eq!(Sending::of(&sending.numbers()).as_ref(), Some(sending));
            let pending: Vec<Seq> = sending.pending(self.committed).into_iter().flatten().collect();
            let expected: Vec<Seq> =
                (0..self.committed).filter(|seq| !self.arrived.contains_key(seq)).collect();
            assert_eq!(pending, expected, "what is pending has not arrived, and nothing else has");
            assert!(self.arrived.values().all(|times| *times == 1), "nothing arrives twice");
            assert_eq!(sending.arrived() + pending.len() as u64, self.committed);
            assert_eq!(sending.confirmed(), expected.first().copied().unwrap_or(self.committed));
            for (first, end) in &self.begun {
                let stretch = sending.stretch(*first).unwrap();
                assert_eq!(stretch.begun, *end, "a begun batch keeps its bounds");
            }
        }
    }

    proptest! {
        #[test]
        fn everything_arrives_once_whatever_is_cut_and_wherever_it_crashes(
            operations in proptest::collection::vec(operation(), 1..200)
        ) {
            let (mut model, mut sending) = (Model::default(), Sending::default());
            for operation in &operations {
                model.step(&mut sending, operation);
                model.check(&sending);
            }
            while let Some(pending) = sending.pending(model.committed).into_iter().find(|it| !it.is_empty()) {
                let end = model.begun.remove(&pending.start).unwrap_or(pending.end);
                sending = sending.with_begun(pending.start, &(pending.start..end)).unwrap();
                sending = sending.with_confirmed(&(pending.start..end)).unwrap();
                (pending.start..end).for_each(|seq| *model.arrived.entry(seq).or_default() += 1);
            }
            model.check(&sending);
            prop_assert_eq!(sending.numbers(), [model.committed, model.committed]);
        }
    }
}
