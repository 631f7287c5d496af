//! Sessions: intervals that grow with their readings, and become one when a reading joins two.

use std::ops::Bound;
use std::time::Duration;

use super::fold::{Part, merge};
use super::pane::{Keyed, Pane, Place, Shown};
use super::scene::Scene;
use super::{Config, Fate};
use headwater_flow::{Timestamp, micros};

/// Where sessions end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    gap: u64,
    longest: Option<u64>,
}

impl Bounds {
    pub(super) fn new(gap: Duration, longest: Option<Duration>) -> Self {
        Self { gap: micros(gap).max(1), longest: longest.map(|longest| micros(longest).max(1)) }
    }

    /// The next time after `at` that no session passes.
    fn cut(self, at: u64) -> u64 {
        self.longest.map_or(u64::MAX, |longest| (at - at % longest).saturating_add(longest))
    }

    /// Where a session with such a last reading ends.
    fn end(self, last: u64) -> u64 {
        last.saturating_add(self.gap).min(self.cut(last))
    }

    /// Start and end of a pane's session.
    pub(super) fn of(self, pane: &Pane, place: Place) -> (u64, u64) {
        let (start, last) = pane.span.unwrap_or((place.at, place.at));
        (start, self.end(last))
    }
}

/// Puts a reading into its session, which may make one of two.
pub(super) fn assign(
    scene: &mut Scene<'_>,
    bounds: Bounds,
    keyed: &mut Keyed,
    time: Timestamp,
    payload: Vec<u8>,
) -> Result<(), (Fate, Vec<u8>)> {
    let at = time.0;
    let before = keyed.panes.range(..=Place::at(at)).next_back();
    let left = before.filter(|(place, pane)| at < bounds.of(pane, **place).1);
    let left = left.map(|(place, pane)| (*place, bounds.of(pane, *place)));
    let after = keyed.panes.range((Bound::Excluded(Place::at(at)), Bound::Unbounded)).next();
    let right = after.filter(|(place, _)| place.at < bounds.end(at));
    let right = right.map(|(place, pane)| (*place, bounds.of(pane, *place)));
    let end = [left, right].into_iter().flatten().map(|(_, (_, end))| end).chain([bounds.end(at)]).max();
    if end.is_none_or(|end| scene.is_over(end)) {
        return Err((Fate::Late, payload));
    }
    if at < scene.lost_before {
        return Err((Fate::Lost, payload));
    }
    let joined = left.or(right).map_or(bounds.end(at), |(_, (_, end))| end);
    let is_late = joined <= scene.watermark;
    let place = match (left, right) {
        (Some((left, _)), Some((right, _))) => join(scene, bounds, keyed, left, right),
        (Some((place, _)), None) => place,
        (None, Some((place, _))) => {
            let pane = keyed.remove(place).expect("it was found there");
            keyed.insert(Place::at(at), pane);
            Place::at(at)
        }
        (None, None) => Place::at(at),
    };
    if keyed.panes.get(&place).is_some_and(|pane| pane.is_late != is_late) {
        // What waits together is late together.
        scene.apply(keyed);
    }
    let pane = keyed.push(place, (time, payload), is_late);
    let (first, last) = pane.span.unwrap_or((at, at));
    pane.span = Some((first.min(at), last.max(at)));
    let (_, end) = bounds.of(pane, place);
    if end <= scene.watermark {
        pane.due = Some(scene.watermark);
    } else if pane.due.is_none() {
        pane.due = scene.early(at, end);
    }
    keyed.due = due(scene.config, bounds, keyed);
    Ok(())
}

/// Makes one session of two, the earlier one. Where they cannot be merged, that goes on without the readings
/// of the later one, whose state is handed out as failed.
fn join(scene: &mut Scene<'_>, bounds: Bounds, keyed: &mut Keyed, left: Place, right: Place) -> Place {
    // In this order, so that it does not matter where a batch ended.
    scene.apply(keyed);
    let (Some(mut earlier), Some(later)) = (keyed.remove(left), keyed.remove(right)) else { return left };
    match merge(&earlier.state, &later.state, scene.aggregate) {
        Ok(state) => {
            earlier.state = state;
            earlier.count += later.count;
            earlier.late += later.late;
            earlier.rejected += later.rejected;
            earlier.changed |= later.changed;
        }
        Err(reason) => {
            let (part, (start, end)) = (Part::of(&later), bounds.of(&later, right));
            let same = |shown: &&Shown| (shown.start, shown.end) == (start, end);
            // Above that of its withdrawal, so that it comes back when it is replayed.
            let revision = later.shown.iter().find(same).map_or(0, |shown| shown.revision.saturating_add(1));
            scene.fail(part, (start, end), 0, revision, reason, scene.watermark);
        }
    }
    // What was shown of either alone is to be withdrawn.
    earlier.shown.extend(later.shown.iter().copied());
    earlier.changed |= !earlier.shown.is_empty();
    let last = [earlier.span, later.span].into_iter().flatten().map(|(_, last)| last).max();
    earlier.span = Some((left.at, last.unwrap_or(left.at)));
    keyed.insert(left, earlier);
    left
}

/// Gives all that is due, and forgets what is over.
pub(super) fn fire(scene: &mut Scene<'_>, bounds: Bounds, keyed: &mut Keyed) {
    for (place, pane) in keyed.panes.iter_mut() {
        let span = bounds.of(pane, *place);
        while let Some(due) = pane.due(span.1).filter(|due| *due <= scene.watermark) {
            let gap = bounds.gap;
            if span.0 < scene.lost_before.saturating_add(gap) && scene.lost_before > 0 {
                (pane.changed, pane.provisional, pane.due, pane.dirty) = (false, false, None, true);
            } else {
                scene.show(pane, *place, span, due);
            }
        }
    }
    keyed.forget(|place, pane| scene.is_over(bounds.of(pane, *place).1));
}

/// When something is to be done next.
pub(super) fn due(config: &Config, bounds: Bounds, keyed: &Keyed) -> Option<u64> {
    let each = keyed.panes.iter().map(|(place, pane)| {
        let (_, end) = bounds.of(pane, *place);
        pane.due(end).unwrap_or_else(|| config.over_at(end))
    });
    each.min()
}
