//! The kinds of windows: a file each in `kind/`, behind the trait [`KindRules`].
//!
//! `aligned.rs` holds the steps that tumbling windows and days share, `overlap.rs` those of hopping and sliding
//! windows, `grid.rs` the arithmetic of equal distances.

mod aligned;
mod count;
mod day;
mod grid;
mod hopping;
mod overlap;
mod session;
mod sliding;
mod tumbling;

use std::time::Duration;

pub use count::CountWindow;
pub use day::DayWindow;
pub use hopping::HoppingWindow;
pub use session::SessionWindow;
pub use sliding::SlidingWindow;
pub use tumbling::TumblingWindow;

use super::context::KeyContext;
use super::pane::{KeyState, PaneId, PaneState};
use super::{ObservedReading, WindowConfig};
use headwater_flow::Timestamp;

/// The kind of a pipeline's windows, which says how readings are put together.
///
/// Windows are half open: the start belongs to them, the end does not. None begins before 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Windows of one length, one after the other.
    Tumbling(TumblingWindow),
    /// Calendar days of a time zone.
    Day(DayWindow),
    /// Windows of one length that overlap.
    Hopping(HoppingWindow),
    /// A window for each event time of a key.
    Sliding(SlidingWindow),
    /// Windows that last until a key falls silent.
    Session(SessionWindow),
    /// Windows of a number of readings.
    Count(CountWindow),
}

impl WindowKind {
    /// Returns the length of windows that can be merged into wider ones: they neither overlap nor depend on the
    /// readings, and begin at multiples of their length.
    #[must_use]
    pub fn mergeable(&self) -> Option<Duration> {
        self.rules().mergeable()
    }

    /// Picks the implementation of this kind.
    pub(super) fn rules(&self) -> &dyn KindRules {
        match self {
            Self::Tumbling(window) => window,
            Self::Day(window) => window,
            Self::Hopping(window) => window,
            Self::Sliding(window) => window,
            Self::Session(window) => window,
            Self::Count(window) => window,
        }
    }
}

/// The behaviour of one kind of windows. Times are microseconds since 1970.
pub(super) trait KindRules {
    /// Puts a reading into its pane, or hands its payload back.
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading;

    /// Emits all results of a key that are due, and forgets the windows that are over.
    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState);

    /// Returns the watermark at which a key is to be fired next.
    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64>;

    /// Returns the start and the end of a pane.
    fn pane_bounds(&self, pane_id: PaneId, pane: &PaneState) -> (u64, u64);

    /// Returns the end of the last window that may hold a reading of this time.
    fn last_end(&self, newest: u64) -> Option<u64>;

    /// Returns the start and the end of the one window that holds a time, where a window is a pane at a fixed time.
    fn window_at(&self, _time: Timestamp) -> Option<(u64, u64)> {
        None
    }

    /// Reports that a window is a pane at a fixed time, so that a lost pane cannot make another window's result wrong.
    fn has_fixed_windows(&self) -> bool {
        false
    }

    /// Reports that the time of a key's newest reading is still needed when the key has no pane.
    fn keeps_newest(&self) -> bool {
        false
    }

    /// Returns the length for [`WindowKind::mergeable`].
    fn mergeable(&self) -> Option<Duration> {
        None
    }
}
