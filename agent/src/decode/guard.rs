//! What stamps are held against: the time of arrival, and the bounds around it. Pure.
//!
//! One clock that is fast would make all other devices late, so a stamp may be ahead of its message's
//! arrival by so much and no more; one far behind is of a device that forgot the time, or of another unit.
//!
//! The host's own clock may be wrong as well: a gateway without a battery boots in 1970, or where it was
//! switched off. [`Clock`] says which time of arrival to believe: the message's own, unless it is from before
//! 2020 or more than [`BACK_MAX`] behind the highest that the journal had before it, which then stands for
//! it. So stamps are not rejected, and arrivals not late, because of a boot without network time. Until the
//! first believable arrival nothing is known of the time, and no stamp is judged.
//!
//! **Limits.** A clock that was once far ahead is believed until time has caught up: the guard then is as
//! lenient as it was wrong. One that is behind and later than all before it cannot be told from a right one:
//! what is rejected meanwhile can be replayed, by the clock of then.

use std::time::Duration;

use super::Error;
use crate::flow::{Timestamp, micros};
use crate::store::CLOCK_SET;

/// Later than what RFC 3339 can write is no time, and would overflow a window's end.
pub(super) const TIME_MAX: Timestamp = Timestamp(253_402_207_200_000_000);

/// Inputs stamp side by side, and clocks are trimmed: so much is no step back.
const BACK_MAX: Duration = Duration::from_mins(1);

/// How far from its arrival a stamp may be, and what becomes of one that is further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Furthest ahead of its arrival. Default 5 min.
    pub skew: Duration,
    /// What becomes of one further ahead. Default: [`WhenOff::Reject`].
    pub when_ahead: WhenOff,
    /// Furthest behind its arrival. Default: any.
    pub past: Option<Duration>,
    /// What becomes of one further behind. Default: [`WhenOff::Reject`].
    pub when_past: WhenOff,
}

impl Default for Guard {
    fn default() -> Self {
        let (skew, when_ahead) = (Duration::from_mins(5), WhenOff::Reject);
        Self { skew, when_ahead, past: None, when_past: WhenOff::Reject }
    }
}

/// What becomes of a stamp that is too far off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOff {
    /// Its message goes to the dead letters.
    #[default]
    Reject,
    /// The time of arrival takes its place.
    Arrival,
    /// It is moved to the bound.
    Clamp,
}

/// What a message's stamp was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Within the bounds, or the arrival is what was asked for.
    Good,
    /// Missing: the arrival stands for it.
    Missing,
    /// Too far ahead, and moved.
    Ahead(WhenOff),
    /// Too far behind, and moved.
    Past(WhenOff),
}

/// When a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What can stand for a stamp.
    pub time: Timestamp,
    /// What no stamp may be far ahead of: the same, or later for what comes again.
    pub clock: Timestamp,
}

impl From<Timestamp> for Arrival {
    fn from(time: Timestamp) -> Self {
        Self { time, clock: time }
    }
}

impl Guard {
    /// Judges a stamp in microseconds since 1970, negative before it.
    pub(super) fn judge(&self, micros: i64, arrived: Arrival) -> Result<(Timestamp, Found), Error> {
        let Arrival { time: arrival, clock } = arrived;
        let time = Timestamp(u64::try_from(micros).unwrap_or(0));
        let known = clock >= CLOCK_SET;
        if known && time > clock.after(self.skew) {
            let moved = match self.when_ahead {
                WhenOff::Reject => return Err(Error::Ahead { time, skew: self.skew }),
                WhenOff::Arrival => arrival,
                WhenOff::Clamp => arrival.after(self.skew).min(TIME_MAX),
            };
            return Ok((moved, Found::Ahead(self.when_ahead)));
        }
        if let Some(past) = self.past.filter(|past| known && is_before(micros, arrival, *past)) {
            let moved = match self.when_past {
                WhenOff::Reject => return Err(Error::Past { time, past }),
                WhenOff::Arrival => arrival,
                WhenOff::Clamp => arrival.before(past),
            };
            return Ok((moved, Found::Past(self.when_past)));
        }
        if micros < 0 {
            return Err(Error::Time("it is before 1970: correct the device's clock, or set `past`".into()));
        }
        Ok((time, Found::Good))
    }
}

fn is_before(stamp: i64, arrival: Timestamp, past: Duration) -> bool {
    i128::from(stamp) < i128::from(arrival.0) - i128::from(micros(past))
}

/// The latest believable arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock(Timestamp);

impl Clock {
    /// One that knows of an arrival, if that is to be believed.
    #[must_use]
    pub fn new(latest: Timestamp) -> Self {
        let mut clock = Self::default();
        clock.tick(latest);
        clock
    }

    /// The next message of the journal: which time of arrival to believe.
    pub fn tick(&mut self, received: Timestamp) -> Timestamp {
        if received >= CLOCK_SET {
            self.0 = self.0.max(received);
        }
        self.at(received)
    }

    /// What to believe when the host's clock says this.
    #[must_use]
    pub fn at(self, host: Timestamp) -> Timestamp {
        if self.0.since(host) > BACK_MAX { self.0 } else { host }
    }

    /// The latest believable arrival, the beginning of time before the first.
    #[must_use]
    pub fn latest(self) -> Timestamp {
        self.0
    }
}

#[cfg(test)]
mod tests;
