//! What has to happen for a step to become durable: when it is due, what goes into it, what the counters then show.

use std::time::{Duration, Instant};

use super::progress::{Counts, Progress};
use super::route::CommitShare;
use super::tally::LossTally;
use super::thin::{RecordKind, RecordOwner};
use super::{
    COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, COMMIT_MESSAGES_MAX, Committed, Error, PATIENCE_MAX, Pipeline,
    RESULTS_LINGER,
};
use crate::flow::{Seq, Timestamp};
use crate::store::{self, Commit, Outgoing};
use crate::window::OpenWindows;

impl Pipeline {
    pub(super) fn commit_is_due(&self) -> bool {
        if self.position == self.committed.position && self.step.is_empty() && !self.owes() {
            return false;
        }
        let age = self.committed.at.elapsed();
        age >= self.commit_every
            || (self.step.has_output() && age >= RESULTS_LINGER)
            || self.step.bytes + self.steps.remembered_bytes() >= COMMIT_BYTES_MAX
            || self.steps.windows().is_some_and(|windows| windows.changed() > COMMIT_KEYS_MAX)
            || self.position - self.committed.position >= COMMIT_MESSAGES_MAX
    }

    /// Whether something is to be told upstream.
    pub(super) fn owes(&self) -> bool {
        let mut routes = [Some(&self.results), self.late.as_ref()].into_iter().flatten();
        routes.any(|route| route.overflow.tally.owes()) || self.store.has_given_up(&self.name)
    }

    pub(super) fn patience(&self) -> Duration {
        if self.replaying {
            return Duration::ZERO;
        }
        let linger = if self.step.has_output() { RESULTS_LINGER } else { self.commit_every };
        let dirty = self.position != self.committed.position || !self.step.is_empty();
        let until_commit = linger.saturating_sub(self.committed.at.elapsed());
        if dirty { until_commit.clamp(Duration::from_millis(1), PATIENCE_MAX) } else { PATIENCE_MAX }
    }

    /// Makes everything so far durable; whether it did. On a full disk it asks `again`, and while
    /// that is true tries again. Given up, the pipeline must not go on: what it stepped over is to
    /// be repeated from the journal.
    pub(super) fn commit(&mut self, mut again: impl FnMut(&store::Error) -> bool) -> Result<bool, Error> {
        let step = std::mem::take(&mut self.step);
        self.counts += step.counts;
        let (windows, changes) = self.steps.changes();
        let made_by = self.steps.made_by();
        let owner = RecordOwner {
            agent: &self.steps.agent,
            pipeline: &self.name,
            kind: RecordKind::Results,
            now: Timestamp::now(),
        };
        let mut commit = Commit {
            pipeline: &self.name,
            position: self.position,
            progress: Progress { counts: self.counts, clock: self.steps.clock, made_by, windows }.encode(),
            windows: changes,
            results: Outgoing::default(),
            late: Outgoing::default(),
            dead_letters: step.dead_letters,
            now: owner.now,
            replayed: std::mem::take(&mut self.replayed),
        };
        crate::fail::point("pipeline.committing");
        let given_up = self.store.given_up(&self.name);
        let given_up = LossTally::of_letters(given_up.dropped, given_up.expired);
        let outbox = self.results.outbox.clone();
        let late_outbox = self.late.as_ref().map_or_else(String::new, |late| late.outbox.clone());
        commit.results = Outgoing { states: step.states, ..Outgoing::new(&outbox, step.results) };
        commit.late = Outgoing::new(&late_outbox, step.late);
        let records = commit.results.records.len();
        let mut results = CommitShare::new(&mut self.results, records, step.tally.and(&given_up));
        let records = commit.late.records.len();
        let mut late = self.late.as_mut();
        let mut late = late.as_mut().map(|route| CommitShare::new(route, records, LossTally::default()));
        loop {
            results.add_reports(&mut commit.results, owner);
            if let Some(late) = &mut late {
                late.add_reports(&mut commit.late, owner);
            }
            let Err(error) = self.store.commit(&commit) else { break };
            if !error.is_for_room() {
                return Err(error.into());
            }
            // What waits here grows old.
            let owner = RecordOwner { now: Timestamp::now(), ..owner };
            let relieved = match (&error, &mut late) {
                (store::Error::Quota { outbox: Some(outbox), .. }, Some(late)) if *outbox == late_outbox => {
                    late.relieve(&mut commit.late, &self.store, owner, None)?
                }
                (store::Error::Quota { .. }, _) => {
                    let aggregate = self.steps.stage.aggregate();
                    results.relieve(&mut commit.results, &self.store, owner, aggregate)?
                }
                _ => false,
            };
            if !relieved && !again(&error) {
                return Ok(false);
            }
        }
        results.committed(&self.name);
        if let Some(late) = late {
            late.committed(&self.name);
        }
        let before = self.committed.counts;
        self.committed = Committed { position: self.position, counts: self.counts, at: Instant::now() };
        self.count(&before);
        self.metrics.commits.inc();
        crate::fail::point("pipeline.committed");
        Ok(true)
    }

    /// Brings the counters, which show committed work only, up to date.
    pub(super) fn count(&self, before: &Counts) {
        let (metrics, now) = (&self.metrics, &self.committed.counts);
        let _together = metrics.turn();
        metrics.position_messages.set(i64::try_from(self.committed.position).unwrap_or(i64::MAX));
        metrics.skipped_messages.inc_by(now.skipped - before.skipped);
        metrics.lost_messages.inc_by(now.lost - before.lost);
        metrics.filtered_events.inc_by(now.filtered - before.filtered);
        metrics.multiplied_events.inc_by(now.multiplied - before.multiplied);
        metrics.read_messages.inc_by(now.read - before.read);
        metrics.rejected_messages.inc_by(now.rejected_messages - before.rejected_messages);
        metrics.events.inc_by(now.events - before.events);
        metrics.used_events.inc_by(now.used - before.used);
        metrics.late_events.inc_by(now.late - before.late);
        metrics.sent_late_events.inc_by(now.sent_late - before.sent_late);
        metrics.rejected_events.inc_by(now.rejected_events - before.rejected_events);
        metrics.results.inc_by(now.results - before.results);
        metrics.dead_letters.inc_by(now.dead_letters - before.dead_letters);
        metrics.replayed_messages.inc_by(now.replayed_messages - before.replayed_messages);
        metrics.replayed_events.inc_by(now.replayed_events - before.replayed_events);
        metrics.replayed_results.inc_by(now.replayed_results - before.replayed_results);
        metrics.succeeded_replays.inc_by(now.succeeded_replays - before.succeeded_replays);
        metrics.lost_events.inc_by(now.lost_events - before.lost_events);
        metrics.ahead_rejected_stamps.inc_by(now.ahead_rejected - before.ahead_rejected);
        metrics.ahead_arrival_stamps.inc_by(now.ahead_arrival - before.ahead_arrival);
        metrics.ahead_clamped_stamps.inc_by(now.ahead_clamped - before.ahead_clamped);
        metrics.past_rejected_stamps.inc_by(now.past_rejected - before.past_rejected);
        metrics.past_arrival_stamps.inc_by(now.past_arrival - before.past_arrival);
        metrics.past_clamped_stamps.inc_by(now.past_clamped - before.past_clamped);
        metrics.missing_arrival_stamps.inc_by(now.missing_arrival - before.missing_arrival);
        metrics.clock_behind_messages.inc_by(now.clock_behind - before.clock_behind);
    }

    pub(super) fn gauge(&self, journal_end: Seq) {
        let lag = journal_end.saturating_sub(self.committed.position);
        self.metrics.lag_messages.set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.metrics.remembered_names.set(i64::try_from(self.steps.names()).unwrap_or(i64::MAX));
        let size = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let at_hand = self.steps.windows().map_or(0, OpenWindows::at_hand_bytes);
        self.metrics.window_memory_bytes.set(size(at_hand + self.store.recent_bytes(&self.name)));
        if let Some(windows) = self.steps.windows() {
            self.metrics.open_windows.set(size(windows.open()));
            self.metrics.open_keys.set(size(windows.keys()));
            self.metrics.state_bytes.set(size(windows.state_bytes()));
            self.metrics.watermark_micros.set(i64::try_from(windows.watermark().0).unwrap_or(i64::MAX));
        }
    }
}
