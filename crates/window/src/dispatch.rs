//! To each kind its own.

use super::kind::{self, Hops, Kind};
use super::overlap::{self, Over};
use super::pane::{Keyed, Pane, Place};
use super::scene::Scene;
use super::{Config, Fate, aligned, count, session};
use headwater_flow::{Timestamp, micros};

/// Puts a reading where it belongs; why not, with its payload.
pub(super) fn assign(
    scene: &mut Scene<'_>,
    keyed: &mut Keyed,
    time: Timestamp,
    payload: Vec<u8>,
) -> Result<(), (Fate, Vec<u8>)> {
    match (&scene.config.kind, Over::of(&scene.config.kind)) {
        (_, Some(over)) => overlap::assign(scene, over, keyed, time, payload),
        (Kind::Session { gap, longest }, _) => {
            session::assign(scene, session::Bounds::new(*gap, *longest), keyed, time, payload)
        }
        (Kind::Count { .. }, _) => count::assign(scene, keyed, time, payload),
        _ => aligned::assign(scene, keyed, time, payload),
    }
}

/// Gives all that is due of a key, and forgets what is over.
pub(super) fn fire(scene: &mut Scene<'_>, keyed: &mut Keyed) {
    match (&scene.config.kind, Over::of(&scene.config.kind)) {
        (_, Some(over)) => overlap::fire(scene, over, keyed),
        (Kind::Session { gap, longest }, _) => {
            session::fire(scene, session::Bounds::new(*gap, *longest), keyed);
        }
        (Kind::Count { size, slide }, _) => count::fire(scene, count::Size::new(*size, *slide), keyed),
        _ => aligned::fire(scene, keyed),
    }
    let config = scene.config;
    let known = keyed.newest.is_some_and(|newest| clock(config, newest) <= scene.closing);
    if known && keyed.panes.is_empty() && keyed.given.is_empty() && !matches!(config.kind, Kind::Count { .. })
    {
        // The pipeline's watermark says as much.
        (keyed.newest, keyed.dirty) = (None, true);
    }
}

/// When something is to be done about a key next.
pub(super) fn due(config: &Config, keyed: &Keyed) -> Option<u64> {
    let due = match (&config.kind, Over::of(&config.kind)) {
        (_, Some(over)) => overlap::due(config, over, keyed),
        (Kind::Session { gap, longest }, _) => {
            session::due(config, session::Bounds::new(*gap, *longest), keyed)
        }
        (Kind::Count { .. }, _) => count::due(config, keyed),
        _ => aligned::due(config, keyed),
    };
    due.or_else(|| Some(clock(config, keyed.newest?)))
}

/// The watermark of a key with such a newest reading.
pub(super) fn clock(config: &Config, newest: u64) -> u64 {
    newest.saturating_sub(micros(config.lateness))
}

/// Start and end of the tumbling window or day that holds a time; none before the first.
pub(super) fn bounds_at(config: &Config, time: Timestamp) -> Option<(u64, u64)> {
    match &config.kind {
        Kind::Tumbling { size, offset } => {
            let hops = Hops::new(*size, *size, *offset);
            let start = hops.last_start(time.0)?;
            Some((start, start.saturating_add(hops.size)))
        }
        Kind::Day { zone } => {
            let (start, end) = kind::day(zone, time);
            Some((start.0, end.0))
        }
        _ => None,
    }
}

/// Start and end of a pane.
pub(super) fn bounds(config: &Config, place: Place, pane: &Pane) -> (u64, u64) {
    match &config.kind {
        Kind::Hopping { size, slide, offset } => {
            (place.at, place.at.saturating_add(Hops::new(*size, *slide, *offset).pane()))
        }
        Kind::Session { gap, longest } => session::Bounds::new(*gap, *longest).of(pane, place),
        Kind::Sliding { .. } | Kind::Count { .. } => (place.at, place.at.saturating_add(1)),
        Kind::Tumbling { .. } | Kind::Day { .. } => {
            bounds_at(config, Timestamp(place.at)).unwrap_or((place.at, place.at))
        }
    }
}
