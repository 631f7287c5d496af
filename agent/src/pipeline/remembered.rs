//! What stateful transforms remember, in the store: beside the pipeline's window state, under keys
//! that no event has, so that one commit holds it all and one repair knows it all.
//!
//! It belongs to the transform's place among the pipeline's transforms: a module put in its stead
//! finds it.

use crate::module::{TransformModule, state};
use crate::store::{self, Change, Store};

/// Begins the keys; no text begins so.
const MARK: u8 = 0xFE;

/// The committed names of one transform.
#[derive(Debug)]
struct Remembered {
    store: Store,
    pipeline: String,
    step: u8,
}

impl state::StateStore for Remembered {
    fn value(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let mut found = None;
        self.store
            .shelf(&self.pipeline, &key(self.step, name), &mut |tail: &[u8], value: &[u8]| {
                if tail.is_empty() {
                    found = Some(value.to_vec());
                }
                Ok::<_, store::Error>(())
            })
            .map_err(|error| error.to_string())?;
        Ok(found)
    }
}

/// Whether a row of the pipeline's state is of a transform, and of which one.
pub(super) fn step_of(row: &[u8]) -> Option<u8> {
    match row {
        [MARK, step, ..] => Some(*step),
        _ => None,
    }
}

/// Lets the transforms go on from what is committed; `lost`: some of it is not, and so none of it is.
/// What is to be removed then.
pub(super) fn restore(
    transforms: &mut [TransformModule],
    store: &Store,
    pipeline: &str,
    lost: bool,
) -> Result<Vec<Change>, store::Error> {
    if !transforms.iter().any(TransformModule::is_stateful) {
        return Ok(Vec::new());
    }
    let (mut names, mut removed) = ([0; u8::MAX as usize + 1], Vec::new());
    store.windows(pipeline, &mut |row, _| {
        if let Some(step) = step_of(&row) {
            if lost {
                removed.push((row, None));
            } else {
                names[usize::from(step)] += 1;
            }
        }
        Ok::<_, store::Error>(())
    })?;
    for ((step, transform), names) in (0..=u8::MAX).zip(transforms).zip(names) {
        let cold = Remembered { store: store.clone(), pipeline: pipeline.to_owned(), step };
        transform.restore(Box::new(cold), names);
    }
    Ok(removed)
}

/// What the transforms are to remember since the last time.
pub(super) fn changes(transforms: &mut [TransformModule]) -> Vec<Change> {
    let steps = (0..=u8::MAX).zip(transforms);
    let changes = steps.flat_map(|(step, transform)| {
        transform.drain().into_iter().map(move |(name, value)| (key(step, &name), value))
    });
    changes.collect()
}

fn key(step: u8, name: &str) -> Vec<u8> {
    [&[MARK, step], name.as_bytes()].concat()
}
