//! Sums and moments.

use super::bytes::{StateBytes, put_float, put_whole};

/// A sum whose rounding errors are summed apart (Neumaier 1974): as exact as with twice the digits, and
/// nearly independent of the order.
#[derive(Clone, Debug, Default)]
pub(super) struct CompensatedSum {
    count: u64,
    sum: f64,
    lost: f64,
}

impl CompensatedSum {
    pub(super) fn decode(bytes: &mut StateBytes<'_>) -> Option<Self> {
        Some(Self { count: bytes.whole()?, sum: bytes.float()?, lost: bytes.float()? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_whole(out, self.count);
        put_float(out, self.sum);
        put_float(out, self.lost);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.take(value);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.take(other.sum);
        self.lost += other.lost;
    }

    fn take(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost +=
            if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    pub(super) fn sum(&self) -> Option<f64> {
        (self.count > 0).then_some(self.sum + self.lost)
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 readings")]
    pub(super) fn mean(&self) -> Option<f64> {
        Some(self.sum()? / self.count as f64)
    }
}

/// Mean and sum of squared distances from it, one by one (Welford 1962) and together (Chan, Golub,
/// LeVeque 1979): no cancellation, where squares of the values themselves would leave nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningMoments {
    count: u64,
    mean: f64,
    squares: f64,
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 readings")]
impl RunningMoments {
    pub(super) fn decode(bytes: &mut StateBytes<'_>) -> Option<Self> {
        Some(Self { count: bytes.whole()?, mean: bytes.float()?, squares: bytes.float()? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_whole(out, self.count);
        put_float(out, self.mean);
        put_float(out, self.squares);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        if other.is_empty() {
            return;
        }
        let ours = self.count as f64;
        let theirs = other.count as f64;
        let apart = other.mean - self.mean;
        self.count = self.count.saturating_add(other.count);
        self.mean += apart * (theirs / (ours + theirs));
        self.squares += other.squares + apart * apart * (ours * (theirs / (ours + theirs)));
    }

    pub(super) fn variance(&self) -> Option<f64> {
        (self.count > 0).then(|| self.squares / self.count as f64)
    }

    pub(super) fn variance_sample(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }
}
