//! The report that tells the destination about records that it will not get.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Seq, Timestamp};

/// A report to the destination of records that will never come, or not as they were. It is a record of
/// the outbox and delivered once, like any result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossReport {
    /// The fate of the records.
    pub kind: ReportKind,
    /// The log in which they were: `journal`, `outbox`, `dead-letters`, ….
    pub stage: Cow<'static, str>,
    /// The number of records, if it is known.
    pub count: Option<u64>,
    /// The position of the first record in the log of that stage, if it has one.
    pub first: Option<Seq>,
    /// The position of the last record.
    pub last: Option<Seq>,
    /// The earliest time of the records, if it is known: event time, but arrival in journal and dead letters.
    pub from: Option<Timestamp>,
    /// The latest time of the records.
    pub to: Option<Timestamp>,
    /// The cause, for people.
    pub reason: String,
}

/// The fate of the records of a [`LossReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// Lost by damage to the state folder.
    Lost,
    /// Dropped by the policy of a full quota.
    Dropped,
    /// Merged into wider windows by the policy of a full quota.
    Coarsened,
    /// Dropped because they were too old.
    Expired,
}

impl ReportKind {
    /// Returns the word for it in a line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Coarsened => "coarsened",
            Self::Expired => "expired",
        }
    }
}
