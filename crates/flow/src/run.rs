//! Records that went, summed up until they are told.

use super::{LossKind, Report, Seq, Timestamp};

/// What went since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub count: u64,
    /// The first one's number, and the last one's, where they have any.
    pub numbers: (Seq, Seq),
    /// Earliest and latest time they speak of; the wrong way round where that is not known.
    pub span: Span,
}

/// Earliest and latest time.
pub type Span = (Timestamp, Timestamp);

/// Of nothing: any other makes it wider.
pub const NO_SPAN: Span = (Timestamp(u64::MAX), Timestamp(0));

impl Default for Run {
    fn default() -> Self {
        Self { count: 0, numbers: (Seq::MAX, 0), span: NO_SPAN }
    }
}

impl Run {
    /// One record.
    #[must_use]
    pub fn of(number: Option<Seq>, span: Span) -> Self {
        Self { count: 1, numbers: number.map_or((Seq::MAX, 0), |number| (number, number)), span }
    }

    /// Nothing went.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// With what went beside it.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.numbers = (self.numbers.0.min(other.numbers.0), self.numbers.1.max(other.numbers.1));
        self.span = (self.span.0.min(other.span.0), self.span.1.max(other.span.1));
    }

    /// As it is told upstream.
    #[must_use]
    pub fn report(&self, kind: LossKind, stage: &'static str, reason: &str) -> Report {
        let known = self.span.0 <= self.span.1;
        let numbered = self.numbers.0 <= self.numbers.1;
        Report {
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

    /// As it is kept: count, first, last, from, to.
    #[must_use]
    pub fn numbers(&self) -> [u64; 5] {
        [self.count, self.numbers.0, self.numbers.1, self.span.0.0, self.span.1.0]
    }

    /// Reads what [`Self::numbers`] gives.
    #[must_use]
    pub fn from_numbers([count, first, last, from, to]: [u64; 5]) -> Self {
        Self { count, numbers: (first, last), span: (Timestamp(from), Timestamp(to)) }
    }
}
