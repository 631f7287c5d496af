//! An output route of a pipeline: an outbox, the pipeline's records in it, and the policy for a full one.
//!
//! A commit has a share in each route: its records, and behind them the reports that are owed there. Both
//! shares are one commit; a route that lacks room holds up the other only where its policy is to wait.

use super::overflow::{OutboxPlace, OverflowPolicyState, OverflowRelief};
use super::tally::LossTally;
use super::thin::{self, RecordKind, RecordOwner};
use crate::pipeline::aggregate::Aggregate;
use crate::store::{self, Outgoing, Store};

/// One output route.
#[derive(Debug)]
pub(super) struct OutputRoute {
    /// The outbox.
    pub(super) outbox: String,
    /// The name under which the outbox knows the records.
    pub(super) writer: String,
    pub(super) kind: RecordKind,
    pub(super) overflow: OverflowPolicyState,
}

impl OutputRoute {
    /// Drops records that are too old, if it is time to look.
    pub(super) fn expire(&mut self, store: &Store, owner: RecordOwner<'_>) -> Result<(), store::Error> {
        let owner = RecordOwner { kind: self.kind, ..owner };
        self.overflow.expire(OutboxPlace { store, outbox: &self.outbox, writer: &self.writer, owner })
    }
}

/// The share of a commit in one route.
#[derive(Debug)]
pub(super) struct CommitShare<'a> {
    route: &'a mut OutputRoute,
    /// Number of records of its own.
    records: usize,
    /// Losses of the step elsewhere than in the outbox.
    with: LossTally,
    /// Whether there may be room for the reports that are owed.
    reports: bool,
    /// The tally with this commit.
    tally: LossTally,
}

impl<'a> CommitShare<'a> {
    pub(super) fn new(route: &'a mut OutputRoute, records: usize, with: LossTally) -> Self {
        Self { route, records, with, reports: true, tally: LossTally::default() }
    }

    /// Puts the reports that are owed behind the records.
    pub(super) fn add_reports(&mut self, outgoing: &mut Outgoing<'_>, owner: RecordOwner<'_>) {
        outgoing.records.truncate(self.records);
        self.tally = self.route.overflow.tally.and(&self.with);
        if self.reports {
            let owed = self.tally.take_reports(self.route.kind);
            outgoing.records.extend(owed.into_iter().map(|report| owner.report(report).to_bytes()));
        }
        outgoing.tally = (self.tally != self.route.overflow.tally).then(|| self.tally.encode());
    }

    /// Makes room in the outbox, which has none; whether there may be some now.
    pub(super) fn relieve(
        &mut self,
        outgoing: &mut Outgoing<'_>,
        store: &Store,
        owner: RecordOwner<'_>,
        aggregate: Option<&mut Aggregate>,
    ) -> Result<bool, store::Error> {
        if self.records == 0 && self.reports {
            // Only the reports lack room: they come with a later commit.
            self.reports = false;
            return Ok(true);
        }
        let OutputRoute { outbox, writer, kind, overflow } = &mut *self.route;
        let owner = RecordOwner { kind: *kind, ..owner };
        match overflow.relieve(OutboxPlace { store, outbox, writer, owner }, aggregate)? {
            OverflowRelief::Again => Ok(true),
            OverflowRelief::Wait => Ok(false),
            OverflowRelief::Drop => {
                outgoing.records.truncate(self.records);
                outgoing.states.clear();
                let dropped = self.records as u64;
                let unreported = thin::run_of(&std::mem::take(&mut outgoing.records));
                self.with = self.with.and(&LossTally { dropped, unreported, ..LossTally::default() });
                self.records = 0;
                self.reports = false;
                Ok(true)
            }
        }
    }

    /// Takes note that the commit is durable.
    pub(super) fn committed(self, pipeline: &str) {
        self.route.overflow.committed(self.tally, pipeline);
    }
}
