//! A mean by time: each value holds until the next reading, the last one until the window's end. The time
//! before a window's first reading does not count, since nobody knows what held then.
//!
//! The integral needs the readings in order, and they come in nearly any. So those of the newest times are
//! kept as they are, and what is older is put together to stretches of which only the integral is left. A
//! reading that belongs into such a stretch changes nothing: there are `disorder` places for readings that
//! overtook it. Where states that overlap are merged, what both have summed up is taken from the one that
//! began first.

use super::bytes::{StateBytes, put_float, put_whole};

/// A stretch of time without a gap; most often a single reading.
#[derive(Clone, Copy, Debug, PartialEq)]
struct HoldStretch {
    /// Time of its first reading, in microseconds.
    from: u64,
    /// Time of its last reading.
    to: u64,
    /// Value by microseconds, from first to last.
    integral: f64,
    /// The value that holds from then on.
    last: f64,
}

/// Stretches that do not overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct HoldIntegral {
    stretches: Vec<HoldStretch>,
}

impl HoldIntegral {
    pub(super) fn decode(bytes: &mut StateBytes<'_>) -> Option<Self> {
        let count = bytes.count()?;
        let mut stretches = Vec::with_capacity(count + 1);
        let mut time = 0u64;
        for at in 0..count {
            let gap = bytes.whole()?;
            let span = bytes.whole()?;
            if at > 0 && gap == 0 {
                return None;
            }
            let from = time.checked_add(gap)?;
            time = from.checked_add(span)?;
            let integral = if span > 0 { bytes.float()? } else { 0.0 };
            stretches.push(HoldStretch { from, to: time, integral, last: bytes.float()? });
        }
        Some(Self { stretches })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_whole(out, self.stretches.len() as u64);
        let mut time = 0;
        for stretch in &self.stretches {
            put_whole(out, stretch.from - time);
            put_whole(out, stretch.to - stretch.from);
            if stretch.to > stretch.from {
                put_float(out, stretch.integral);
            }
            put_float(out, stretch.last);
            time = stretch.to;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    pub(super) fn add(&mut self, disorder: usize, time: u64, value: f64) {
        let at = self.stretches.partition_point(|stretch| stretch.from <= time);
        match self.stretches[..at].last_mut() {
            Some(before) if before.to == time => before.last = value,
            Some(before) if before.to > time => {}
            _ => {
                let reading = HoldStretch { from: time, to: time, integral: 0.0, last: value };
                self.stretches.insert(at, reading);
                self.shorten(disorder);
            }
        }
    }

    /// Merges another one, whose reading counts where both have one at the same time.
    pub(super) fn merge(&mut self, disorder: usize, other: &Self) {
        self.stretches.extend(&other.stretches);
        self.stretches.sort_by_key(|stretch| stretch.from);
        self.stretches.dedup_by(|next, before| next.from <= before.to && before.absorb(next));
        self.shorten(disorder);
    }

    fn shorten(&mut self, disorder: usize) {
        let over = self.stretches.len().saturating_sub(disorder + 1);
        if over == 0 {
            return;
        }
        let mut oldest = self.stretches[0];
        for next in &self.stretches[1..=over] {
            oldest.follow(next);
        }
        self.stretches.drain(..over);
        self.stretches[0] = oldest;
    }

    /// Returns the mean: Returns the mean: `None` without readings; the last value where no time passed.
    pub(super) fn mean(&self, end: u64) -> Option<f64> {
        let mut all = *self.stretches.first()?;
        for next in &self.stretches[1..] {
            all.follow(next);
        }
        let last = all.last;
        let end = HoldStretch { from: end.max(all.to), to: end.max(all.to), integral: 0.0, last };
        all.follow(&end);
        Some(if all.to > all.from { all.integral / micros(all.to - all.from) } else { last })
    }
}

impl HoldStretch {
    /// Appends a stretch that begins after the end of this one.
    fn follow(&mut self, next: &Self) {
        self.integral += self.last * micros(next.from.saturating_sub(self.to)) + next.integral;
        self.to = next.to;
        self.last = next.last;
    }

    /// Absorbs a stretch that begins within this one or at its end; always true.
    fn absorb(&mut self, next: &Self) -> bool {
        if next.to > self.to {
            let share = micros(next.to - self.to) / micros(next.to - next.from);
            self.integral += next.integral * share;
            self.to = next.to;
            self.last = next.last;
        } else if next.to == self.to {
            self.last = next.last;
        }
        true
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
fn micros(micros: u64) -> f64 {
    micros as f64
}
