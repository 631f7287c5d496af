//! When to say that something is wrong, and that it is well again; time is an argument.

use std::time::{Duration, Instant};

/// Between the first two lines of an outage; doubled from line to line.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Between two lines, at most.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// A fault of another kind is worth a line this soon after the last.
const OTHER_KIND: Duration = Duration::from_secs(10);
/// Only after so long without a failure does the next one count as the first of a new outage, so
/// that a destination that comes and goes does not fill the log.
const WELL: Duration = Duration::from_secs(60);

/// One destination's voice in the log. `K` tells kinds of faults apart.
#[derive(Debug)]
pub(super) struct Alarm<K> {
    last: Option<(Instant, K)>,
    interval: Duration,
    well_since: Option<Instant>,
    told: bool,
}

impl<K: PartialEq> Alarm<K> {
    pub(super) fn new() -> Self {
        Self { last: None, interval: INTERVAL_MIN, well_since: None, told: false }
    }

    /// Whether this failure is worth a line.
    pub(super) fn failed(&mut self, now: Instant, kind: K) -> bool {
        let well = self.well_since.take().map_or(Duration::ZERO, |since| now.duration_since(since));
        let (first, due) = match &self.last {
            None => (true, true),
            Some(_) if well >= WELL.max(self.interval) => (true, true),
            Some((last, before)) => {
                let passed = now.duration_since(*last);
                (false, passed >= self.interval || (*before != kind && passed >= OTHER_KIND))
            }
        };
        if due {
            self.interval = if first { INTERVAL_MIN } else { (self.interval * 2).min(INTERVAL_MAX) };
            self.last = Some((now, kind));
            self.told = true;
        }
        due
    }

    /// Whether this success is worth a line: one for each time that failures were told of.
    pub(super) fn succeeded(&mut self, now: Instant) -> bool {
        self.well_since.get_or_insert(now);
        std::mem::take(&mut self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(
        alarm: &mut Alarm<u8>,
        start: Instant,
        seconds: impl IntoIterator<Item = (u64, u8)>,
    ) -> Vec<u64> {
        let mut told = seconds.into_iter();
        let mut out = Vec::new();
        for (second, kind) in &mut told {
            if alarm.failed(start + Duration::from_secs(second), kind) {
                out.push(second);
            }
        }
        out
    }

    #[test]
    fn an_outage_is_told_at_doubling_intervals() {
        let (mut alarm, start) = (Alarm::new(), Instant::now());
        assert_eq!(lines(&mut alarm, start, (0..70).map(|s| (s, 0))), [0, 1, 3, 7, 15, 31, 63]);
    }

    #[test]
    fn another_fault_is_told_soon() {
        let (mut alarm, start) = (Alarm::new(), Instant::now());
        let seconds = (0..60).map(|s| (s, u8::from(s >= 40)));
        assert_eq!(lines(&mut alarm, start, seconds), [0, 1, 3, 7, 15, 31, 41]);
    }

    #[test]
    fn recovery_is_told_once_and_flapping_stays_quiet() {
        let (mut alarm, start) = (Alarm::new(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!alarm.succeeded(at(0)));
        let mut told = (0, 0);
        for n in 0..10_000 {
            told.0 += u32::from(alarm.failed(at(n * 10), 0));
            told.1 += u32::from(alarm.succeeded(at(n * 10 + 5)));
            assert!(!alarm.succeeded(at(n * 10 + 6)));
        }
        assert_eq!(told, (7, 7), "in 100 s of failing every 10 ms");
        assert!(alarm.failed(at(100_000 + 120_000), 0), "after a long calm");
    }
}
