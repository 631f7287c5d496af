//! What follows when a module trips: ends in a trap, at its deadline, its memory or its output limit.
//!
//! Pure; time is an argument. A pipeline starts with the policy of its configuration. Past a rate of trips
//! another takes its place, until the modules are switched, the pipeline is told to resume, or the agent
//! starts again. A version that has just been switched to is on trial: any trip takes it back.
//!
//! Bounds: as many moments are kept as trips are allowed within the rate's time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a version is on trial after the switch.
const TRIAL: Duration = Duration::from_mins(1);
/// Longest wait of a paused pipeline before it tries again by itself.
pub const PAUSE_MAX: Duration = Duration::from_hours(24);
/// Most trips that a rate may allow.
pub const TRIPS_MAX: u64 = 10_000;

/// What a pipeline does about a reading on which a module trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The reading goes to the dead letters, the others go on.
    #[default]
    DeadLetter,
    /// The event goes on as it came to the transform.
    Bypass,
    /// The pipeline goes back to its last commit and stops there.
    Pause,
}

impl Policy {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead-letter",
            Self::Bypass => "bypass",
            Self::Pause => "pause",
        }
    }
}

/// What it does past the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// [`Policy::Bypass`].
    Bypass,
    /// [`Policy::Pause`].
    Pause,
    /// The version before goes on, from the last commit; where there is none, [`Policy::Pause`].
    LastGood,
}

/// `on_trip`, `pause` and `trips` of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnTrip {
    /// The first policy. Default: [`Policy::DeadLetter`].
    pub policy: Policy,
    /// How long a paused pipeline waits before it tries again; twice as long when it pauses at the same
    /// place again, to [`PAUSE_MAX`]. Default 5 min.
    pub pause: Duration,
    /// When the policy changes. Default: never.
    pub rate: Option<Rate>,
}

impl Default for OnTrip {
    fn default() -> Self {
        Self { policy: Policy::default(), pause: Duration::from_mins(5), rate: None }
    }
}

/// More than `max` trips within a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many are borne: 0 to [`TRIPS_MAX`].
    pub max: u64,
    /// Within this time.
    pub within: Duration,
    /// What comes then.
    pub then: Then,
}

/// What is to be done about the trips of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing beyond what was done with the readings.
    GoOn,
    /// From here on events pass as they came.
    Bypass,
    /// The step does not count; the pipeline stops.
    Pause,
    /// The step does not count; the version before takes over.
    Back,
}

/// The trips of one pipeline.
#[derive(Debug)]
pub(super) struct Trips {
    config: OnTrip,
    policy: Policy,
    /// The latest, oldest first: one more than the rate bears.
    recent: VecDeque<Instant>,
    trial: Option<Instant>,
    /// Where it paused last, and how long.
    paused: Option<(u64, Duration)>,
}

impl Trips {
    pub(super) fn new(config: OnTrip) -> Self {
        Self { policy: config.policy, config, recent: VecDeque::new(), trial: None, paused: None }
    }

    /// The policy of now.
    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// There were so many since the last call.
    pub(super) fn judge(&mut self, trips: u64, now: Instant) -> Verdict {
        if trips == 0 {
            return Verdict::GoOn;
        }
        if self.is_on_trial(now) {
            return Verdict::Back;
        }
        let Some(Rate { max, within, then }) = self.config.rate else { return self.verdict() };
        for _ in 0..trips.min(max + 1) {
            self.recent.push_back(now);
        }
        while self.recent.len() as u64 > max + 1 {
            self.recent.pop_front();
        }
        let full = self.recent.len() as u64 == max + 1;
        let within = self.recent.front().is_some_and(|first| now.duration_since(*first) <= within);
        if !(full && within) {
            return self.verdict();
        }
        match then {
            Then::Bypass => self.policy = Policy::Bypass,
            Then::Pause => self.policy = Policy::Pause,
            Then::LastGood => {
                self.recent.clear();
                return Verdict::Back;
            }
        }
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        match self.policy {
            Policy::DeadLetter => Verdict::GoOn,
            Policy::Bypass => Verdict::Bypass,
            Policy::Pause => Verdict::Pause,
        }
    }

    /// How long to wait at that position of the journal.
    pub(super) fn pause(&mut self, position: u64) -> Duration {
        let wait = match self.paused {
            Some((before, wait)) if before == position => wait.saturating_mul(2).min(PAUSE_MAX),
            _ => self.config.pause,
        };
        self.paused = Some((position, wait));
        wait
    }

    /// Somebody did something about it: all is as configured.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// Another version begins, which the one before can take back.
    pub(super) fn switched(&mut self, now: Instant) {
        self.forget();
        self.trial = Some(now);
    }

    /// Whether any trip takes the version back.
    pub(super) fn is_on_trial(&self, now: Instant) -> bool {
        self.trial.is_some_and(|since| now.duration_since(since) < TRIAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Back, Bypass, GoOn, Pause};

    fn on_trip(policy: Policy, rate: Option<(u64, Then)>) -> OnTrip {
        let within = Duration::from_secs(60);
        let rate = rate.map(|(max, then)| Rate { max, within, then });
        OnTrip { policy, rate, ..OnTrip::default() }
    }

    /// Trips at seconds, and what follows each.
    #[track_caller]
    fn check(trips: &mut Trips, start: Instant, rows: &[(u64, u64, Verdict)]) {
        for (second, count, expected) in rows {
            let found = trips.judge(*count, start + Duration::from_secs(*second));
            assert_eq!(found, *expected, "{count} at {second} s");
        }
    }

    #[test]
    fn without_a_rate_the_policy_stays() {
        for (policy, verdict) in
            [(Policy::DeadLetter, GoOn), (Policy::Bypass, Bypass), (Policy::Pause, Pause)]
        {
            let rows = [(0, 0, GoOn), (0, 1, verdict), (1, 1_000_000, verdict), (2, 1, verdict)];
            check(&mut Trips::new(on_trip(policy, None)), Instant::now(), &rows);
        }
    }

    #[test]
    fn past_the_rate_the_policy_changes_and_stays_so() {
        let start = Instant::now();
        let new = |then| Trips::new(on_trip(Policy::DeadLetter, Some((2, then))));
        check(&mut new(Then::Pause), start, &[(0, 1, GoOn), (1, 1, GoOn), (60, 1, Pause), (999, 1, Pause)]);
        check(&mut new(Then::Bypass), start, &[(0, 3, Bypass), (500, 1, Bypass)]);
        check(&mut new(Then::LastGood), start, &[(0, 2, GoOn), (1, 1, Back), (2, 1, GoOn)]);
        let slow =
            [(0, 1, GoOn), (1, 1, GoOn), (61, 1, GoOn), (62, 1, GoOn), (122, 1, GoOn), (122, 1, Pause)];
        check(&mut new(Then::Pause), start, &slow);
        let mut none = Trips::new(on_trip(Policy::DeadLetter, Some((0, Then::Pause))));
        check(&mut none, start, &[(0, 0, GoOn), (1, 1, Pause)]);
        none.forget();
        assert_eq!(none.policy(), Policy::DeadLetter);
    }

    #[test]
    fn on_trial_any_trip_takes_the_version_back() {
        let start = Instant::now();
        let mut trips = Trips::new(on_trip(Policy::Bypass, None));
        trips.switched(start);
        check(&mut trips, start, &[(0, 0, GoOn), (59, 1, Back), (60, 1, Bypass)]);
    }

    #[test]
    fn pauses_at_one_place_double_to_a_day() {
        let mut trips = Trips::new(OnTrip::default());
        let waits = [7, 7, 7, 8].map(|position| trips.pause(position).as_secs() / 60);
        assert_eq!(waits, [5, 10, 20, 5]);
        let last = (0..20).map(|_| trips.pause(8)).last();
        assert_eq!(last, Some(PAUSE_MAX));
        trips.forget();
        assert_eq!(trips.pause(8), Duration::from_mins(5));
    }
}
