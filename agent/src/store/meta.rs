//! The small database of rows: its synced batch is the store's one atomic step.
//!
//! **Invariants.** A value over 4 KiB is cut into chunks; a row is replaced or removed with all
//! its chunks; every chunk carries a checksum over its key and bytes.
//!
//! Each batch counts itself, in the row `n`, and the count is marked beside the database: one
//! that went back to an earlier state is damage, not another past.
//!
//! **Limits.** It grows with the number of open windows, never with a backlog.

use super::codec::{self, Row};
use super::engine::{Changes, Churn, Engine};
use super::error::{Error, Health};
use super::mark::Mark;
use super::{lock, sync};
use crate::metrics;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// A row's new value; `None` removes it.
pub(super) type Change = (Row, Option<Vec<u8>>);

/// The open database.
#[derive(Debug)]
pub(super) struct Meta {
    engine: Engine,
    /// Batches ever applied; held while the chunks to remove are found and the batch is applied.
    applied: Mutex<u64>,
    /// Of these, batches synced and marked; held while syncing, so that those who wait share the next one.
    synced: Mutex<u64>,
    mark: Mark,
    health: Health,
    metrics: metrics::Log,
}

impl Meta {
    /// Makes an empty one in `folder`, by way of `made`, which is removed where a crash left it.
    pub(super) fn create(folder: &Path, made: &Path) -> Result<(), Error> {
        if made.exists() {
            fs::remove_dir_all(made).map_err(|source| Error::io("remove", made, source))?;
        }
        Engine::create(made)?.finish()?;
        crate::fail::point("meta.made");
        fs::rename(made, folder).map_err(|source| Error::io("rename", made, source))?;
        crate::fail::point("meta.renamed");
        folder.parent().map_or(Ok(()), sync::sync_path)
    }

    /// # Errors
    /// [`Error::Damaged`] when it lost a batch that was marked at `mark`.
    pub(super) fn open(
        folder: &Path,
        mark: &Path,
        health: Health,
        metrics: metrics::Log,
    ) -> Result<Self, Error> {
        let engine = Engine::open(folder, Churn::Replace)?;
        // What a killed process applied and never synced can be read: it must not be taken for durable.
        engine.sync()?;
        let (mark, marked) = Mark::open(mark)?;
        let (applied, synced) = (Mutex::new(0), Mutex::new(0));
        let meta = Self { engine, applied, synced, mark, health, metrics };
        let held = meta.number(&Row::batches())?;
        if held < marked {
            let detail = format!("it holds {held} batches, {marked} were synced");
            return Err(meta.damaged(&detail));
        }
        *lock(&meta.applied) = held;
        *lock(&meta.synced) = held;
        Ok(meta)
    }

    /// A row that is a number, 0 where there is none.
    pub(super) fn number(&self, row: &Row) -> Result<u64, Error> {
        self.get(row)?.map_or(Ok(0), |value| {
            codec::number(&value).map_err(|garbled| Error::garbled(self.engine.path(), "a number", garbled))
        })
    }

    pub(super) fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, Error> {
        let Some((total, mut value)) = self.chunk(row, 0)? else {
            return Ok(None);
        };
        for number in 1..total {
            match self.chunk(row, number)? {
                Some((parts, bytes)) if parts == total => value.extend_from_slice(&bytes),
                _ => return Err(self.damaged("a row is not whole")),
            }
        }
        Ok(Some(value))
    }

    /// The values of all rows whose key begins with that of `prefix`.
    pub(super) fn scan(
        &self,
        prefix: &Row,
        mut each: impl FnMut(Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut value = Vec::new();
        let mut expected = 0;
        self.engine.scan(prefix.bytes(), |key, bytes| {
            let (total, bytes) = codec::chunk(key, bytes)
                .map_err(|garbled| Error::garbled(self.engine.path(), "a row", garbled))?;
            let number = key.last_chunk().map(|number| u16::from_be_bytes(*number));
            if number != Some(expected) {
                return Err(self.damaged("a row is not whole"));
            }
            value.extend_from_slice(bytes);
            expected += 1;
            if expected == total {
                expected = 0;
                each(std::mem::take(&mut value))?;
            }
            Ok(())
        })?;
        if expected == 0 { Ok(()) } else { Err(self.damaged("a row is not whole")) }
    }

    /// Makes all changes or none; durable when it returns. Of two changes of a row the last counts.
    pub(super) fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        self.health.check()?;
        let applied = {
            let mut applied = lock(&self.applied);
            let mut batch = self.batch(changes)?;
            let count = (Row::batches(), Some(codec::put_number(*applied + 1)));
            batch.extend(self.batch(&[count])?);
            self.health.judge(self.engine.apply(batch))?;
            *applied += 1;
            crate::fail::point("meta.applied");
            *applied
        };
        let mut synced = lock(&self.synced);
        self.health.check()?;
        if *synced < applied {
            let upto = *lock(&self.applied);
            let began = Instant::now();
            self.health.judge(self.engine.sync())?;
            crate::fail::point("meta.synced");
            self.health.judge(self.mark.set(upto))?;
            crate::fail::point("meta.marked");
            *synced = upto;
            self.metrics.syncs.inc();
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.metrics.sync_micros.inc_by(micros);
        }
        self.metrics.appended_records.inc_by(changes.len() as u64);
        let bytes = changes.iter().flat_map(|(_, value)| value).map(Vec::len).sum::<usize>();
        self.metrics.appended_bytes.inc_by(bytes as u64);
        Ok(())
    }

    /// Fails when the engine put a value into a file of its own.
    pub(super) fn check_blobs(&self) -> Result<(), Error> {
        self.engine.check_blobs()
    }

    fn batch(&self, changes: &[Change]) -> Result<Changes, Error> {
        let mut batch = Changes::new();
        let mut seen = HashSet::new();
        for (row, value) in changes.iter().rev() {
            if !seen.insert(row) {
                continue;
            }
            let before = self.chunk(row, 0)?.map_or(0, |(total, _)| total);
            let mut after = 0;
            if let Some(value) = value {
                let chunks = codec::chunks(row, value).ok_or_else(|| self.too_large(value))?;
                after = chunks.len();
                batch.extend(chunks.into_iter().map(|(key, chunk)| (key, Some(chunk))));
            }
            let stale = (0..before).skip(after);
            batch.extend(stale.map(|number| (row.chunk(number), None)));
        }
        Ok(batch)
    }

    fn chunk(&self, row: &Row, number: u16) -> Result<Option<(u16, Vec<u8>)>, Error> {
        let key = row.chunk(number);
        let Some(value) = self.engine.get(&key)? else {
            return Ok(None);
        };
        let (total, bytes) = codec::chunk(&key, &value)
            .map_err(|garbled| Error::garbled(self.engine.path(), "a row", garbled))?;
        Ok(Some((total, bytes.to_vec())))
    }

    fn too_large(&self, value: &[u8]) -> Error {
        let (path, bytes) = (self.engine.path().to_owned(), value.len());
        Error::TooLarge { path, bytes, bytes_max: codec::ROW_BYTES_MAX }
    }

    fn damaged(&self, detail: &str) -> Error {
        Error::damaged(self.engine.path(), detail)
    }
}
