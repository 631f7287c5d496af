//! What is to be computed.

use std::fmt::Write as _;

/// The configuration `aggregate = { compute = [...] }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuiltinConfig {
    /// The members in the order of the result; no name stands twice.
    pub compute: Vec<ComputedMember>,
}

/// A member of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputedMember {
    /// The function that computes it.
    pub function: AggregateFunction,
    /// The field, outermost name first; [`AggregateFunction::Count`] alone does without.
    pub field: Option<Vec<String>>,
    /// The name of the member in the result.
    pub name: String,
}

/// A built-in function. [`super`] says which results are `null`.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateFunction {
    /// Readings used; with a field, those that have it.
    Count,
    /// Compensated sum (Neumaier 1974).
    Sum,
    /// Compensated sum by count.
    Mean,
    /// Least.
    Min,
    /// Greatest.
    Max,
    /// Variance of the readings as the whole population (Welford 1962; merged as Chan, Golub, LeVeque 1979).
    Variance,
    /// Variance of the readings as a sample of two or more.
    VarianceSample,
    /// Standard deviation; root of [`Self::Variance`].
    Stddev,
    /// Root of [`Self::VarianceSample`].
    StddevSample,
    /// First in event time; of several at one time, that which arrived first.
    First,
    /// Last in event time; of several at one time, that which arrived last.
    Last,
    /// Last less first: a counter that was reset shows as a fall.
    Delta,
    /// [`Self::Delta`] per second between the two.
    Rate,
    /// A sketch of the distribution ([`super::bins`]).
    Quantile {
        /// The quantiles, each from 0 to 1.
        at: Vec<f64>,
        /// Relative error.
        error: f64,
    },
    /// The number of different values ([`super::distinct`]).
    Distinct,
    /// The values that come most often ([`super::top`]).
    Top {
        /// The number of values in the result.
        k: usize,
        /// The number of values that are counted at once.
        counters: usize,
    },
    /// Counts of the readings up to each bound, and of those beyond the last.
    Histogram {
        /// The bounds, ascending; each belongs to the count below it.
        bounds: Vec<f64>,
    },
    /// Each value weighs as long as it holds: until the next reading, the last until the window's end.
    TimeMean {
        /// Readings that may come before others that belong behind them.
        disorder: usize,
    },
}

/// Relative error of quantiles that are given none.
pub const QUANTILE_ERROR: f64 = 0.01;
/// Readings out of order that a time-weighted mean puts right by default.
pub const DISORDER: usize = 16;
/// The greatest [`DISORDER`] that can be set.
pub const DISORDER_MAX: usize = 256;
/// Bounds of one histogram.
pub const BOUNDS_MAX: usize = 256;
/// Values that one top list counts.
pub const COUNTERS_MAX: usize = 1000;

/// Returns the number of values that are counted for the top `k` by default.
#[must_use]
pub fn counters(k: usize) -> usize {
    (8 * k).clamp(64, COUNTERS_MAX)
}

impl AggregateFunction {
    /// Returns the name by which it is configured.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Variance => "variance",
            Self::VarianceSample => "variance_sample",
            Self::Stddev => "stddev",
            Self::StddevSample => "stddev_sample",
            Self::First => "first",
            Self::Last => "last",
            Self::Delta => "delta",
            Self::Rate => "rate",
            Self::Quantile { .. } => "quantile",
            Self::Distinct => "distinct",
            Self::Top { .. } => "top",
            Self::Histogram { .. } => "histogram",
            Self::TimeMean { .. } => "time_mean",
        }
    }
}

impl ComputedMember {
    /// Names the member after function and field: `max_wind_speed` for the greatest `wind.speed`.
    #[must_use]
    pub fn new(function: AggregateFunction, field: Option<Vec<String>>) -> Self {
        let mut name = function.name().to_owned();
        for part in field.iter().flatten() {
            name = name + "_" + part;
        }
        Self { function, field, name }
    }
}

impl BuiltinConfig {
    /// Returns everything that the result depends on, as text.
    pub(super) fn identity(&self) -> String {
        let mut identity = String::new();
        for ComputedMember { function, field, name } in &self.compute {
            writeln!(identity, "{function:?} {field:?} {name:?}").expect("a string takes any text");
        }
        identity
    }
}
