//! Tumbling windows.

use std::time::Duration;

use super::super::context::KeyContext;
use super::super::pane::{KeyState, PaneId, PaneState};
use super::super::{ObservedReading, WindowConfig};
use super::grid::HopGrid;
use super::{KindRules, aligned};
use headwater_flow::Timestamp;

/// Windows of one length, one after the other, that start `offset` after whole multiples of the length since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TumblingWindow {
    /// The length of a window.
    pub size: Duration,
    /// The distance of the first start from 1970, shorter than `size`.
    pub offset: Duration,
}

impl KindRules for TumblingWindow {
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading {
        aligned::assign(self, context, key_state, time, payload)
    }

    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
        aligned::fire(self, context, key_state);
    }

    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
        aligned::due(self, config, key_state)
    }

    fn pane_bounds(&self, pane_id: PaneId, _: &PaneState) -> (u64, u64) {
        self.window_at(Timestamp(pane_id.at)).unwrap_or((pane_id.at, pane_id.at))
    }

    fn last_end(&self, newest: u64) -> Option<u64> {
        self.window_at(Timestamp(newest)).map(|(_, end)| end)
    }

    fn window_at(&self, time: Timestamp) -> Option<(u64, u64)> {
        let grid = HopGrid::new(self.size, self.size, self.offset);
        let start = grid.last_start(time.0)?;
        Some((start, start.saturating_add(grid.size)))
    }

    fn has_fixed_windows(&self) -> bool {
        true
    }

    fn mergeable(&self) -> Option<Duration> {
        self.offset.is_zero().then_some(self.size)
    }
}
