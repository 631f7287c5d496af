//! The expected results of tumbling windows: a naive batch computation that knows nothing of the agent.
//!
//! Windows are over event time. The watermark is the highest event time so far minus the lateness. Each
//! reading, in the order of arrival, is compared with the watermark of the readings before it. A window is
//! complete when the watermark has reached its end.

use std::collections::{BTreeMap, HashMap};

/// A reading as it was published.
#[derive(Clone, Debug, PartialEq)]
pub struct PlantReading {
    /// The key it belongs to.
    pub key: String,
    /// The event time, in milliseconds since the Unix epoch.
    pub time: u64,
    /// The value measured.
    pub value: f64,
}

/// The windows into which readings are put, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct TumblingWindows {
    /// The length of a window.
    pub size: u64,
    /// The distance of the watermark from the highest event time.
    pub lateness: u64,
    /// The time after its end for which a window still takes late readings and revises its result.
    pub revise: u64,
}

/// The expected result of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadingStats {
    /// The number of readings used.
    pub count: u64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
    /// The standard deviation of the population.
    pub stddev: f64,
}

/// The key, start and end of a window.
pub type WindowKey = (String, u64, u64);

/// Everything that the readings must give.
#[derive(Clone, Debug, Default)]
pub struct ExpectedResults {
    /// The results of complete windows.
    pub windows: BTreeMap<WindowKey, ReadingStats>,
    /// The number of readings in windows that are not complete.
    pub open: u64,
    /// The number of readings that came too late to be used.
    pub late: u64,
}

impl ExpectedResults {
    /// Returns the number of readings used in complete windows.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.windows.values().map(|stats| stats.count).sum()
    }
}

/// Puts readings, in the order of their arrival, into windows.
#[must_use]
pub fn compute(readings: &[PlantReading], how: TumblingWindows) -> ExpectedResults {
    let mut values: HashMap<WindowKey, Vec<f64>> = HashMap::new();
    let mut watermark = 0;
    let mut late = 0;
    for reading in readings {
        let start = reading.time - reading.time % how.size;
        let end = start + how.size;
        if end + how.revise <= watermark {
            late += 1;
        } else {
            values.entry((reading.key.clone(), start, end)).or_default().push(reading.value);
        }
        watermark = watermark.max(reading.time.saturating_sub(how.lateness));
    }
    let mut outcome = ExpectedResults { late, ..ExpectedResults::default() };
    for (place, values) in values {
        if place.2 <= watermark {
            outcome.windows.insert(place, stats(&values));
        } else {
            outcome.open += values.len() as u64;
        }
    }
    outcome
}

/// Computes in two passes: the mean first, then the squared distances from it.
fn stats(values: &[f64]) -> ReadingStats {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    ReadingStats {
        count: values.len() as u64,
        mean,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        stddev: variance.sqrt(),
    }
}

/// Returns the differences between the expected and the found results as lines for people, at most ten.
/// Values may differ by 1e-9 of their size.
#[must_use]
pub fn differences(
    expected: &BTreeMap<WindowKey, ReadingStats>,
    got: &BTreeMap<WindowKey, ReadingStats>,
) -> Vec<String> {
    let missing = expected
        .iter()
        .filter(|(place, _)| !got.contains_key(*place))
        .map(|(place, stats)| format!("missing {place:?}: {stats:?}"));
    let wrong = got.iter().filter_map(|(place, stats)| match expected.get(place) {
        None => Some(format!("not expected {place:?}: {stats:?}")),
        Some(right) if !agree(right, stats) => {
            Some(format!("wrong {place:?}: {stats:?} instead of {right:?}"))
        }
        Some(_) => None,
    });
    missing.chain(wrong).take(10).collect()
}

fn agree(a: &ReadingStats, b: &ReadingStats) -> bool {
    let size = a.max.abs().max(a.min.abs());
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * size;
    a.count == b.count && near(a.mean, b.mean) && a.min == b.min && a.max == b.max && near(a.stddev, b.stddev)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64, value: f64) -> PlantReading {
        PlantReading { key: "a".to_owned(), time, value }
    }

    #[track_caller]
    fn check(
        readings: &[PlantReading],
        how: TumblingWindows,
        windows: &[(u64, u64, f64)],
        open: u64,
        late: u64,
    ) {
        let outcome = compute(readings, how);
        let got: Vec<_> =
            outcome.windows.iter().map(|((_, start, _), stats)| (*start, stats.count, stats.mean)).collect();
        assert_eq!((got.as_slice(), outcome.open, outcome.late), (windows, open, late));
    }

    #[test]
    fn a_reading_is_late_only_against_those_before_it() {
        let how = TumblingWindows { size: 10, lateness: 0, revise: 0 };
        check(&[at(1, 1.0), at(10, 2.0), at(9, 3.0), at(20, 4.0)], how, &[(0, 1, 1.0), (10, 1, 2.0)], 1, 1);
        let patient = TumblingWindows { lateness: 10, ..how };
        check(&[at(1, 1.0), at(10, 2.0), at(9, 3.0), at(20, 4.0)], patient, &[(0, 2, 2.0)], 2, 0);
        let revising = TumblingWindows { revise: 10, ..how };
        check(
            &[at(1, 1.0), at(10, 2.0), at(9, 3.0), at(20, 4.0)],
            revising,
            &[(0, 2, 2.0), (10, 1, 2.0)],
            1,
            0,
        );
    }

    #[test]
    fn statistics_are_those_of_the_population() {
        let stats = stats(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(stats, ReadingStats { count: 8, mean: 5.0, min: 2.0, max: 9.0, stddev: 2.0 });
    }

    #[test]
    fn differences_name_what_is_missing_wrong_or_too_much() {
        let how = TumblingWindows { size: 10, lateness: 0, revise: 0 };
        let right = compute(&[at(1, 1.0), at(11, 2.0), at(21, 3.0)], how).windows;
        let wrong = compute(&[at(1, 1.5), at(31, 2.0), at(41, 3.0)], how).windows;
        let lines = differences(&right, &wrong).join("\n");
        for word in ["missing", "wrong", "not expected"] {
            assert!(lines.contains(word), "{lines}");
        }
        assert!(differences(&right, &right).is_empty());
    }
}
