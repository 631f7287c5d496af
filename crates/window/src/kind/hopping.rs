//! Hopping windows: their panes are as long as the greatest common divisor of length and slide.

use std::time::Duration;

use super::super::context::KeyContext;
use super::super::fold::FoldBlocks;
use super::super::pane::{KeyState, PaneId, PaneState};
use super::super::panes::PaneQueue;
use super::super::{ObservedReading, WindowConfig};
use super::KindRules;
use super::grid::HopGrid;
use super::overlap::{self, OverlapLayout};
use headwater_flow::{Timestamp, micros};

/// Windows of one length, of which one begins every `slide`, so that they overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoppingWindow {
    /// The length of a window.
    pub size: Duration,
    /// The distance between two starts, at most `size`.
    pub slide: Duration,
    /// The distance of the first start from 1970, shorter than `slide`.
    pub offset: Duration,
}

impl HoppingWindow {
    fn grid(&self) -> HopGrid {
        HopGrid::new(self.size, self.slide, self.offset)
    }
}

impl KindRules for HoppingWindow {
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading {
        overlap::assign(self.grid(), context, key_state, time, payload)
    }

    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
        overlap::fire(self.grid(), context, key_state);
    }

    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
        overlap::due(self.grid(), config, key_state)
    }

    fn pane_bounds(&self, pane_id: PaneId, _: &PaneState) -> (u64, u64) {
        (pane_id.at, pane_id.at.saturating_add(self.grid().pane()))
    }

    fn last_end(&self, newest: u64) -> Option<u64> {
        Some(newest.saturating_add(micros(self.size)))
    }
}

impl OverlapLayout for HopGrid {
    fn size(self) -> u64 {
        self.size
    }

    fn pane_start(self, at: u64) -> u64 {
        self.pane_of(at)
    }

    fn last_end(self, pane: u64) -> u64 {
        self.last_start(pane).map_or(0, |start| start.saturating_add(self.size))
    }

    fn holds(self, at: u64) -> bool {
        self.last_start(at).is_some()
    }

    fn closes(self, at: u64) -> u64 {
        OverlapLayout::last_end(self, at)
    }

    fn revised_ends(self, at: u64) -> impl Iterator<Item = u64> {
        self.ends(at)
    }

    fn blocks(self) -> FoldBlocks {
        FoldBlocks { len: self.size, offset: self.offset }
    }

    fn next_end(self, panes: &PaneQueue, ended: u64) -> Option<u64> {
        let end = self.first_end(ended);
        let (pane_id, _) = panes.range(PaneId::at(end.saturating_sub(self.size))..).next()?;
        Some(end.max(self.first_end(pane_id.at)))
    }
}
