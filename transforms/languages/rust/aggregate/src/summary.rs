//! The summary of a field's numbers, in 40 bytes however many they are.

use serde::{Deserialize, Serialize};

/// The summary of at least one number.
///
/// `deviations` is the sum of the squared differences from the mean: kept so, it loses no digits
/// where a sum of squares would.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldSummary {
    count: u64,
    mean: f64,
    min: f64,
    max: f64,
    deviations: f64,
}

/// A field's part of the result.
#[derive(Debug, Serialize)]
pub(crate) struct FieldReport {
    count: u64,
    mean: f64,
    min: f64,
    max: f64,
    /// The deviation of the population: the window's readings are all there is, not a sample of something
    /// larger, and one reading has deviation 0.
    stddev: f64,
}

impl FieldSummary {
    pub(crate) fn of(number: f64) -> Self {
        Self { count: 1, mean: number, min: number, max: number, deviations: 0.0 }
    }

    /// Takes one more number in, after Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
    pub(crate) fn add(&mut self, number: f64) {
        let before = number - self.mean;
        self.count += 1;
        self.mean += before / self.count as f64;
        self.deviations += before * (number - self.mean);
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    /// Takes another summary in, after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    /// variances", 1979.
    pub(crate) fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        let share = other.count as f64 / count as f64;
        let apart = other.mean - self.mean;
        self.deviations += other.deviations + apart * apart * self.count as f64 * share;
        self.mean += apart * share;
        self.count = count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    pub(crate) fn report(&self) -> FieldReport {
        let Self { count, mean, min, max, deviations } = *self;
        FieldReport { count, mean, min, max, stddev: (deviations / count as f64).sqrt() }
    }
}
