//! The arithmetic of windows at equal distances.

use std::time::Duration;

use headwater_flow::micros;

/// The grid of windows of one length at equal distances. For tumbling windows `size` is `slide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HopGrid {
    pub(super) size: u64,
    pub(super) slide: u64,
    pub(super) offset: u64,
}

impl HopGrid {
    pub(super) fn new(size: Duration, slide: Duration, offset: Duration) -> Self {
        let slide = micros(slide).max(1);
        Self { size: micros(size).max(slide), slide, offset: micros(offset) % slide }
    }

    /// Returns the length of the panes that all windows are made of.
    pub(super) fn pane(&self) -> u64 {
        gcd(self.size, self.slide)
    }

    /// Returns the start of the pane that holds `at`. The pane before the first offset is shorter than the others.
    pub(super) fn pane_of(&self, at: u64) -> u64 {
        let offset = self.offset % self.pane();
        if at < offset { 0 } else { at - (at - offset) % self.pane() }
    }

    /// Returns the start of the last window that begins no later than `at`, if there is one.
    pub(super) fn last_start(&self, at: u64) -> Option<u64> {
        Some(at - at.checked_sub(self.offset)? % self.slide)
    }

    /// Returns the first end of a window after `at`.
    pub(super) fn first_end(&self, at: u64) -> u64 {
        let first = self.offset.saturating_add(self.size);
        if at < first {
            return first;
        }
        let past = (at - first) / self.slide + 1;
        first.saturating_add(past.saturating_mul(self.slide))
    }

    /// Returns the ends of the windows that hold `at`, ascending.
    pub(super) fn ends(&self, at: u64) -> impl Iterator<Item = u64> + use<> {
        let Self { size, slide, .. } = *self;
        let last = self.last_start(at).map_or(0, |start| start.saturating_add(size));
        let first = self.first_end(at);
        (0..)
            .map(move |step: u64| first.saturating_add(step.saturating_mul(slide)))
            .take_while(move |end| *end <= last)
    }
}

/// Returns the greatest common divisor.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_hold_a_time_by_their_ends() {
        let hops = |size, slide, offset| HopGrid { size, slide, offset };
        let ends = |hops: HopGrid, at| hops.ends(at).collect::<Vec<_>>();
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
}
