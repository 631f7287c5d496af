//! A way out of a pipeline: an outbox, whose lines are in it, and what is done when it is full.
//!
//! A commit has a share in each: its lines, and behind them the reports that are owed there. Both ways
//! are one commit; what one of them lacks room for, holds up the other only where its policy is to wait.

use super::full::{Full, Place, Relief};
use super::tally::Tally;
use super::thin::{self, What, Whose};
use crate::pipeline::aggregate::Aggregate;
use crate::store::{self, Outgoing, Store};

/// One way out.
#[derive(Debug)]
pub(super) struct Way {
    /// The outbox.
    pub(super) outbox: String,
    /// By what name the outbox knows the lines.
    pub(super) writer: String,
    pub(super) what: What,
    pub(super) full: Full,
}

impl Way {
    /// Gives up what is too old, if it is time to look.
    pub(super) fn expire(&mut self, store: &Store, whose: Whose<'_>) -> Result<(), store::Error> {
        let whose = Whose { what: self.what, ..whose };
        self.full.expire(Place { store, outbox: &self.outbox, writer: &self.writer, whose })
    }
}

/// A commit's share in a way.
#[derive(Debug)]
pub(super) struct Share<'a> {
    way: &'a mut Way,
    /// Lines of its own.
    lines: usize,
    /// What went another way.
    with: Tally,
    /// Whether there may be room for what is owed.
    reports: bool,
    /// With this commit.
    tally: Tally,
}

impl<'a> Share<'a> {
    pub(super) fn new(way: &'a mut Way, lines: usize, with: Tally) -> Self {
        Self { way, lines, with, reports: true, tally: Tally::default() }
    }

    /// Puts the reports that are owed behind the lines.
    pub(super) fn tell(&mut self, outgoing: &mut Outgoing<'_>, whose: Whose<'_>) {
        outgoing.lines.truncate(self.lines);
        self.tally = self.way.full.tally.and(&self.with);
        if self.reports {
            let owed = self.tally.take_reports(self.way.what);
            outgoing.lines.extend(owed.into_iter().map(|report| whose.report(report).to_line()));
        }
        outgoing.tally = (self.tally != self.way.full.tally).then(|| self.tally.encode());
    }

    /// The outbox has no room; whether there may be some now.
    pub(super) fn relieve(
        &mut self,
        outgoing: &mut Outgoing<'_>,
        store: &Store,
        whose: Whose<'_>,
        aggregate: Option<&mut Aggregate>,
    ) -> Result<bool, store::Error> {
        if self.lines == 0 && self.reports {
            // Only the reports lack room: they come with a later commit.
            self.reports = false;
            return Ok(true);
        }
        let Way { outbox, writer, what, full } = &mut *self.way;
        let whose = Whose { what: *what, ..whose };
        match full.relieve(Place { store, outbox, writer, whose }, aggregate)? {
            Relief::Again => Ok(true),
            Relief::Wait => Ok(false),
            Relief::Drop => {
                outgoing.lines.truncate(self.lines);
                outgoing.states.clear();
                let (dropped, lines) = (self.lines as u64, std::mem::take(&mut outgoing.lines));
                let unreported = thin::run_of(&lines);
                self.with = self.with.and(&Tally { dropped, unreported, ..Tally::default() });
                (self.lines, self.reports) = (0, false);
                Ok(true)
            }
        }
    }

    /// The commit is durable.
    pub(super) fn committed(self, pipeline: &str) {
        self.way.full.committed(self.tally, pipeline);
    }
}
