//! Quantiles: a DDSketch (Masson, Rim, Lee, VLDB 2019).
//!
//! A bin holds the values between two powers of `(1 + error) / (1 - error)`, so that its middle is within
//! `error` of each of them. Which bin is whose says the crate `sketches-ddsketch`; the bins are kept here,
//! in order and only where they are not empty: the crate's own bytes lose what does not fit into 2048
//! adjacent bins, and panic when garbled.
//!
//! A sketch depends on what came and not on its order, so that merging is exact. Values nearer to 0 than
//! [`TINY`] count as 0. Of more than [`BINS_MAX`] bins the lowest are put together: then the error holds
//! for the quantiles above these alone.

use sketches_ddsketch::Config;

use super::bytes::{StateBytes, put_float, put_whole};

/// The largest size of a value that counts as 0.
const TINY: f64 = 1e-9;
/// The most bins of one sketch: at an error of 1 %, positive values over eighteen decimal powers.
pub(super) const BINS_MAX: usize = 2048;

/// The scale that gives each value its bin.
#[derive(Clone, Copy, Debug)]
pub(super) struct BinScale {
    config: Config,
    /// The bin of the least value that is not 0.
    least: i32,
}

impl BinScale {
    #[expect(clippy::cast_possible_truncation, reason = "it is a small number")]
    pub(super) fn new(error: f64) -> Self {
        let config = Config::new(error, BINS_MAX as u32, TINY);
        Self { config, least: config.key(TINY) }
    }

    /// Returns the bin of a value: ascending with the value, 0 for 0.
    fn index(&self, value: f64) -> i32 {
        let size = value.abs();
        // What rounding puts just outside belongs to the outermost bin.
        let index = if size > TINY { (self.config.key(size) - self.least).max(0) + 1 } else { 0 };
        if value < 0.0 { -index } else { index }
    }

    fn value(&self, index: i32) -> f64 {
        let size = match index.unsigned_abs() {
            0 => 0.0,
            index => self.config.value(i32::try_from(index).unwrap_or(i32::MAX) - 1 + self.least),
        };
        if index < 0 { -size } else { size }
    }
}

/// A sketch of the distribution of values.
#[derive(Clone, Debug)]
pub(super) struct QuantileSketch {
    min: f64,
    max: f64,
    /// The bins that hold a value, ascending, each with its count.
    bins: Vec<(i32, u64)>,
}

impl Default for QuantileSketch {
    fn default() -> Self {
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, bins: Vec::new() }
    }
}

impl QuantileSketch {
    pub(super) fn decode(bytes: &mut StateBytes<'_>) -> Option<Self> {
        let min = bytes.float()?;
        let max = bytes.float()?;
        let count = bytes.count()?;
        let mut bins = Vec::with_capacity(count);
        let mut index = i64::from(i32::MIN);
        for at in 0..count {
            let gap = bytes.whole()?;
            let held = bytes.whole()?;
            if held == 0 || at > 0 && gap == 0 {
                return None;
            }
            index = index.checked_add_unsigned(gap)?;
            bins.push((i32::try_from(index).ok()?, held));
        }
        (count <= BINS_MAX).then_some(Self { min, max, bins })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_float(out, self.min);
        put_float(out, self.max);
        put_whole(out, self.bins.len() as u64);
        let mut before = i32::MIN;
        for (index, count) in &self.bins {
            put_whole(out, u64::from(index.abs_diff(before)));
            put_whole(out, *count);
            before = *index;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    pub(super) fn add(&mut self, scale: &BinScale, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.put(scale.index(value), 1);
        self.collapse();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for (index, count) in &other.bins {
            self.put(*index, *count);
        }
        self.collapse();
    }

    fn put(&mut self, index: i32, count: u64) {
        match self.bins.binary_search_by_key(&index, |bin| bin.0) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (index, count)),
        }
    }

    /// Puts the lowest bins together. The highest bins of all that ever came are left, the same in any order.
    fn collapse(&mut self) {
        let over = self.bins.len().saturating_sub(BINS_MAX);
        let lowest: u64 = self.bins.drain(..over).fold(0, |sum, bin| sum.saturating_add(bin.1));
        if let Some(bin) = self.bins.first_mut() {
            bin.1 = bin.1.saturating_add(lowest);
        }
    }

    /// Returns the value of rank `q * (count - 1)`, rounded down, within the error; `None` without a value.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "exact up to 2^53 readings; the rank is not negative"
    )]
    pub(super) fn quantile(&self, scale: &BinScale, q: f64) -> Option<f64> {
        let count = self.bins.iter().fold(0u64, |sum, bin| sum.saturating_add(bin.1));
        let rank = (q * (count.checked_sub(1)? as f64)) as u64;
        if q <= 0.0 || q >= 1.0 {
            return Some(if q <= 0.0 { self.min } else { self.max });
        }
        let mut below = 0u64;
        let bin = self.bins.iter().find(|bin| {
            below = below.saturating_add(bin.1);
            below > rank
        });
        let value = scale.value(bin.or(self.bins.last())?.0);
        Some(value.max(self.min).min(self.max))
    }
}
