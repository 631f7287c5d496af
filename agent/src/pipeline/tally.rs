//! What became of results and messages that did not go their way, as committed.
//!
//! ```text
//! version u8 = 1 | five counts u64 | two runs of five u64: count, first, last, from, to
//! ```
//! All little endian. A run with the count 0 is none.
//!
//! A *run* is what went since the last report of its kind: it is reported by one line as soon as the
//! outbox has room, in the same commit that forgets the run.

use crate::flow::{Kind, Report, Seq, Timestamp};

const VERSION: u8 = 1;
const NUMBERS: usize = 15;

/// Of one pipeline, since the state folder was made.
///
/// `results + reports = delivered + refused + pending + dropped + coarsened + expired`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Results dropped by policy.
    pub dropped: u64,
    /// Results merged away: so many fewer go upstream.
    pub coarsened: u64,
    /// Results too old to be delivered.
    pub expired: u64,
    /// Messages too old to be read.
    pub expired_messages: u64,
    /// Reports that are in the outbox or were delivered.
    pub reports: u64,
    /// Results dropped and not reported yet.
    pub(super) unreported: Run,
    /// Messages expired and not reported yet.
    pub(super) unread: Run,
}

/// What went since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many.
    pub(super) count: u64,
    /// The first one's number, and the last one's, where they have any.
    pub(super) numbers: (Seq, Seq),
    /// Earliest and latest time they speak of; the wrong way round where that is not known.
    pub(super) span: Span,
}

/// Earliest and latest time.
pub(super) type Span = (Timestamp, Timestamp);

/// Of nothing: any other makes it wider.
pub(super) const NO_SPAN: Span = (Timestamp(u64::MAX), Timestamp(0));

impl Default for Run {
    fn default() -> Self {
        Self { count: 0, numbers: (Seq::MAX, 0), span: NO_SPAN }
    }
}

impl Run {
    /// One record.
    pub(super) fn of(number: Option<Seq>, span: Span) -> Self {
        Self { count: 1, numbers: number.map_or((Seq::MAX, 0), |number| (number, number)), span }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// With what went beside it.
    pub(super) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.numbers = (self.numbers.0.min(other.numbers.0), self.numbers.1.max(other.numbers.1));
        self.span = (self.span.0.min(other.span.0), self.span.1.max(other.span.1));
    }

    /// As it is told upstream.
    pub(super) fn report(&self, kind: Kind, stage: &'static str, reason: &str) -> Report {
        let known = self.span.0 <= self.span.1;
        let numbered = self.numbers.0 <= self.numbers.1;
        Report {
            kind,
            stage,
            count: Some(self.count),
            first: numbered.then_some(self.numbers.0),
            last: numbered.then_some(self.numbers.1),
            from: known.then_some(self.span.0),
            to: known.then_some(self.span.1),
            reason: reason.to_owned(),
        }
    }

    fn numbers(&self) -> [u64; 5] {
        [self.count, self.numbers.0, self.numbers.1, self.span.0.0, self.span.1.0]
    }

    fn from_numbers([count, first, last, from, to]: [u64; 5]) -> Self {
        Self { count, numbers: (first, last), span: (Timestamp(from), Timestamp(to)) }
    }
}

impl Tally {
    /// With what came beside it.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.dropped += other.dropped;
        self.coarsened += other.coarsened;
        self.expired += other.expired;
        self.expired_messages += other.expired_messages;
        self.reports += other.reports;
        self.unreported.add(&other.unreported);
        self.unread.add(&other.unread);
        self
    }

    /// The reports that are owed, which it then no longer owes.
    pub(super) fn take_reports(&mut self) -> Vec<Report> {
        let dropped = std::mem::take(&mut self.unreported);
        let unread = std::mem::take(&mut self.unread);
        let dropped = (!dropped.is_empty()).then(|| {
            dropped.report(Kind::Dropped, "outbox", "the outbox was full: new results were dropped")
        });
        let unread = (!unread.is_empty())
            .then(|| unread.report(Kind::Expired, "journal", "messages were too old when they were read"));
        let reports: Vec<Report> = dropped.into_iter().chain(unread).collect();
        self.reports += reports.len() as u64;
        reports
    }

    /// Whether a report waits for room.
    pub(super) fn owes(&self) -> bool {
        !self.unreported.is_empty() || !self.unread.is_empty()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let counts = [self.dropped, self.coarsened, self.expired, self.expired_messages, self.reports];
        let numbers = counts.into_iter().chain(self.unreported.numbers()).chain(self.unread.numbers());
        [VERSION].into_iter().chain(numbers.flat_map(u64::to_le_bytes)).collect()
    }

    /// `None` for bytes that no version up to this one wrote; a new pipeline has none at all.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((version, rest)) = bytes.split_first() else { return Some(Self::default()) };
        if *version != VERSION || rest.len() != NUMBERS * 8 {
            return None;
        }
        let mut numbers = rest.chunks_exact(8).map(|chunk| {
            let mut number = [0; 8];
            number.copy_from_slice(chunk);
            u64::from_le_bytes(number)
        });
        let mut five = || std::array::from_fn(|_| numbers.next().unwrap_or_default());
        let [dropped, coarsened, expired, expired_messages, reports] = five();
        let (unreported, unread) = (Run::from_numbers(five()), Run::from_numbers(five()));
        Some(Self { dropped, coarsened, expired, expired_messages, reports, unreported, unread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_reads_back_and_garbage_does_not() {
        let tally = Tally {
            dropped: 1,
            reports: 7,
            unread: Run::of(Some(5), (Timestamp(1), Timestamp(2))),
            ..Tally::default()
        };
        assert_eq!(Tally::decode(&tally.encode()), Some(tally));
        assert_eq!(Tally::decode(&[]), Some(Tally::default()));
        assert_eq!(Tally::decode(&[1, 2, 3]), None);
    }

    #[test]
    fn a_run_is_one_report_of_all_that_went() {
        let mut tally = Tally::default();
        for second in 3..6 {
            let run = Run::of(None, (Timestamp(second), Timestamp(second + 1)));
            tally = tally.and(&Tally { dropped: 1, unreported: run, ..Tally::default() });
        }
        let reports = tally.take_reports();
        let Report { count, first, from, to, .. } = &reports[0];
        assert_eq!((*count, *first, *from, *to), (Some(3), None, Some(Timestamp(3)), Some(Timestamp(6))));
        assert_eq!((reports.len(), tally.owes(), tally.dropped, tally.reports), (1, false, 3, 1));
        assert!(tally.take_reports().is_empty());
    }
}
