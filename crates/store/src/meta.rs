//! The small database of rows: its synced batch is the store's one atomic step.
//!
//! **Invariants.** A value over 4 KiB is cut into chunks; a row is replaced or removed with all
//! its chunks; every chunk carries a checksum over its key and bytes.
//!
//! Each batch counts itself, in the row `n`. After each sync the small rows, that count among them,
//! are copied beside the database (`marks.rs`): one that went back to an earlier state is damage, not
//! another past.
//!
//! **Limits.** It grows with the number of open windows, never with a backlog: twice what their state takes
//! where that changes (`recent.rs`).

use super::codec::{self, Row};
use super::engine::{Changes, Churn, Engine};
use super::error::{Error, Health};
use super::marks::{self, Copied, Marks, Rows};
use super::{lock, recent, sync};
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
    /// Held while the chunks to remove are found and the batch is applied.
    applied: Mutex<Applied>,
    /// Of these, batches synced and marked; held while syncing, so that those who wait share the next one.
    synced: Mutex<u64>,
    marks: marks::File,
    health: Health,
    metrics: metrics::Log,
}

/// What the batches made so far.
#[derive(Debug)]
struct Applied {
    /// Batches ever applied.
    batches: u64,
    /// All rows but windows.
    rows: Rows,
}

impl Meta {
    /// Makes an empty one in `folder`, by way of `made`, which is removed where a crash left it.
    pub(super) fn create(folder: &Path, made: &Path) -> Result<(), Error> {
        if made.exists() {
            fs::remove_dir_all(made).map_err(|source| Error::io("remove", made, source))?;
        }
        Engine::create(made)?.finish()?;
        headwater_fail::point("meta.made");
        fs::rename(made, folder).map_err(|source| Error::io("rename", made, source))?;
        headwater_fail::point("meta.renamed");
        folder.parent().map_or(Ok(()), sync::sync_path)
    }

    /// # Errors
    /// [`Error::Damaged`] when a row is not whole, or the small ones are not those of their copy.
    pub(super) fn open(
        folder: &Path,
        marks: &Path,
        health: Health,
        metrics: metrics::Log,
    ) -> Result<Self, Error> {
        let engine = Engine::open(folder, Churn::Replace)?;
        // What a killed process applied and never synced can be read: it must not be taken for durable.
        engine.sync()?;
        let (marks, copied) = marks::File::open(marks)?;
        let rows = small_rows(&engine)?;
        let batches = batches(&rows, folder)?;
        if let Some(fault) = differs(&rows, batches, &copied) {
            return Err(Error::damaged(folder, fault));
        }
        marks.write(&marks::encode(false, batches, &rows), batches)?;
        marks.sync()?;
        let (applied, synced) = (Mutex::new(Applied { batches, rows }), Mutex::new(batches));
        Ok(Self { engine, applied, synced, marks, health, metrics })
    }

    /// A row that is a number, 0 where there is none.
    pub(super) fn number(&self, row: &Row) -> Result<u64, Error> {
        self.get(row)?
            .map_or(Ok(0), |value| codec::number(&value).map_err(|garbled| self.garbled("a number", garbled)))
    }

    pub(super) fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, Error> {
        self.health.heed(self.whole(row))
    }

    fn whole(&self, row: &Row) -> Result<Option<Vec<u8>>, Error> {
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

    /// All rows whose key begins with that of `prefix`.
    pub(super) fn scan(
        &self,
        prefix: &Row,
        each: impl FnMut(Row, Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.health.heed(scan(&self.engine, prefix, each))
    }

    /// Makes all changes or none; durable when it returns. Of two changes of a row the last counts.
    pub(super) fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        self.health.check()?;
        let applied = {
            let mut applied = lock(&self.applied);
            let mut batch = self.batch(changes)?;
            let count = (Row::batches(), Some(codec::put_number(applied.batches + 1)));
            batch.extend(self.batch(std::slice::from_ref(&count))?);
            self.health.judge(self.engine.apply(batch))?;
            applied.batches += 1;
            applied.take(changes.iter().chain([&count]));
            headwater_fail::point("meta.applied");
            applied.batches
        };
        let mut synced = lock(&self.synced);
        self.health.check()?;
        if *synced < applied {
            let (upto, marks) = lock(&self.applied).marks(false);
            let began = Instant::now();
            self.health.judge(self.engine.sync())?;
            headwater_fail::point("meta.synced");
            self.health.judge(self.marks.write(&marks, upto))?;
            headwater_fail::point("meta.marked");
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

    /// The small rows of a kind.
    pub(super) fn all(&self, kind: u8) -> Vec<(Row, Vec<u8>)> {
        let applied = lock(&self.applied);
        let rows = applied.rows.range(vec![kind]..).take_while(|(key, _)| key.first() == Some(&kind));
        rows.map(|(key, value)| (Row::of(key), value.clone())).collect()
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

    /// A row whose bytes no version wrote.
    pub(super) fn garbled(&self, what: &str, garbled: codec::Garbled) -> Error {
        self.health.noted(Error::garbled(self.engine.path(), what, garbled))
    }

    pub(super) fn damaged(&self, detail: &str) -> Error {
        self.health.noted(Error::damaged(self.engine.path(), detail))
    }
}

impl Applied {
    fn take<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        for (row, value) in changes.filter(|(row, _)| !row.is_large()) {
            match value {
                Some(value) => self.rows.insert(row.bytes().to_vec(), value.clone()),
                None => self.rows.remove(row.bytes()),
            };
        }
    }

    fn marks(&self, closed: bool) -> (u64, Vec<u8>) {
        (self.batches, marks::encode(closed, self.batches, &self.rows))
    }
}

/// A stop that was asked for leaves an exact copy.
impl Drop for Meta {
    fn drop(&mut self) {
        let (batches, marks) = lock(&self.applied).marks(true);
        if self.health.check().is_err() || *lock(&self.synced) != batches {
            return;
        }
        if let Err(error) = self.marks.write(&marks, batches).and_then(|()| self.marks.sync()) {
            tracing::warn!(%error, "copy of the small rows not closed");
        }
    }
}

/// All rows but windows, after a look at each of those too.
pub(super) fn small_rows(engine: &Engine) -> Result<Rows, Error> {
    let (mut rows, mut blocks) = (Rows::new(), Vec::new());
    scan(engine, &Row::of(&[]), |row, value| {
        if row.is_recent() {
            blocks.push((codec::block_number(&value).ok(), row));
        } else if !row.is_large() {
            rows.insert(row.bytes().to_vec(), value);
        }
        Ok(())
    })?;
    match recent::incomplete(blocks).first() {
        Some(_) => Err(Error::damaged(engine.path(), "blocks of windows are missing")),
        None => Ok(rows),
    }
}

/// How many batches made the rows.
fn batches(rows: &Rows, folder: &Path) -> Result<u64, Error> {
    let row = rows.get(Row::batches().bytes());
    let garbled = |garbled| Error::garbled(folder, "a number", garbled);
    row.map_or(Ok(0), |row| codec::number(row).map_err(garbled))
}

/// All rows whose key begins with that of `prefix`, each whole.
fn scan(
    engine: &Engine,
    prefix: &Row,
    mut each: impl FnMut(Row, Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let not_whole = || Error::damaged(engine.path(), "a row is not whole");
    let mut value = Vec::new();
    let mut expected = 0;
    engine.scan(prefix.bytes(), |key, bytes| {
        let (total, bytes) =
            codec::chunk(key, bytes).map_err(|garbled| Error::garbled(engine.path(), "a row", garbled))?;
        let (row, number) = key.split_last_chunk().ok_or_else(not_whole)?;
        if u16::from_be_bytes(*number) != expected {
            return Err(not_whole());
        }
        value.extend_from_slice(bytes);
        expected += 1;
        if expected == total {
            expected = 0;
            each(Row::of(row), std::mem::take(&mut value))?;
        }
        Ok(())
    })?;
    if expected == 0 { Ok(()) } else { Err(not_whole()) }
}

/// How rows differ from what the copy says must be there.
pub(super) fn differs(rows: &Rows, batches: u64, copied: &Copied) -> Option<String> {
    match copied {
        Copied::Nothing if batches == 0 => None,
        Copied::Nothing => Some("the copy of its small rows is missing".to_owned()),
        Copied::Spoilt => Some("the copy of its small rows is spoilt".to_owned()),
        Copied::Marks(marks) if batches < marks.batches => {
            Some(format!("it holds {batches} batches, {} were synced", marks.batches))
        }
        Copied::Marks(Marks { rows: Some(copy), batches: copied, .. })
            if *copied == batches && copy != rows =>
        {
            Some("its small rows differ from their copy".to_owned())
        }
        Copied::Marks(_) => None,
    }
}
