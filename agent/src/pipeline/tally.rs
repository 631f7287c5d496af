//! The losses of a pipeline: results and messages that never arrive, as committed.
//!
//! ```text
//! version u8 = 2 | six counts u64 | four runs of five u64: count, first, last, from, to
//! ```
//! All little endian. A run with the count 0 is none.
//!
//! A *run* is what went since the last report of its kind: it is reported by one record as soon as the
//! outbox has room, in the same commit that forgets the run.

use super::thin::RecordKind;
use crate::flow::{LossReport, ReportKind};
pub(super) use crate::flow::{LossRun, UNKNOWN_SPAN};

const VERSION: u8 = 2;
const NUMBERS: usize = 26;

/// Of one pipeline's results, or of its late readings, since the state folder was made.
///
/// `results + reports = delivered + refused + pending + dropped + coarsened + expired`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTally {
    /// Results dropped by policy.
    pub dropped: u64,
    /// Results merged away: so many fewer go upstream.
    pub coarsened: u64,
    /// Results too old to be delivered.
    pub expired: u64,
    /// Messages too old to be read.
    pub expired_messages: u64,
    /// Its dead letters given up before they were replayed, those included that it tells of for a
    /// pipeline that is no longer there.
    pub given_up_letters: u64,
    /// Reports that are in the outbox or were delivered.
    pub reports: u64,
    /// Results dropped and not reported yet.
    pub(super) unreported: LossRun,
    /// Messages expired and not reported yet.
    pub(super) unread: LossRun,
    /// Dead letters given up over quota and not reported yet.
    pub(super) dropped_letters: LossRun,
    /// Dead letters given up because of their age and not reported yet.
    pub(super) expired_letters: LossRun,
}

impl LossTally {
    /// Of dead letters that were given up.
    pub(super) fn of_letters(dropped_letters: LossRun, expired_letters: LossRun) -> Self {
        let given_up_letters = dropped_letters.count + expired_letters.count;
        Self { given_up_letters, dropped_letters, expired_letters, ..Self::default() }
    }

    /// With what came beside it.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.dropped += other.dropped;
        self.coarsened += other.coarsened;
        self.expired += other.expired;
        self.expired_messages += other.expired_messages;
        self.given_up_letters += other.given_up_letters;
        self.reports += other.reports;
        self.unreported.add(&other.unreported);
        self.unread.add(&other.unread);
        self.dropped_letters.add(&other.dropped_letters);
        self.expired_letters.add(&other.expired_letters);
        self
    }

    /// Takes the reports that are owed out of it. `dropped_kind` is the kind of the records that were dropped.
    pub(super) fn take_reports(&mut self, dropped_kind: RecordKind) -> Vec<LossReport> {
        let dropped = format!("the outbox was full: new {} were dropped", dropped_kind.noun());
        let owed = [
            (&mut self.unreported, ReportKind::Dropped, dropped_kind.stage(), dropped.as_str()),
            (&mut self.unread, ReportKind::Expired, "journal", "messages were too old when they were read"),
            (
                &mut self.dropped_letters,
                ReportKind::Dropped,
                "dead-letters",
                "the dead letters were over their quota: the oldest were given up",
            ),
            (
                &mut self.expired_letters,
                ReportKind::Expired,
                "dead-letters",
                "dead letters were too old and not replayed",
            ),
        ];
        let taken = owed.map(|(run, kind, stage, reason)| {
            let run = std::mem::take(run);
            (!run.is_empty()).then(|| run.report(kind, stage, reason))
        });
        let reports: Vec<LossReport> = taken.into_iter().flatten().collect();
        self.reports += reports.len() as u64;
        reports
    }

    /// Whether a report waits for room.
    pub(super) fn owes(&self) -> bool {
        self.runs().iter().any(|run| !run.is_empty())
    }

    fn runs(&self) -> [LossRun; 4] {
        [self.unreported, self.unread, self.dropped_letters, self.expired_letters]
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let counts = [
            self.dropped,
            self.coarsened,
            self.expired,
            self.expired_messages,
            self.given_up_letters,
            self.reports,
        ];
        let runs = self.runs().map(|run| run.to_numbers());
        let numbers = counts.into_iter().chain(runs.into_iter().flatten());
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
        let mut next = || numbers.next().unwrap_or_default();
        let [dropped, coarsened, expired, expired_messages, given_up_letters, reports] =
            std::array::from_fn(|_| next());
        let [unreported, unread, dropped_letters, expired_letters] =
            std::array::from_fn(|_| LossRun::from_numbers(std::array::from_fn(|_| next())));
        Some(Self {
            dropped,
            coarsened,
            expired,
            expired_messages,
            given_up_letters,
            reports,
            unreported,
            unread,
            dropped_letters,
            expired_letters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Timestamp;

    #[test]
    fn a_tally_reads_back_and_garbage_does_not() {
        let tally = LossTally {
            dropped: 1,
            reports: 7,
            given_up_letters: 3,
            unread: LossRun::single(Some(5), (Timestamp(1), Timestamp(2))),
            expired_letters: LossRun::single(Some(6), (Timestamp(3), Timestamp(4))),
            ..LossTally::default()
        };
        assert_eq!(LossTally::decode(&tally.encode()), Some(tally));
        assert_eq!(LossTally::decode(&[]), Some(LossTally::default()));
        assert_eq!(LossTally::decode(&[1, 2, 3]), None);
    }

    #[test]
    fn a_run_is_one_report_of_all_that_went() {
        let mut tally = LossTally::default();
        for second in 3..6 {
            let run = LossRun::single(None, (Timestamp(second), Timestamp(second + 1)));
            tally = tally.and(&LossTally { dropped: 1, unreported: run, ..LossTally::default() });
        }
        let reports = tally.take_reports(RecordKind::Late);
        assert_eq!(reports[0].stage, "late");
        let LossReport { count, first, from, to, .. } = &reports[0];
        assert_eq!((*count, *first, *from, *to), (Some(3), None, Some(Timestamp(3)), Some(Timestamp(6))));
        assert_eq!((reports.len(), tally.owes(), tally.dropped, tally.reports), (1, false, 3, 1));
        assert!(tally.take_reports(RecordKind::Results).is_empty());
    }
}
