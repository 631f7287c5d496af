//! The model of a key's numbers so far, and the score of the next one.
//!
//! Two views of the same differences from the mean are held against their own past: each reading, and the mean of
//! the recent ones. The first finds what stands out, the second what drifts or stays away by less. Both means and
//! deviations are exponentially weighted, and what lies far out is taken in only up to [`CLIP`] deviations, so
//! that an anomaly does not become the norm by which it is judged. That the recent mean is compared with its own
//! distribution, to tell a change from noise, is the anomaly likelihood of Ahmad, Lavin, Purdy and Agha,
//! "Unsupervised real-time anomaly detection for streaming data", Neurocomputing 262, 2017 (section 3.2), here over the
//! differences from a mean in place of a network's prediction errors; the weighted moments are Finch's, "Incremental
//! calculation of weighted mean and variance", 2009; the clipping is Winsor's.
//!
//! It is a function of the key's readings in the order in which they come; time counts for the hour of the day only.

use serde::{Deserialize, Serialize};

/// Deviations up to which a reading counts for what is normal.
const CLIP: f64 = 5.0;
/// Readings before which nothing is clipped: a deviation needs some to be one.
const CLIP_AFTER: u64 = 50;
/// Days of which an hour of the day remembers its mean.
const DAYS: f64 = 20.0;
const HOUR: f64 = 3_600_000_000.0;

/// The settings that the scores depend on.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ScoreParameters {
    /// Deviations from the mean at which a reading is anomalous.
    pub limit: f64,
    /// Deviations at which the mean of the recent readings is anomalous.
    pub drift: f64,
    /// Readings in that mean.
    pub recent: u32,
    /// Readings after which what was is forgotten.
    pub memory: u32,
    /// First readings, which score 0.
    pub learn: u32,
    /// True if each hour of the day has a mean of its own.
    pub daily: bool,
}

impl Default for ScoreParameters {
    fn default() -> Self {
        Self { limit: 5.3, drift: 3.0, recent: 144, memory: 10_000, learn: 100, daily: false }
    }
}

impl ScoreParameters {
    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// A fault of the configuration, in words for the operator.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self { limit, .. } if *limit <= 0.0 => Err("`limit` must be above 0".to_owned()),
            Self { drift, .. } if *drift <= 0.0 => Err("`drift` must be above 0".to_owned()),
            Self { recent: 0, .. } => Err("`recent` must be at least 1".to_owned()),
            Self { memory, recent, .. } if memory <= recent => {
                Err(format!("`memory` is {memory}: it must be above `recent`, {recent}"))
            }
            _ => Ok(()),
        }
    }
}

/// The model of one key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct KeyModel {
    count: u64,
    mean: f64,
    /// The variance of the clipped differences from the mean.
    variance: f64,
    recent: f64,
    views: [WeightedMoments; 2],
    /// The means of the hours of the day, as differences from the mean; empty unless asked for.
    hours: Vec<HourMean>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct WeightedMoments {
    mean: f64,
    variance: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct HourMean {
    weight: f64,
    mean: f64,
}

impl KeyModel {
    /// Takes a reading in, and returns its score: from 0 to 1, 0.5 at a limit. The number's square must have room in a
    /// double.
    pub fn score(&mut self, time: u64, number: f64, parameters: &ScoreParameters) -> f64 {
        if self.count == 0 {
            self.mean = number;
        }
        let hours = self.hours_at(time, parameters.daily);
        let usual: f64 =
            hours.iter().filter_map(|(hour, share)| Some(self.hours.get(*hour)?.mean * share)).sum();
        let difference = number - self.mean - usual;
        self.count += 1;
        let clips = self.count > CLIP_AFTER;
        let weight = 1.0 / (self.count.min(u64::from(parameters.memory)) as f64);
        self.recent += (difference - self.recent) / (self.count.min(u64::from(parameters.recent)) as f64);

        let mut score: f64 = 0.0;
        let limits = [parameters.limit, parameters.drift];
        for ((view, value), limit) in self.views.iter_mut().zip([difference, self.recent]).zip(limits) {
            score = score.max(view.score(value, limit));
            view.add(clipped(value, view.mean, view.variance, clips), weight);
        }

        let difference = clipped(difference, 0.0, self.variance, clips);
        self.variance = (1.0 - weight) * (self.variance + weight * difference * difference);
        self.mean += weight * difference;
        for (hour, share) in hours {
            if let Some(hour) = self.hours.get_mut(hour) {
                hour.add(difference, share, parameters.memory);
            }
        }
        if self.count > u64::from(parameters.learn) { score } else { 0.0 }
    }

    /// Returns the two hours between whose middles the time is, and the share of each.
    fn hours_at(&mut self, time: u64, daily: bool) -> [(usize, f64); 2] {
        if daily != (self.hours.len() == 24) {
            self.hours = if daily { vec![HourMean::default(); 24] } else { Vec::new() };
        }
        let hour = ((time as f64 / HOUR) + 23.5).rem_euclid(24.0);
        let share = hour.fract();
        [(hour as usize % 24, 1.0 - share), ((hour as usize + 1) % 24, share)]
    }
}

impl WeightedMoments {
    fn score(&self, value: f64, limit: f64) -> f64 {
        let distance = (value - self.mean).abs();
        let deviation = self.variance.sqrt();
        match distance > 0.0 {
            // Its square is, up to a factor, the logarithm of how seldom it is. From a deviation of 0 any distance is infinite.
            true => 1.0 - (-(distance / (deviation * limit)).powi(2)).exp2(),
            false => 0.0,
        }
    }

    fn add(&mut self, value: f64, weight: f64) {
        let apart = value - self.mean;
        self.mean += weight * apart;
        self.variance = (1.0 - weight) * (self.variance + weight * apart * apart);
    }
}

impl HourMean {
    fn add(&mut self, difference: f64, share: f64, memory: u32) {
        self.weight = (self.weight + share).min(f64::from(memory) / DAYS);
        self.mean += difference * share / (1.0 + self.weight);
    }
}

/// Returns the value, moved to the bound where it is far out; nothing is where nothing deviates yet.
fn clipped(value: f64, mean: f64, variance: f64, clips: bool) -> f64 {
    let bound = CLIP * variance.sqrt();
    if clips && bound > 0.0 { value.clamp(mean - bound, mean + bound) } else { value }
}
