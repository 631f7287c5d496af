//! The steps that tumbling windows and days share: a pane is a window, or the next part of one that was full.

use super::super::context::KeyContext;
use super::super::pane::{KeyState, PaneId, PaneState};
use super::super::{ObservedReading, WindowConfig};
use super::KindRules;
use headwater_flow::Timestamp;

/// Puts a reading into its window.
pub(super) fn assign(
    kind: &dyn KindRules,
    context: &KeyContext<'_>,
    key_state: &mut KeyState,
    time: Timestamp,
    payload: Vec<u8>,
) -> ObservedReading {
    let Some((start, end)) = kind.window_at(time).filter(|(_, end)| !context.is_over(*end)) else {
        return ObservedReading::Late(payload);
    };
    let parts = PaneId::at(start)..=PaneId { at: start, tie: u32::MAX };
    let last = key_state.panes.range(parts).next_back().map(|(pane_id, pane)| (*pane_id, pane.full));
    let pane_id = match last {
        Some((pane_id, false)) => pane_id,
        Some((pane_id, true)) => PaneId { tie: pane_id.tie.saturating_add(1), ..pane_id },
        None => PaneId::at(start),
    };
    // Of a window that was lost a later part may be there, but not the one that this reading would go on from.
    if start < context.lost_before && last.is_none() {
        return ObservedReading::Lost(payload);
    }
    let is_late = end <= context.watermark;
    let config = context.config;
    let pane = key_state.push(pane_id, (time, payload), is_late);
    pane.full = pane.taken >= config.readings_max || pane.taken_bytes >= config.bytes_max;
    if is_late || pane.full {
        pane.due = Some(context.watermark);
    } else if pane.due.is_none() {
        pane.due = context.early(time.0, end);
    }
    let due = pane.due(end);
    key_state.due = key_state.due.into_iter().chain(due).min();
    ObservedReading::Used
}

/// Emits all results that are due, and forgets the windows that are over.
pub(super) fn fire(kind: &dyn KindRules, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
    for (pane_id, pane) in key_state.panes.iter_mut() {
        let Some((start, end)) = kind.window_at(Timestamp(pane_id.at)) else { continue };
        while let Some(due) = pane.due(end).filter(|due| *due <= context.watermark) {
            context.show(pane, *pane_id, (start, end), due);
        }
        if pane.full && !pane.state.is_empty() {
            // Only its number is still needed.
            key_state.bytes -= std::mem::take(&mut pane.state).len();
        }
    }
    key_state.forget(|pane_id: &PaneId, _: &PaneState| {
        kind.window_at(Timestamp(pane_id.at)).is_none_or(|(_, end)| context.is_over(end))
    });
}

/// Returns the watermark at which a key is to be fired next.
pub(super) fn due(kind: &dyn KindRules, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
    let first = key_state.panes.first();
    let over = first.and_then(|(pane_id, _)| kind.window_at(Timestamp(pane_id.at)));
    let results = key_state.panes.iter().filter_map(|(pane_id, pane)| {
        let (_, end) = kind.window_at(Timestamp(pane_id.at))?;
        pane.due(end)
    });
    results.chain(over.map(|(_, end)| config.over_at(end))).min()
}
