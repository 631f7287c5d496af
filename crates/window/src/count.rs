//! Count windows: readings are counted in the order of their event times, when the watermark has
//! passed them; those of one time in the order they came.

use super::fold::{Blocks, Part, merge};
use super::kind::gcd;
use super::pane::{Keyed, Pane, Place, Row};
use super::scene::Scene;
use super::{Config, Fate};
use headwater_flow::{Timestamp, micros};

/// Readings from one window's end to the next one's, and in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    size: u64,
    slide: u64,
}

impl Size {
    pub(super) fn new(size: u64, slide: u64) -> Self {
        Self { size: size.max(1), slide: slide.clamp(1, size.max(1)) }
    }

    /// Readings of a chunk: windows begin and end where one does.
    fn chunk(self) -> u64 {
        gcd(self.size, self.slide)
    }

    /// The window that the last of `counted` readings makes full, by its number.
    fn full(self, counted: u64) -> Option<u64> {
        let past = counted.checked_sub(self.size)?;
        (past % self.slide == 0).then_some(past / self.slide)
    }

    /// The first reading of the next window.
    fn next(self, counted: u64) -> u64 {
        counted.checked_sub(self.size).map_or(0, |past| (past / self.slide + 1) * self.slide)
    }
}

/// Lets a reading wait until the watermark has passed it.
pub(super) fn assign(
    scene: &Scene<'_>,
    keyed: &mut Keyed,
    time: Timestamp,
    payload: Vec<u8>,
) -> Result<(), (Fate, Vec<u8>)> {
    if time.0 < scene.watermark {
        return Err((Fate::Late, payload));
    }
    if time.0 < scene.lost_before {
        return Err((Fate::Lost, payload));
    }
    let same = Place::at(time.0)..=Place { at: time.0, tie: u32::MAX };
    let last = keyed.panes.range(same).next_back().map(|(place, _)| place.tie);
    let place = Place { at: time.0, tie: last.map_or(0, |tie| tie.saturating_add(1)) };
    keyed.push(place, (time, payload), false);
    (keyed.newest, keyed.dirty) = (keyed.newest.max(Some(time.0)), true);
    keyed.due = due(scene.config, keyed);
    Ok(())
}

/// Counts what the watermark has passed, and gives the windows that are full.
pub(super) fn fire(scene: &mut Scene<'_>, size: Size, keyed: &mut Keyed) {
    while let Some((place, _)) = keyed.panes.first() {
        let place = *place;
        if place.at >= scene.watermark {
            break;
        }
        let Some(pane) = keyed.remove(place).filter(|pane| pane.count > 0) else { continue };
        count(scene, size, keyed, place.at, pane);
    }
    let old = |newest: u64| {
        let keep = scene.config.forget.map_or(u64::MAX, micros);
        newest.saturating_add(keep) <= scene.watermark
    };
    if keyed.panes.is_empty() && keyed.newest.is_some_and(old) {
        forget(keyed);
    }
}

fn forget(keyed: &mut Keyed) {
    for (place, chunk) in std::mem::take(&mut keyed.chunks) {
        keyed.bytes -= chunk.state.len();
        keyed.removed.push(Row::Chunk(place));
    }
    keyed.folds.clear();
    (keyed.newest, keyed.counted, keyed.dirty) = (None, 0, true);
}

fn count(scene: &mut Scene<'_>, size: Size, keyed: &mut Keyed, time: u64, pane: Pane) {
    let number = Place::at(keyed.counted / size.chunk());
    (keyed.counted, keyed.dirty) = (keyed.counted + 1, true);
    let chunk = keyed.chunks.at(number);
    keyed.bytes -= chunk.state.len();
    match merge(&chunk.state, &pane.state, scene.aggregate) {
        Ok(state) => chunk.state = state,
        Err(reason) => scene.fail(Part::of(&pane), (time, time.saturating_add(1)), 0, 0, reason, time),
    }
    keyed.bytes += chunk.state.len();
    chunk.count += pane.count;
    chunk.span = Some((chunk.span.map_or(time, |(first, _)| first), time));
    chunk.dirty = true;
    let Some(window) = size.full(keyed.counted) else { return };
    let (first, end) = ((keyed.counted - size.size) / size.chunk(), keyed.counted / size.chunk());
    let start = keyed.chunks.get(&Place::at(first)).and_then(|chunk| chunk.span).map_or(time, |span| span.0);
    let bounds = (start, time.saturating_add(1));
    // A window over several blocks' ends never comes: it is as long as a block.
    let blocks = Blocks { len: size.size / size.chunk(), offset: 0 };
    let part_number = u32::try_from(window % (1 << 32)).unwrap_or(0);
    match keyed.folds.fold(&keyed.chunks, first..end, blocks, scene.aggregate) {
        Ok(part) => scene.give(part, 0, bounds, part_number, 0, false, time.saturating_add(1)),
        Err(reason) => scene.fail(Part::default(), bounds, part_number, 0, reason, time),
    }
    let next = size.next(keyed.counted) / size.chunk();
    while let Some((place, _)) = keyed.chunks.first().filter(|(place, _)| place.at < next) {
        let place = *place;
        keyed.bytes -= keyed.chunks.remove(&place).map_or(0, |chunk| chunk.state.len());
        keyed.removed.push(Row::Chunk(place));
    }
}

/// When something is to be done next.
pub(super) fn due(config: &Config, keyed: &Keyed) -> Option<u64> {
    match keyed.panes.first() {
        Some((place, _)) => Some(place.at.saturating_add(1)),
        None => Some(keyed.newest?.saturating_add(config.forget.map_or(u64::MAX, micros))),
    }
}
