//! Hopping and sliding windows: each is a run of panes, merged when it closes.
//!
//! Of a hopping window the panes are as long as the greatest common divisor of its length and its
//! slide; of a sliding one each event time is a pane. A reading counts in those of its windows
//! that still take it; it is late when none does.

use std::ops::Range;

use super::fold::{Blocks, Part};
use super::kind::Hops;
use super::pane::{Given, Keyed, Place};
use super::panes::Panes;
use super::scene::Scene;
use super::{Config, Fate, Kind};
use headwater_flow::{Timestamp, micros};

/// How windows lie over the panes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    Hops(Hops),
    /// Length.
    Each(u64),
}

impl Over {
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        match *kind {
            Kind::Hopping { size, slide, offset } => Some(Self::Hops(Hops::new(size, slide, offset))),
            Kind::Sliding { size } => Some(Self::Each(micros(size).max(1))),
            _ => None,
        }
    }

    pub(super) fn pane_of(self, at: u64) -> u64 {
        match self {
            Self::Hops(hops) => hops.pane_of(at),
            Self::Each(_) => at,
        }
    }

    /// Where the last window ends that a pane belongs to, or could belong to.
    fn last_end(self, pane: u64) -> u64 {
        match self {
            Self::Hops(hops) => hops.last_start(pane).map_or(0, |start| start.saturating_add(hops.size)),
            Self::Each(size) => pane.saturating_add(size),
        }
    }

    /// Whether any window holds a time: none begins before the first.
    fn holds(self, at: u64) -> bool {
        match self {
            Self::Hops(hops) => hops.last_start(at).is_some(),
            Self::Each(_) => true,
        }
    }

    /// Where the window ends that a reading must not be behind.
    fn closes(self, at: u64) -> u64 {
        match self {
            Self::Hops(_) => self.last_end(at),
            Self::Each(_) => at.saturating_add(1),
        }
    }

    fn window(self, end: u64) -> Range<u64> {
        match self {
            Self::Hops(hops) => end.saturating_sub(hops.size)..end,
            Self::Each(size) => end.saturating_sub(size)..end,
        }
    }

    fn blocks(self) -> Blocks {
        match self {
            Self::Hops(hops) => Blocks { len: hops.size, offset: hops.offset },
            Self::Each(size) => Blocks { len: size, offset: 0 },
        }
    }

    /// The first window after those that end by `ended` that holds a pane.
    fn next_end(self, panes: &Panes, ended: u64) -> Option<u64> {
        match self {
            Self::Each(_) => {
                let (place, _) = panes.range(Place::at(ended)..).next()?;
                Some(place.at.saturating_add(1))
            }
            Self::Hops(hops) => {
                let end = hops.first_end(ended);
                let (place, _) = panes.range(Place::at(end.saturating_sub(hops.size))..).next()?;
                Some(end.max(hops.first_end(place.at)))
            }
        }
    }
}

/// Puts a reading into its pane.
pub(super) fn assign(
    scene: &Scene<'_>,
    over: Over,
    keyed: &mut Keyed,
    time: Timestamp,
    payload: Vec<u8>,
) -> Result<(), (Fate, Vec<u8>)> {
    if scene.is_over(over.closes(time.0)) || !over.holds(time.0) {
        return Err((Fate::Late, payload));
    }
    if time.0 < scene.lost_before {
        return Err((Fate::Lost, payload));
    }
    if time.0 < scene.watermark {
        // Windows that have closed had their result, or have none; this reading is for those after them.
        (keyed.ended, keyed.dirty) = (keyed.ended.max(scene.watermark), true);
    }
    let place = Place::at(over.pane_of(time.0));
    keyed.push(place, (time, payload), false);
    if place.at < keyed.ended {
        keyed.folds.clear();
    }
    if let Over::Hops(hops) = over {
        let closed = hops.ends(time.0).take_while(|end| *end <= scene.watermark);
        for end in closed.filter(|end| !scene.is_over(*end)) {
            let given = keyed.given.entry(end).or_default();
            given.late += 1;
            given.due.get_or_insert(scene.watermark);
            given.dirty = true;
        }
    }
    keyed.due = due(scene.config, over, keyed);
    Ok(())
}

/// Gives all that is due, and forgets what is over.
pub(super) fn fire(scene: &mut Scene<'_>, over: Over, keyed: &mut Keyed) {
    let revised: Vec<_> =
        keyed.given.iter().filter(|(_, given)| given.due.is_some()).map(|(end, _)| *end).collect();
    for end in revised {
        give(scene, over, keyed, end);
    }
    while let Some(end) = over.next_end(&keyed.panes, keyed.ended).filter(|end| *end <= scene.watermark) {
        (keyed.ended, keyed.dirty) = (end, true);
        give(scene, over, keyed, end);
    }
    keyed.forget(|place, _| scene.is_over(over.last_end(place.at)));
    while let Some(first) = keyed.given.first_entry().filter(|first| scene.is_over(*first.key())) {
        keyed.removed.push(super::pane::Row::Given(first.remove_entry().0));
    }
    if keyed.panes.is_empty() && keyed.given.is_empty() {
        // What comes from here on is in windows that end later.
        (keyed.ended, keyed.dirty) = (0, true);
        keyed.folds.clear();
    }
}

fn give(scene: &mut Scene<'_>, over: Over, keyed: &mut Keyed, end: u64) {
    let window = over.window(end);
    let revises = !scene.config.revise.is_zero();
    let known = keyed.given.get(&end).copied().unwrap_or_default();
    let folded = keyed.folds.fold(&keyed.panes, window.clone(), over.blocks(), scene.aggregate);
    if revises {
        let next =
            Given { revision: known.revision.saturating_add(1), late: known.late, due: None, dirty: true };
        keyed.given.insert(end, next);
    }
    let due = known.due.unwrap_or(end);
    let whole = Over::starts(over, end) >= scene.lost_before;
    match folded {
        Ok(part) if part.count > 0 && whole => {
            scene.give(part, known.late, (window.start, end), 0, known.revision, false, due);
        }
        Ok(_) => {}
        Err(reason) => scene.fail(Part::default(), (window.start, end), 0, known.revision, reason, due),
    }
}

impl Over {
    /// Where the window begins that ends here.
    fn starts(self, end: u64) -> u64 {
        self.window(end).start
    }
}

/// When something is to be done next.
pub(super) fn due(config: &Config, over: Over, keyed: &Keyed) -> Option<u64> {
    let first = keyed.panes.first().map(|(place, _)| config.over_at(over.last_end(place.at)));
    let given = keyed.given.iter().map(|(end, given)| given.due.unwrap_or_else(|| config.over_at(*end)));
    given.chain(first).chain(over.next_end(&keyed.panes, keyed.ended)).min()
}
