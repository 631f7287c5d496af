//! The report that tells the destination about records that it will not get.

use serde::Serialize;

use crate::{Seq, Timestamp};

/// A report to the destination of records that will never come, or not as they were. It is a line of
/// the outbox and delivered once, like any result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LossReport {
    /// The fate of the records.
    pub kind: ReportKind,
    /// The log in which they were: `journal`, `outbox`, `dead-letters`, ….
    pub stage: &'static str,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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

impl LossReport {
    /// Returns the report as a line of NDJSON, without the line feed. `pipeline` is `None` for a report
    /// that concerns all pipelines.
    #[must_use]
    pub fn line(&self, agent: &str, pipeline: Option<&str>, time: Timestamp) -> Vec<u8> {
        let line = serde_json::json!({ "agent": agent, "pipeline": pipeline, "time": time, "report": self });
        line.to_string().into_bytes()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line() {
        let report = LossReport {
            kind: ReportKind::Dropped,
            stage: "outbox",
            count: Some(2),
            first: Some(7),
            last: Some(8),
            from: Some(Timestamp(0)),
            to: None,
            reason: "the outbox is full".to_owned(),
        };
        let line: serde_json::Value =
            serde_json::from_slice(&report.line("gw", None, Timestamp(1_000_000))).unwrap();
        let expected = serde_json::json!({
            "agent": "gw", "pipeline": null, "time": "1970-01-01T00:00:01Z",
            "report": {
                "kind": "dropped", "stage": "outbox", "count": 2, "first": 7, "last": 8,
                "from": "1970-01-01T00:00:00Z", "to": null, "reason": "the outbox is full",
            },
        });
        assert_eq!(line, expected);
    }
}
