//! Window state as pipelines see it, wherever it lies: among what changed lately or in rows.

use super::codec;
use super::codec::Row;
use super::error::Error;
use super::recent::Recent;
use super::{Commit, EachOf, Store, lock, meta};
use std::sync::{Arc, Mutex};

impl Store {
    /// Shows all window state of a pipeline, by keys and values; what is kept together comes together.
    pub fn windows<E: From<Error>>(
        &self,
        pipeline: &str,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Whoever is shown them may ask for others meanwhile.
        let recent = self.recent_of(pipeline)?;
        let mut stopped = None;
        let scanned = self.0.meta.scan(&Row::windows(pipeline), |_, value| {
            let (key, value) = codec::window(&value).map_err(|garbled| self.garbled(garbled))?;
            if stopped.is_none() && !lock(&recent).holds(&key) {
                stopped = each(key, value).err();
            }
            Ok(())
        });
        stopped.map_or_else(|| scanned.map_err(E::from), Err)?;
        let shelves = lock(&recent).shelves();
        for shelf in shelves {
            let mut rows = Vec::new();
            self.shelf(pipeline, &shelf, &mut |tail, value| {
                rows.push(([&*shelf, tail].concat(), value.to_vec()));
                Ok::<_, E>(())
            })?;
            rows.into_iter().try_for_each(|(key, value)| each(key, value))?;
        }
        Ok(())
    }

    /// Shows the window state whose keys are `shelf` and a tail, by that: [`super::WINDOW_TAIL_BYTES`]
    /// that begin with 255, or none.
    pub fn shelf<E: From<Error>>(&self, pipeline: &str, shelf: &[u8], each: EachOf<'_, E>) -> Result<(), E> {
        lock(&*self.recent_of(pipeline)?).shelf(&self.0.meta, shelf, each)
    }

    /// Bytes of memory that a pipeline's window state takes here, 0 before anyone asked for some.
    #[must_use]
    pub fn recent_bytes(&self, pipeline: &str) -> usize {
        let recent = lock(&self.0.recent).get(pipeline).cloned();
        recent.map_or(0, |recent| lock(&recent).bytes())
    }

    /// The one synced batch of a commit.
    pub(super) fn apply(&self, commit: &Commit<'_>, mut changes: Vec<meta::Change>) -> Result<(), Error> {
        if commit.windows.is_empty() {
            return self.0.meta.apply(&changes);
        }
        let recent = self.recent_of(commit.pipeline)?;
        let mut recent = lock(&recent);
        let taken = recent.take(&self.0.meta, &commit.windows, &mut changes);
        // What is in memory now must be in the store, or be forgotten with it.
        self.0.health.judge(taken.and_then(|()| self.0.meta.apply(&changes)))
    }

    fn recent_of(&self, pipeline: &str) -> Result<Arc<Mutex<Recent>>, Error> {
        let mut all = lock(&self.0.recent);
        if let Some(recent) = all.get(pipeline) {
            return Ok(Arc::clone(recent));
        }
        let bytes_max = self.0.window_memory_max - self.at_hand_bytes_max();
        let recent = Recent::open(&self.0.meta, pipeline, bytes_max)?;
        let recent = Arc::new(Mutex::new(recent));
        all.insert(pipeline.to_owned(), Arc::clone(&recent));
        Ok(recent)
    }
}
