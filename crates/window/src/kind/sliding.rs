//! Sliding windows: each event time is a pane.

use std::iter::empty;
use std::time::Duration;

use super::super::context::KeyContext;
use super::super::fold::FoldBlocks;
use super::super::pane::{KeyState, PaneId, PaneState};
use super::super::panes::PaneQueue;
use super::super::{ObservedReading, WindowConfig};
use super::KindRules;
use super::overlap::{self, OverlapLayout};
use headwater_flow::{Timestamp, micros};

/// A window for each event time of a key, with the readings of the `size` up to it, itself included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    /// The length of a window.
    pub size: Duration,
}

impl SlidingWindow {
    fn layout(&self) -> SlidingLayout {
        SlidingLayout { size: micros(self.size).max(1) }
    }
}

impl KindRules for SlidingWindow {
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading {
        overlap::assign(self.layout(), context, key_state, time, payload)
    }

    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
        overlap::fire(self.layout(), context, key_state);
    }

    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
        overlap::due(self.layout(), config, key_state)
    }

    fn pane_bounds(&self, pane_id: PaneId, _: &PaneState) -> (u64, u64) {
        (pane_id.at, pane_id.at.saturating_add(1))
    }

    fn last_end(&self, newest: u64) -> Option<u64> {
        Some(newest.saturating_add(micros(self.size)))
    }
}

/// The layout of sliding windows: one ends just after each event time.
#[derive(Clone, Copy, Debug)]
struct SlidingLayout {
    size: u64,
}

impl OverlapLayout for SlidingLayout {
    fn size(self) -> u64 {
        self.size
    }

    fn pane_start(self, at: u64) -> u64 {
        at
    }

    fn last_end(self, pane: u64) -> u64 {
        pane.saturating_add(self.size)
    }

    fn holds(self, _: u64) -> bool {
        true
    }

    fn closes(self, at: u64) -> u64 {
        at.saturating_add(1)
    }

    fn revised_ends(self, _: u64) -> impl Iterator<Item = u64> {
        empty()
    }

    fn blocks(self) -> FoldBlocks {
        FoldBlocks { len: self.size, offset: 0 }
    }

    fn next_end(self, panes: &PaneQueue, ended: u64) -> Option<u64> {
        let (pane_id, _) = panes.range(PaneId::at(ended)..).next()?;
        Some(pane_id.at.saturating_add(1))
    }
}
