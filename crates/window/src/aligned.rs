//! Tumbling windows and calendar days: a pane is a window, or the next part of one that was full.

use super::pane::{Keyed, Pane, Place};
use super::scene::Scene;
use super::{Config, Fate, bounds_at};
use headwater_flow::Timestamp;

/// Puts a reading into its window.
pub(super) fn assign(
    scene: &Scene<'_>,
    keyed: &mut Keyed,
    time: Timestamp,
    payload: Vec<u8>,
) -> Result<(), (Fate, Vec<u8>)> {
    let Some((start, end)) = bounds_at(scene.config, time).filter(|(_, end)| !scene.is_over(*end)) else {
        return Err((Fate::Late, payload));
    };
    let parts = Place::at(start)..=Place { at: start, tie: u32::MAX };
    let last = keyed.panes.range(parts).next_back().map(|(place, pane)| (*place, pane.full));
    let place = match last {
        Some((place, false)) => place,
        Some((place, true)) => Place { tie: place.tie.saturating_add(1), ..place },
        None => Place::at(start),
    };
    // Of what was lost a part may be there, but not what it would go on from.
    if start < scene.lost_before && last.is_none() {
        return Err((Fate::Lost, payload));
    }
    let is_late = end <= scene.watermark;
    let config = scene.config;
    let pane = keyed.push(place, (time, payload), is_late);
    pane.full = pane.taken >= config.readings_max || pane.taken_bytes >= config.bytes_max;
    if is_late || pane.full {
        pane.due = Some(scene.watermark);
    } else if pane.due.is_none() {
        pane.due = scene.early(time.0, end);
    }
    let due = pane.due(end);
    keyed.due = keyed.due.into_iter().chain(due).min();
    Ok(())
}

/// Gives all that is due, and forgets what is over.
pub(super) fn fire(scene: &mut Scene<'_>, keyed: &mut Keyed) {
    for (place, pane) in keyed.panes.iter_mut() {
        let Some((start, end)) = bounds_at(scene.config, Timestamp(place.at)) else { continue };
        while let Some(due) = pane.due(end).filter(|due| *due <= scene.watermark) {
            scene.show(pane, *place, (start, end), due);
        }
        if pane.full && !pane.state.is_empty() {
            // Only its number is still needed.
            keyed.bytes -= std::mem::take(&mut pane.state).len();
        }
    }
    let config = scene.config;
    let over = |place: &Place, _: &Pane| {
        bounds_at(config, Timestamp(place.at)).is_none_or(|(_, end)| scene.is_over(end))
    };
    keyed.forget(over);
}

/// When something is to be done next.
pub(super) fn due(config: &Config, keyed: &Keyed) -> Option<u64> {
    let first = keyed.panes.first();
    let over = first.and_then(|(place, _)| bounds_at(config, Timestamp(place.at)));
    let results = keyed.panes.iter().filter_map(|(place, pane)| {
        let (_, end) = bounds_at(config, Timestamp(place.at))?;
        pane.due(end)
    });
    results.chain(over.map(|(_, end)| config.over_at(end))).min()
}
