//! Which windows there are: arithmetic of times, nothing else.

use std::time::Duration;

use jiff::tz::TimeZone;

use headwater_flow::{Timestamp, micros};

/// How readings are put together.
///
/// Windows are half open: the start belongs to them, the end does not. None begins before 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One after the other, all as long, starting `offset` after whole multiples of the length since
    /// 1970 UTC.
    Tumbling {
        /// Length.
        size: Duration,
        /// Shorter than `size`.
        offset: Duration,
    },
    /// Calendar days of a time zone: 23 or 25 hours where its clocks change.
    Day {
        /// Where the days begin at midnight, or at the first moment after it that exists.
        zone: TimeZone,
    },
    /// As tumbling, but one begins every `slide`, so that they overlap.
    Hopping {
        /// Length.
        size: Duration,
        /// At most `size`.
        slide: Duration,
        /// Shorter than `slide`.
        offset: Duration,
    },
    /// One for each event time of a key: what came in the `size` up to it, itself included.
    Sliding {
        /// Length.
        size: Duration,
    },
    /// Readings of a key that follow each other by less than `gap`; it ends a gap after the last, or
    /// where a multiple of `longest` since 1970 UTC passes, as Azure Stream Analytics and eKuiper cut
    /// theirs: a cut at fixed times does not depend on the order of the readings.
    Session {
        /// Shortest silence between two.
        gap: Duration,
        /// At least `gap`.
        longest: Option<Duration>,
    },
    /// The last `size` readings of a key by event time, every `slide` readings, once there are `size`.
    Count {
        /// Readings in a window.
        size: u64,
        /// Readings from one window's end to the next one's, at most `size`.
        slide: u64,
    },
}

impl Kind {
    /// Length of windows that neither overlap nor depend on the readings, aligned to their multiples:
    /// such can be merged into wider ones.
    #[must_use]
    pub fn mergeable(&self) -> Option<Duration> {
        match self {
            Self::Tumbling { size, offset } if offset.is_zero() => Some(*size),
            _ => None,
        }
    }
}

/// Windows of one length at equal distances. For tumbling windows `size` is `slide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hops {
    pub(super) size: u64,
    pub(super) slide: u64,
    pub(super) offset: u64,
}

impl Hops {
    pub(super) fn new(size: Duration, slide: Duration, offset: Duration) -> Self {
        let slide = micros(slide).max(1);
        Self { size: micros(size).max(slide), slide, offset: micros(offset) % slide }
    }

    /// Length of the panes that all windows are made of.
    pub(super) fn pane(&self) -> u64 {
        gcd(self.size, self.slide)
    }

    /// Where the pane begins that holds `at`. What lies before the first offset has a shorter one.
    pub(super) fn pane_of(&self, at: u64) -> u64 {
        let offset = self.offset % self.pane();
        if at < offset { 0 } else { at - (at - offset) % self.pane() }
    }

    /// The last window that begins no later than `at`, if there is one.
    pub(super) fn last_start(&self, at: u64) -> Option<u64> {
        Some(at - at.checked_sub(self.offset)? % self.slide)
    }

    /// The first end after `at` of all windows.
    pub(super) fn first_end(&self, at: u64) -> u64 {
        let first = self.offset.saturating_add(self.size);
        if at < first {
            return first;
        }
        let past = (at - first) / self.slide + 1;
        first.saturating_add(past.saturating_mul(self.slide))
    }

    /// The ends of the windows that hold `at`, ascending.
    pub(super) fn ends(&self, at: u64) -> impl Iterator<Item = u64> + use<> {
        let Self { size, slide, .. } = *self;
        let last = self.last_start(at).map_or(0, |start| start.saturating_add(size));
        let first = self.first_end(at);
        (0..)
            .map(move |step: u64| first.saturating_add(step.saturating_mul(slide)))
            .take_while(move |end| *end <= last)
    }
}

pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The calendar day that holds `at`: its start and its end.
pub(super) fn day(zone: &TimeZone, at: Timestamp) -> (Timestamp, Timestamp) {
    let bounds = || {
        let micros = i64::try_from(at.0).ok()?;
        let day =
            jiff::Timestamp::from_microsecond(micros).ok()?.to_zoned(zone.clone()).start_of_day().ok()?;
        let end = day.tomorrow().ok()?.start_of_day().ok()?;
        Some((of(&day), of(&end)))
    };
    // Beyond the calendar's end there is one last day.
    bounds().unwrap_or((Timestamp(at.0 - at.0 % DAY_MICROS), Timestamp(u64::MAX)))
}

const DAY_MICROS: u64 = 86_400_000_000;

fn of(time: &jiff::Zoned) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp().as_microsecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_hold_a_time_by_their_ends() {
        let hops = |size, slide, offset| Hops { size, slide, offset };
        let ends = |hops: Hops, at| hops.ends(at).collect::<Vec<_>>();
        assert_eq!(ends(hops(10, 10, 0), 0), [10]);
        assert_eq!(ends(hops(10, 10, 0), 9), [10]);
        assert_eq!(ends(hops(10, 10, 0), 10), [20]);
        assert_eq!(ends(hops(10, 10, 3), 2), [0; 0], "before the first");
        assert_eq!(ends(hops(10, 10, 3), 13), [23]);
        assert_eq!(ends(hops(10, 4, 0), 3), [10]);
        assert_eq!(ends(hops(10, 4, 0), 9), [10, 14, 18]);
        assert_eq!(ends(hops(10, 4, 0), 10), [14, 18]);
        assert_eq!(ends(hops(10, 4, 1), 10), [11, 15, 19]);
        for (hops, at) in [(hops(10, 4, 0), 7), (hops(60, 7, 5), 100), (hops(9, 6, 2), 31)] {
            let plain: Vec<_> = (0..100)
                .map(|number| hops.offset + number * hops.slide)
                .filter(|start| (*start..start + hops.size).contains(&at))
                .map(|start| start + hops.size)
                .collect();
            assert_eq!(ends(hops, at), plain);
            assert!((hops.pane_of(at)..hops.pane_of(at) + hops.pane()).contains(&at));
        }
    }

    #[test]
    fn a_day_has_23_or_25_hours_where_clocks_change() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let hours = |text: &str| {
            let (start, end) = day(&zone, text.parse().unwrap());
            assert!(start <= text.parse().unwrap() && text.parse::<Timestamp>().unwrap() < end);
            (start.to_string(), (end.0 - start.0) / 3_600_000_000)
        };
        assert_eq!(hours("2026-03-29T12:00:00Z"), ("2026-03-28T23:00:00Z".into(), 23));
        assert_eq!(hours("2026-10-25T22:59:59Z"), ("2026-10-24T22:00:00Z".into(), 25));
        assert_eq!(hours("2026-11-21T22:59:59.999999Z"), ("2026-11-20T23:00:00Z".into(), 24));
        let zone = TimeZone::get("America/Sao_Paulo").unwrap();
        let (start, end) = day(&zone, "2018-11-04T12:00:00Z".parse().unwrap());
        assert_eq!(
            (start.to_string(), (end.0 - start.0) / 3_600_000_000),
            ("2018-11-04T03:00:00Z".into(), 23)
        );
        assert_eq!(day(&zone, Timestamp(u64::MAX)).1, Timestamp(u64::MAX));
    }
}
