//! The steps on a key that its windows' kind decides, and what holds for all kinds.

use super::context::KeyContext;
use super::pane::KeyState;
use super::{ObservedReading, WindowConfig};
use headwater_flow::{Timestamp, micros};

/// Puts a reading into its pane, or hands its payload back.
pub(super) fn assign(
    context: &mut KeyContext<'_>,
    key_state: &mut KeyState,
    time: Timestamp,
    payload: Vec<u8>,
) -> ObservedReading {
    context.config.kind.rules().assign(context, key_state, time, payload)
}

/// Emits all results of a key that are due, and forgets the windows that are over.
pub(super) fn fire(context: &mut KeyContext<'_>, key_state: &mut KeyState) {
    let config = context.config;
    let rules = config.kind.rules();
    rules.fire(context, key_state);
    let known = key_state.newest.is_some_and(|newest| own_watermark(config, newest) <= context.closing);
    if known && key_state.panes.is_empty() && key_state.emitted.is_empty() && !rules.keeps_newest() {
        // The pipeline's watermark says as much.
        key_state.newest = None;
        key_state.dirty = true;
    }
}

/// Returns the watermark at which a key is to be fired next.
pub(super) fn due(config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
    let due = config.kind.rules().due(config, key_state);
    due.or_else(|| Some(own_watermark(config, key_state.newest?)))
}

/// Returns the watermark of a key with such a newest reading.
fn own_watermark(config: &WindowConfig, newest: u64) -> u64 {
    newest.saturating_sub(micros(config.lateness))
}
