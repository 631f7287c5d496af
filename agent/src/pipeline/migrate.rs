//! Open windows' states made by another version of the aggregate: brought over all together, or not at all.
//!
//! **Invariant:** no reading passes a version that cannot read the states there are. All of them are tried first;
//! then they are replaced in one commit, with the version that they are of. A crash before it leaves the old
//! ones, and the next start does the same again.
//!
//! Bounds: [`STATES_MAX`] states, which is what one commit can hold; beyond that the version is refused. It runs on the
//! pipeline's thread: readings wait as long as the module takes for all of them.

use super::aggregate::Aggregate;
use super::progress::MadeBy;
use super::progress::Progress;
use super::{COMMIT_KEYS_MAX, Error};
use crate::flow::{Seq, Timestamp};
use crate::store::{Change, Commit, Outgoing, Store};
use crate::window;

/// Most states that are migrated.
const STATES_MAX: usize = COMMIT_KEYS_MAX;

/// What has to be committed before the aggregate can go on from the states there are.
pub(super) fn changes(
    pipeline: &str,
    store: &Store,
    progress: &Progress,
    aggregate: &mut Aggregate,
) -> Result<Vec<Change>, Error> {
    let (from, to) = (progress.made_by.version, aggregate.state_version());
    let mut changes = Vec::new();
    // Built-ins say in each state what it is of.
    let is_module =
        matches!(aggregate, Aggregate::Module(_)) && progress.made_by.digest.starts_with("sha256:");
    if from == to || !is_module {
        return Ok(changes);
    }
    let refused = |reason: String| Error::State { pipeline: pipeline.to_owned(), from, to, reason };
    store.windows(pipeline, &mut |row: Vec<u8>, value: Vec<u8>| {
        let value = match window::with_state(&row, &value, |state| aggregate.migrate(from, state)) {
            Ok(None) => return Ok(()),
            Ok(Some(migrated)) => migrated.map_err(&refused)?,
            Err(error) => return Err(refused(error.to_string())),
        };
        if changes.len() >= STATES_MAX {
            return Err(refused(format!("more than {STATES_MAX} windows are open")));
        }
        changes.push((row, Some(value)));
        Ok::<_, Error>(())
    })?;
    Ok(changes)
}

/// What a repair took is to be reported first, by a commit of the version that made the states.
pub(super) fn not_now(pipeline: &str, progress: &Progress, aggregate: &Aggregate) -> Error {
    let (from, to) = (progress.made_by.version, aggregate.state_version());
    let reason = "the store has just been mended".to_owned();
    Error::State { pipeline: pipeline.to_owned(), from, to, reason }
}

/// Puts them in the place of the old ones. `outbox` is the pipeline's own.
pub(super) fn commit(
    (pipeline, outbox): (&str, &str),
    store: &Store,
    position: Seq,
    progress: &mut Progress,
    (aggregate, changes): (&Aggregate, Vec<Change>),
) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let states = changes.len();
    progress.made_by = MadeBy::of(aggregate);
    store.commit(&Commit {
        pipeline,
        position,
        progress: progress.encode(),
        windows: changes,
        results: Outgoing::new(outbox, Vec::new()),
        late: Outgoing::default(),
        now: Timestamp::now(),
        dead_letters: Vec::new(),
        replayed: 0,
    })?;
    tracing::info!(
        pipeline,
        states,
        version = progress.made_by.version,
        "open windows are of another state version now"
    );
    Ok(())
}
