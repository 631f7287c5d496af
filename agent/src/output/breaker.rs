//! The circuit breaker; time is an argument.
//!
//! Full jitter may draw next to nothing many times over. The breaker is the floor below it: a
//! destination that is gone sees one probe a pause, not a megabyte whenever chance says so.

use std::time::{Duration, Instant};

/// Closed while all is well; open after too many failures in a row, and then half-open for one
/// probe at a time (M. Nygard, "Release It!", chapter "Circuit Breaker").
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

impl Breaker {
    pub(super) fn new(failures_max: u32) -> Self {
        Self { failures_max, state: State::Closed { failures: 0 } }
    }

    /// What is left to wait before anything may be sent; zero when it may go now. An open breaker
    /// whose pause is over then stands half-open until that probe's outcome is told.
    pub(super) fn admit(&mut self, now: Instant) -> Duration {
        let State::Open { until } = self.state else {
            return Duration::ZERO;
        };
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            self.state = State::HalfOpen;
        }
        left
    }

    /// The destination answered as one that lives, whatever it said.
    pub(super) fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The destination is gone or broken; should this open the breaker, then for `pause`.
    pub(super) fn failed(&mut self, now: Instant, pause: Duration) {
        let failures = match self.state {
            State::Closed { failures } => failures.saturating_add(1),
            State::Open { .. } | State::HalfOpen => self.failures_max,
        };
        self.state = if failures >= self.failures_max {
            State::Open { until: now + pause }
        } else {
            State::Closed { failures }
        };
    }

    /// Whether it waits for a probe to succeed.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let (mut breaker, now) = (Breaker::new(3), Instant::now());
        for _ in 0..2 {
            breaker.failed(now, PAUSE);
        }
        breaker.succeeded();
        for _ in 0..2 {
            breaker.failed(now, PAUSE);
            assert_eq!((breaker.admit(now), breaker.is_open()), (Duration::ZERO, false));
        }
        breaker.failed(now, PAUSE);
        assert_eq!((breaker.admit(now), breaker.is_open()), (PAUSE, true));
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_a_good_one_closes_it() {
        let (mut breaker, start) = (Breaker::new(1), Instant::now());
        breaker.failed(start, PAUSE);
        assert_eq!(breaker.admit(start + PAUSE / 3), PAUSE - PAUSE / 3);
        let probe = start + PAUSE;
        assert_eq!(breaker.admit(probe), Duration::ZERO);
        assert!(breaker.is_open(), "half-open is not closed");
        breaker.failed(probe, PAUSE);
        assert_eq!(breaker.admit(probe), PAUSE);
        assert_eq!(breaker.admit(probe + PAUSE), Duration::ZERO);
        breaker.succeeded();
        assert_eq!((breaker.admit(probe), breaker.is_open()), (Duration::ZERO, false));
    }
}
