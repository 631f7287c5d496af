//! The configuration of a pipeline's windows.

use std::time::Duration;

use super::WindowKind;
use headwater_flow::micros;

/// The key under which readings beyond [`WindowConfig::keys_max`] are put together.
pub const OVERFLOW_KEY: &str = "(overflow)";

/// The windows of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// The kind of the windows.
    pub kind: WindowKind,
    /// The time by which a reading may be behind the newest one and still be used. Default 0 s.
    pub lateness: Duration,
    /// The time without a reading after which the watermark goes on at the pace of the host's clock, so
    /// that windows close though the devices are silent. Without it they stay open.
    pub idle: Option<Duration>,
    /// The event time for which a closed window still takes late readings, each of which gives a
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
    /// The limit as `readings_max`, for the bytes of the readings.
    pub bytes_max: u64,
    /// A count window's readings are forgotten so long, in event time, after the last one of the key.
    pub forget: Option<Duration>,
    /// Keys that have open windows. Default 100,000.
    pub keys_max: usize,
    /// The treatment of a reading with one key too many.
    pub when_keys_full: WhenKeysFull,
}

/// The treatment of readings with one key too many.
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

impl WindowConfig {
    /// Returns windows of a kind, with the defaults for everything else.
    #[must_use]
    pub fn new(kind: WindowKind) -> Self {
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

    /// Returns the watermark at which a window with this end is forgotten.
    pub(super) fn over_at(&self, end: u64) -> u64 {
        end.saturating_add(micros(self.revise))
    }
}
