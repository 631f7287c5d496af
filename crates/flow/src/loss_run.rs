//! Records that are gone, summed up until they are reported.

use crate::{LossReport, ReportKind, Seq, Timestamp};

/// The sum of the records that are gone since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossRun {
    /// The number of records.
    pub count: u64,
    /// The positions of the first and the last record; the larger one first if no record has any.
    pub numbers: (Seq, Seq),
    /// The times of the records.
    pub span: TimeSpan,
}

/// An earliest and a latest time; the later one first if neither is known.
pub type TimeSpan = (Timestamp, Timestamp);

/// The span of records without times. Every other span widens it.
pub const UNKNOWN_SPAN: TimeSpan = (Timestamp(u64::MAX), Timestamp(0));

impl Default for LossRun {
    fn default() -> Self {
        Self { count: 0, numbers: (Seq::MAX, 0), span: UNKNOWN_SPAN }
    }
}

impl LossRun {
    /// Returns the run of one record.
    #[must_use]
    pub fn single(number: Option<Seq>, span: TimeSpan) -> Self {
        Self { count: 1, numbers: number.map_or((Seq::MAX, 0), |number| (number, number)), span }
    }

    /// Returns true if no record is gone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds the records of another run.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.numbers = (self.numbers.0.min(other.numbers.0), self.numbers.1.max(other.numbers.1));
        self.span = (self.span.0.min(other.span.0), self.span.1.max(other.span.1));
    }

    /// Returns the report of this run for the destination.
    #[must_use]
    pub fn report(&self, kind: ReportKind, stage: &'static str, reason: &str) -> LossReport {
        let known = self.span.0 <= self.span.1;
        let numbered = self.numbers.0 <= self.numbers.1;
        LossReport {
            kind,
            stage: stage.into(),
            count: Some(self.count),
            first: numbered.then_some(self.numbers.0),
            last: numbered.then_some(self.numbers.1),
            from: known.then_some(self.span.0),
            to: known.then_some(self.span.1),
            reason: reason.to_owned(),
        }
    }

    /// Returns the run in its stored form: count, first, last, from, to.
    #[must_use]
    pub fn to_numbers(&self) -> [u64; 5] {
        [self.count, self.numbers.0, self.numbers.1, self.span.0.0, self.span.1.0]
    }

    /// Reads the form that [`Self::to_numbers`] returns.
    #[must_use]
    pub fn from_numbers([count, first, last, from, to]: [u64; 5]) -> Self {
        Self { count, numbers: (first, last), span: (Timestamp(from), Timestamp(to)) }
    }
}
