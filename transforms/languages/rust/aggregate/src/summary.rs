//! What is kept of a field's numbers, in 40 bytes however many they are.

use serde::{Deserialize, Serialize};

/// At least one number.
///
/// `deviations` is the sum of the squared differences from the mean: kept so, it loses no digits
/// where a sum of squares would.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    count: u64,
    mean: f64,
    min: f64,
    max: f64,
    deviations: f64,
}

/// A field's part of the result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    count: u64,
    mean: f64,
    min: f64,
    max: f64,
    /// Of the population: the window's readings are all there is, not a sample of something
    /// larger, and one reading has deviation 0.
    stddev: f64,
}

impl Summary {
    pub(crate) fn of(number: f64) -> Self {
        Self { count: 1, mean: number, min: number, max: number, deviations: 0.0 }
    }

    /// Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
    pub(crate) fn add(&mut self, number: f64) {
        let before = number - self.mean;
        self.count += 1;
        self.mean += before / self.count as f64;
        self.deviations += before * (number - self.mean);
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    /// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
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

    pub(crate) fn report(&self) -> Report {
        let Self { count, mean, min, max, deviations } = *self;
        Report { count, mean, min, max, stddev: (deviations / count as f64).sqrt() }
    }
}
