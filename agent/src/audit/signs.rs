//! The signs of life of every stage that runs.

use std::time::Duration;

use crate::liveness::ProgressSign;
use crate::roster::{InputEntry, OutputEntry, PipelineEntry, RosterSnapshot};
use crate::store::{self, Store};

/// The signs of one stage at one moment.
#[derive(Debug)]
pub(super) struct StageSigns {
    /// The stage, as the log names it.
    pub(super) stage: String,
    pub(super) progress: ProgressSign,
    /// The time that a part of its work may take beyond the stated one.
    pub(super) slack: Duration,
    /// What it would mean if it stood still.
    pub(super) cause: String,
}

/// Reads the signs of all stages.
pub(super) fn all(store: &Store, roster: &RosterSnapshot) -> Result<Vec<StageSigns>, store::Error> {
    let mut signs: Vec<_> = roster.inputs.iter().map(|(name, entry)| input(name, entry, store)).collect();
    signs.extend(roster.pipelines.iter().map(|(name, entry)| pipeline(name, entry, store)));
    for (name, entry) in &roster.outputs {
        signs.push(output(name, entry, store)?);
    }
    Ok(signs)
}

fn input(name: &str, entry: &InputEntry, store: &Store) -> StageSigns {
    let in_flight = entry.metrics.in_flight_messages.get();
    let pending = in_flight > 0 && !store.append_waits();
    StageSigns {
        stage: format!("input `{name}`"),
        progress: ProgressSign { pending, progress: entry.metrics.journaled_messages.get() },
        slack: Duration::ZERO,
        cause: format!("{in_flight} messages in flight, none became durable"),
    }
}

fn pipeline(name: &str, entry: &PipelineEntry, store: &Store) -> StageSigns {
    let metrics = &entry.metrics;
    let position = u64::try_from(metrics.position_messages.get()).unwrap_or_default();
    let behind = store.journal_end().saturating_sub(position);
    // A module's call is bounded: each one that ends is progress.
    let calls = entry.calls.module_micros.get().wrapping_add(entry.calls.module_traps.get());
    let moves =
        behind > 0 && !store.commit_waits() && metrics.blocked.get() == 0 && metrics.paused.get() == 0;
    let (signs, cause) = if moves {
        let cause = format!("{behind} messages behind the journal's end, its position did not move");
        (position.wrapping_add(metrics.commits.get()), cause)
    } else {
        (entry.heartbeat.count(), "no sign of life".to_owned())
    };
    StageSigns {
        stage: format!("pipeline `{name}`"),
        progress: ProgressSign { pending: true, progress: signs.wrapping_add(calls) },
        slack: entry.commit_every,
        cause,
    }
}

fn output(name: &str, entry: &OutputEntry, store: &Store) -> Result<StageSigns, store::Error> {
    let pending = store.pending(name)?;
    let put_off = u64::try_from(entry.metrics.put_off_millis.get()).unwrap_or_default();
    Ok(StageSigns {
        stage: format!("output `{name}`"),
        progress: ProgressSign { pending: pending > 0, progress: entry.metrics.attempts.get() },
        slack: entry.attempt_max + Duration::from_millis(put_off),
        cause: format!("{pending} results pending, no attempt was made"),
    })
}
