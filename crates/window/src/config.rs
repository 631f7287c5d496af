//! What windows a pipeline has.

use std::time::Duration;

use super::Kind;
use headwater_flow::micros;

/// What readings beyond [`Config::keys_max`] are put together under.
pub const OVERFLOW_KEY: &str = "(overflow)";

/// The windows of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which windows.
    pub kind: Kind,
    /// How far behind the newest reading another may come and still be used. Default 0 s.
    pub lateness: Duration,
    /// After this long without a reading the watermark goes on at the pace of the host's clock, so
    /// that windows close though the devices are silent. Without it they stay open.
    pub idle: Option<Duration>,
    /// How long, in event time, a closed window still takes late readings, each of which gives a
    /// new revision of its result. Default 0 s; not for sliding and count windows.
    pub revise: Duration,
    /// Each key has its own watermark, so that one device's clock or backlog does not touch the others. A
    /// key is at most this far behind the pipeline's watermark. Without it there is one for all.
    pub patience: Option<Duration>,
    /// An open window that has changed gives a result each time the watermark passes a multiple of
    /// this. For tumbling windows, days and sessions.
    pub early: Option<Duration>,
    /// A tumbling window or day is closed at so many readings; what follows is its next part.
    pub readings_max: u64,
    /// As `readings_max`, for the bytes of the readings.
    pub bytes_max: u64,
    /// A count window's readings are forgotten so long, in event time, after the last one of the key.
    pub forget: Option<Duration>,
    /// Keys that have open windows. Default 100,000.
    pub keys_max: usize,
    /// What becomes of a reading with another key.
    pub when_keys_full: WhenKeysFull,
}

/// What becomes of readings with one key too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenKeysFull {
    /// They go to the dead letters.
    #[default]
    Reject,
    /// They are put together under [`OVERFLOW_KEY`].
    Overflow,
}

/// Keys with open windows by default.
pub const KEYS_MAX: usize = 100_000;

impl Config {
    /// Windows of a kind, everything else as by default.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            lateness: Duration::ZERO,
            idle: None,
            revise: Duration::ZERO,
            patience: None,
            early: None,
            readings_max: u64::MAX,
            bytes_max: u64::MAX,
            forget: None,
            keys_max: KEYS_MAX,
            when_keys_full: WhenKeysFull::default(),
        }
    }

    /// When a window that ends here is forgotten.
    pub(super) fn over_at(&self, end: u64) -> u64 {
        end.saturating_add(micros(self.revise))
    }
}
