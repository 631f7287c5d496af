//! Liveness: the signs of life of the stages, and the judgement that one is stuck. Time is an argument, a monotonic
//! one: a host clock that jumps makes no stage look stuck.
//!
//! A stage is stuck when it has work and nothing of it has moved for longer than it may take. One
//! that waits for disk space or a quota, or whose destination cannot be reached, is degraded and
//! not stuck: a restart would mend nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The signs of life of one stage, counted.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU64);

impl Heartbeat {
    /// Gives another one.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The work of a stage at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressSign {
    /// It has work that it could do now.
    pub pending: bool,
    /// A number that changes whenever a part of the work is done.
    pub progress: u64,
}

/// Measures how long a stage has had work and done nothing of it.
#[derive(Clone, Copy, Debug)]
pub struct StandstillWatch {
    last: ProgressSign,
    since: Instant,
}

impl StandstillWatch {
    /// Begins with nothing known.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last: ProgressSign { pending: false, progress: 0 }, since: now }
    }

    /// Takes in what is seen now, and returns how long nothing has moved: zero while there is nothing to do. Work
    /// that came since the last look counts from this one.
    pub fn look(&mut self, sign: ProgressSign, now: Instant) -> Duration {
        if !sign.pending || sign != self.last {
            *self = Self { last: sign, since: now };
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks a second apart, and compares how long it has stood still at each.
    #[track_caller]
    fn check(looks: &[(bool, u64)], still: &[u64]) {
        let start = Instant::now();
        let mut watch = StandstillWatch::new(start);
        let at = |second: usize| start + Duration::from_secs(second as u64);
        let looks = looks.iter().enumerate();
        let seen: Vec<u64> = looks
            .map(|(second, &(pending, progress))| {
                watch.look(ProgressSign { pending, progress }, at(second)).as_secs()
            })
            .collect();
        assert_eq!(seen, still);
    }

    #[test]
    fn only_work_without_progress_makes_a_stage_still() {
        check(&[(false, 0), (false, 0), (false, 0)], &[0, 0, 0]);
        check(&[(true, 1), (true, 2), (true, 3)], &[0, 0, 0]);
        check(&[(true, 1), (true, 1), (true, 1), (true, 2), (true, 2)], &[0, 1, 2, 0, 1]);
        check(&[(true, 1), (true, 1), (false, 1), (true, 1), (true, 1)], &[0, 1, 0, 0, 1]);
        check(&[(false, 1), (true, 1), (true, 1)], &[0, 0, 1]);
    }
}
