//! Whose turn it is: pure, with time as an argument.
//!
//! A lane is one stretch of one of the output's outboxes. Within a lane results go in order; no
//! lane waits for another. The lane with the newest results of live pipelines goes first, but
//! takes no more than every second turn while others have something to send, so that an old
//! backlog drains beside it; those others take turns.

use super::portion::Portion;
use crate::flow::Seq;
use std::ops::Range;
use std::time::Instant;

/// One stretch of one outbox.
#[derive(Debug)]
pub(super) struct Lane {
    /// Which of the output's outboxes.
    pub(super) outbox: usize,
    /// Whether what is in it may be overtaken: it is the live pipelines' outbox.
    is_live: bool,
    /// What has not arrived, as last looked at.
    pub(super) pending: Range<Seq>,
    /// Whether it is the last of its outbox, to which new results are added.
    pub(super) is_last: bool,
    pub(super) portion: Portion,
    /// Failed attempts of its batch in a row.
    pub(super) failures: u32,
    /// Its next attempt comes not before.
    pub(super) due: Instant,
    /// The turn it last had.
    turn: u64,
}

impl Lane {
    /// Whether what is in it may be overtaken.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Everything below `end` arrived. If that was all, the next batch waits for company.
    pub(super) fn arrived(&mut self, end: Seq, linger: Instant) {
        self.failures = 0;
        self.pending.start = end;
        if self.pending.is_empty() {
            self.due = linger;
        }
    }

    /// Where to cut it, so that the newest results overtake a backlog: one batch before its end,
    /// if it is live and holds more than so many batches.
    pub(super) fn overtaken(&self, results_max: usize, batches: usize) -> Option<Seq> {
        let (held, batch) = (self.pending.end.saturating_sub(self.pending.start), results_max as u64);
        let is_backlog = self.goes_first() && held > batch.saturating_mul(batches as u64);
        is_backlog.then(|| self.pending.end - batch)
    }

    fn goes_first(&self) -> bool {
        self.is_live() && self.is_last
    }
}

/// All lanes of an output.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    portion: Portion,
    /// Index of the outbox of the live pipelines, where there is one.
    live: Option<usize>,
    turn: u64,
    /// Whether the last turn was that of the lane that goes first.
    first_had_it: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This lane sends.
    Of(usize),
    /// Nothing before then.
    Not(Instant),
    /// Nothing is pending.
    Nothing,
}

impl Lanes {
    pub(super) fn new(portion: Portion, live: Option<usize>) -> Self {
        Self { lanes: Vec::new(), portion, live, turn: 0, first_had_it: false }
    }

    /// Says which outbox is that of the live pipelines, when it has come: before it has lanes.
    pub(super) fn set_live(&mut self, live: Option<usize>) {
        self.live = live;
    }

    /// Brings them in line with what is pending in each outbox.
    pub(super) fn follow(&mut self, outboxes: &[Vec<Range<Seq>>], now: Instant) {
        let mut known = std::mem::take(&mut self.lanes);
        if let Some(lane) = known.first() {
            self.portion = lane.portion.of_another();
        }
        for (outbox, stretches) in outboxes.iter().enumerate() {
            for (index, pending) in stretches.iter().enumerate() {
                let is_last = index + 1 == stretches.len();
                let same = |lane: &Lane| lane.outbox == outbox && lane.pending.start == pending.start;
                let lane = match known.iter().position(same) {
                    Some(at) => Lane { pending: pending.clone(), is_last, ..known.swap_remove(at) },
                    None => Lane {
                        outbox,
                        is_live: Some(outbox) == self.live,
                        pending: pending.clone(),
                        is_last,
                        portion: self.portion.of_another(),
                        failures: 0,
                        due: now,
                        turn: 0,
                    },
                };
                self.lanes.push(lane);
            }
        }
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self, now: Instant) -> Turn {
        let pending = || self.lanes.iter().enumerate().filter(|(_, lane)| !lane.pending.is_empty());
        let due = || pending().filter(|(_, lane)| lane.due <= now);
        let first = due().find(|(_, lane)| lane.goes_first());
        let other = due().filter(|(_, lane)| !lane.goes_first()).min_by_key(|(_, lane)| lane.turn);
        let turn = if self.first_had_it { other.or(first) } else { first.or(other) };
        let Some((index, lane)) = turn else {
            let next = pending().map(|(_, lane)| lane.due).min();
            return next.map_or(Turn::Nothing, Turn::Not);
        };
        self.first_had_it = lane.goes_first();
        self.turn += 1;
        self.lanes[index].turn = self.turn;
        Turn::Of(index)
    }

    pub(super) fn lane(&mut self, index: usize) -> &mut Lane {
        &mut self.lanes[index]
    }

    /// The lane that goes first is another one now.
    pub(super) fn begin_anew(&mut self) {
        self.first_had_it = false;
    }

    /// Whatever they waited for has changed.
    pub(super) fn all_due(&mut self, now: Instant) {
        self.lanes.iter_mut().for_each(|lane| lane.due = lane.due.min(now));
    }

    /// Results in all of them.
    pub(super) fn pending(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.pending.end.saturating_sub(lane.pending.start)).sum()
    }

    /// How many lanes the outbox of a lane has.
    pub(super) fn beside(&self, index: usize) -> usize {
        let outbox = self.lanes[index].outbox;
        self.lanes.iter().filter(|lane| lane.outbox == outbox).count()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "an outbox of one stretch")]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lanes(outboxes: &[Vec<Range<Seq>>], now: Instant) -> Lanes {
        let mut lanes = Lanes::new(Portion::new(10, 1000), Some(1));
        lanes.follow(outboxes, now);
        lanes
    }

    #[track_caller]
    fn check(lanes: &mut Lanes, now: Instant, expected: &[usize]) {
        let turns: Vec<_> = expected.iter().map(|_| lanes.next(now)).collect();
        assert_eq!(turns, expected.iter().map(|lane| Turn::Of(*lane)).collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_goes_first_and_the_others_take_turns_beside_it() {
        let now = Instant::now();
        let mut lanes = lanes(&[vec![0..9], vec![0..9, 20..30, 50..60]], now);
        check(&mut lanes, now, &[3, 0, 3, 1, 3, 2, 3, 0]);
        lanes.follow(&[vec![0..9], vec![0..9, 20..30, 50..50]], now);
        check(&mut lanes, now, &[1, 2, 0, 1]);
        lanes.follow(&[vec![0..9], vec![0..9, 20..30, 50..51]], now);
        check(&mut lanes, now, &[3, 2, 3]);
        lanes.follow(&[vec![9..9], vec![50..60]], now);
        check(&mut lanes, now, &[1, 1]);
    }

    #[test]
    fn late_readings_are_sent_in_order_beside_results() {
        let now = Instant::now();
        let mut lanes = Lanes::new(Portion::new(10, 1000), None);
        lanes.follow(&[vec![0..90], vec![0..90]], now);
        check(&mut lanes, now, &[0, 1, 0, 1]);
        assert!(!lanes.lane(1).is_live() && lanes.lane(1).overtaken(10, 2).is_none());
    }

    #[test]
    fn a_lane_that_waits_holds_up_no_other() {
        let now = Instant::now();
        let mut lanes = lanes(&[vec![0..9], vec![0..9]], now);
        let later = now + Duration::from_secs(1);
        lanes.lane(0).due = later;
        check(&mut lanes, now, &[1, 1, 1]);
        lanes.lane(1).due = later + Duration::from_secs(1);
        assert_eq!(lanes.next(now), Turn::Not(later));
        check(&mut lanes, later, &[0, 0]);
        lanes.follow(&[vec![9..9], vec![9..9]], now);
        assert_eq!(lanes.next(now), Turn::Nothing);
    }

    #[test]
    fn a_lane_is_known_by_where_it_goes_on() {
        let now = Instant::now();
        let mut lanes = lanes(&[vec![0..9], vec![0..90]], now);
        lanes.lane(1).failures = 3;
        lanes.follow(&[vec![4..9], vec![0..10, 10..90]], now);
        let failures: Vec<_> = (0..3).map(|index| lanes.lane(index).failures).collect();
        assert_eq!((failures, lanes.pending()), (vec![0, 3, 0], 95));
        assert_eq!((lanes.beside(0), lanes.beside(2)), (1, 2));
    }
}
