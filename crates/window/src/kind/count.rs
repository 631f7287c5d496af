//! Count windows: readings are counted in the order of their event times, when the watermark has
//! passed them; those of one time in the order they came.

use super::super::context::KeyContext;
use super::super::fold::{FoldBlocks, FoldedPanes, merge};
use super::super::pane::{KeyRow, KeyState, PaneId, PaneState};
use super::super::{ObservedReading, WindowConfig};
use super::KindRules;
use super::grid::gcd;
use headwater_flow::{Timestamp, micros};

/// The last `size` readings of a key by event time, every `slide` readings, once there are `size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountWindow {
    /// The number of readings in a window.
    pub size: u64,
    /// The number of readings from one window's end to the next one's, at most `size`.
    pub slide: u64,
}

impl KindRules for CountWindow {
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading {
        assign(context, key_state, time, payload)
    }

    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
        fire(context, CountSteps::new(self.size, self.slide), key_state);
    }

    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
        due(config, key_state)
    }

    fn pane_bounds(&self, pane_id: PaneId, _: &PaneState) -> (u64, u64) {
        (pane_id.at, pane_id.at.saturating_add(1))
    }

    fn last_end(&self, _: u64) -> Option<u64> {
        None
    }

    fn keeps_newest(&self) -> bool {
        true
    }
}

/// The lengths of count windows, in readings.
#[derive(Clone, Copy, Debug)]
struct CountSteps {
    size: u64,
    slide: u64,
}

impl CountSteps {
    fn new(size: u64, slide: u64) -> Self {
        Self { size: size.max(1), slide: slide.clamp(1, size.max(1)) }
    }

    /// Returns the readings of a chunk: windows begin and end where a chunk does.
    fn chunk(self) -> u64 {
        gcd(self.size, self.slide)
    }

    /// Returns the number of the window that the last of `counted` readings makes full.
    fn full(self, counted: u64) -> Option<u64> {
        let past = counted.checked_sub(self.size)?;
        (past % self.slide == 0).then_some(past / self.slide)
    }

    /// Returns the number of the first reading of the next window.
    fn next(self, counted: u64) -> u64 {
        counted.checked_sub(self.size).map_or(0, |past| (past / self.slide + 1) * self.slide)
    }
}

/// Lets a reading wait until the watermark has passed it.
fn assign(
    context: &KeyContext<'_>,
    key_state: &mut KeyState,
    time: Timestamp,
    payload: Vec<u8>,
) -> ObservedReading {
    if time.0 < context.watermark {
        return ObservedReading::Late(payload);
    }
    if time.0 < context.lost_before {
        return ObservedReading::Lost(payload);
    }
    let same = PaneId::at(time.0)..=PaneId { at: time.0, tie: u32::MAX };
    let last = key_state.panes.range(same).next_back().map(|(pane_id, _)| pane_id.tie);
    let pane_id = PaneId { at: time.0, tie: last.map_or(0, |tie| tie.saturating_add(1)) };
    key_state.push(pane_id, (time, payload), false);
    key_state.newest = key_state.newest.max(Some(time.0));
    key_state.dirty = true;
    key_state.due = due(context.config, key_state);
    ObservedReading::Used
}

/// Counts the readings that the watermark has passed, and emits the windows that are full.
fn fire(context: &mut KeyContext<'_>, steps: CountSteps, key_state: &mut KeyState) {
    while let Some((pane_id, _)) = key_state.panes.first() {
        let pane_id = *pane_id;
        if pane_id.at >= context.watermark {
            break;
        }
        let Some(pane) = key_state.remove(pane_id).filter(|pane| pane.count > 0) else { continue };
        count(context, steps, key_state, pane_id.at, pane);
    }
    let old = |newest: u64| {
        let keep = context.config.forget.map_or(u64::MAX, micros);
        newest.saturating_add(keep) <= context.watermark
    };
    if key_state.panes.is_empty() && key_state.newest.is_some_and(old) {
        forget(key_state);
    }
}

fn forget(key_state: &mut KeyState) {
    for (pane_id, chunk) in std::mem::take(&mut key_state.chunks) {
        key_state.bytes -= chunk.state.len();
        key_state.removed.push(KeyRow::Chunk(pane_id));
    }
    key_state.folds.clear();
    key_state.newest = None;
    key_state.counted = 0;
    key_state.dirty = true;
}

fn count(
    context: &mut KeyContext<'_>,
    steps: CountSteps,
    key_state: &mut KeyState,
    time: u64,
    pane: PaneState,
) {
    let number = PaneId::at(key_state.counted / steps.chunk());
    key_state.counted += 1;
    key_state.dirty = true;
    let chunk = key_state.chunks.at(number);
    key_state.bytes -= chunk.state.len();
    match merge(&chunk.state, &pane.state, context.aggregate) {
        Ok(state) => chunk.state = state,
        Err(reason) => {
            context.fail(FoldedPanes::of(&pane), (time, time.saturating_add(1)), 0, 0, reason, time)
        }
    }
    key_state.bytes += chunk.state.len();
    chunk.count += pane.count;
    chunk.span = Some((chunk.span.map_or(time, |(first, _)| first), time));
    chunk.dirty = true;
    let Some(window) = steps.full(key_state.counted) else { return };
    let first = (key_state.counted - steps.size) / steps.chunk();
    let end = key_state.counted / steps.chunk();
    let start =
        key_state.chunks.get(&PaneId::at(first)).and_then(|chunk| chunk.span).map_or(time, |span| span.0);
    let bounds = (start, time.saturating_add(1));
    // A window over several blocks' ends never comes: it is as long as a block.
    let blocks = FoldBlocks { len: steps.size / steps.chunk(), offset: 0 };
    let part_number = u32::try_from(window % (1 << 32)).unwrap_or(0);
    match key_state.folds.fold(&key_state.chunks, first..end, blocks, context.aggregate) {
        Ok(part) => context.give(part, 0, bounds, part_number, 0, false, time.saturating_add(1)),
        Err(reason) => context.fail(FoldedPanes::default(), bounds, part_number, 0, reason, time),
    }
    let next = steps.next(key_state.counted) / steps.chunk();
    while let Some((pane_id, _)) = key_state.chunks.first().filter(|(pane_id, _)| pane_id.at < next) {
        let pane_id = *pane_id;
        key_state.bytes -= key_state.chunks.remove(&pane_id).map_or(0, |chunk| chunk.state.len());
        key_state.removed.push(KeyRow::Chunk(pane_id));
    }
}

/// Returns the watermark at which a key is to be fired next.
fn due(config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
    match key_state.panes.first() {
        Some((pane_id, _)) => Some(pane_id.at.saturating_add(1)),
        None => Some(key_state.newest?.saturating_add(config.forget.map_or(u64::MAX, micros))),
    }
}
