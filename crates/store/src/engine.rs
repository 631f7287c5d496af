//! The storage engine: one sled 0.34.7 database in a folder. Nothing else names sled.
//!
//! **Invariants.** Values and keys stay so small that sled never makes a file below `blobs/`
//! (it does not sync those): a file there is damage. `sync` returns only after our own
//! `fdatasync`. A panic of the engine comes out as [`Error::Damaged`]. A database file that is
//! gone is damage, never a fresh start.
//!
//! **A crash here** may leave a torn `*.generating` snapshot, which would make every later open
//! fail: it is removed at open. A batch is recovered as a whole or not at all.

use super::error::Error;
use super::sync::{self, Barrier};
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest value: sixteen share a page, and a page over 128 KiB would become a blob.
pub(super) const VALUE_BYTES_MAX: usize = 4096;
/// Page cache of one open database.
const CACHE_BYTES: u64 = 8 << 20;
/// sled's garbage collection lives in its flushing thread; rarer, disk and memory grow.
const FLUSH_EVERY_MS: u64 = 500;
/// How long a handle that was just closed may hold its file lock.
const UNLOCK_TRIES: u32 = 400;

/// What a database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Churn {
    /// Values are replaced: garbage is collected in the background.
    Replace,
    /// Each key is written once and read: no garbage, so no thread. Measured over millions of
    /// messages: memory and disk stay flat without it, and large groups are a third faster.
    Once,
}

/// Writes that are applied as a whole or not at all.
pub(super) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// One open database.
pub(super) struct Engine {
    path: PathBuf,
    /// `None` only while dropping.
    db: Option<sled::Db>,
    barrier: Barrier,
}

impl Engine {
    /// Makes an empty database in `folder`, which must not exist.
    pub(super) fn create(folder: &Path) -> Result<Self, Error> {
        fs::create_dir(folder).map_err(|source| Error::io("create", folder, source))?;
        let engine = Self::start(folder, Churn::Once)?;
        headwater_fail::point("engine.created");
        Ok(engine)
    }

    /// Closes it and syncs all its files. The caller syncs the parent, after giving it its name.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.sync()?;
        let folder = self.path.clone();
        drop(self);
        headwater_fail::point("engine.filled");
        sync::sync_tree(&folder)
    }

    /// Opens the database in `folder`.
    pub(super) fn open(folder: &Path, churn: Churn) -> Result<Self, Error> {
        if !folder.join("db").is_file() {
            return Err(Error::damaged(folder, "its file `db` is missing"));
        }
        remove_torn_snapshots(folder)?;
        let engine = Self::start(folder, churn)?;
        engine.check_blobs()?;
        Ok(engine)
    }

    /// Opens the database in `folder` for what can still be read of it.
    pub(super) fn open_damaged(folder: &Path) -> Result<Self, Error> {
        remove_torn_snapshots(folder)?;
        Self::start(folder, Churn::Once)
    }

    fn start(folder: &Path, churn: Churn) -> Result<Self, Error> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms((churn == Churn::Replace).then_some(FLUSH_EVERY_MS));
        let mut tries = 0;
        let db = loop {
            match guarded(folder, "opening", || config.open()) {
                Err(Error::Io { source, .. }) if held(&source) && tries < UNLOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => break outcome?,
            }
        };
        let barrier = Barrier::open(&folder.join("db"))?;
        Ok(Self { path: folder.to_owned(), db: Some(db), barrier })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        guarded(&self.path, "reading", || Ok(self.db().get(key)?.map(Value)))
    }

    /// All rows whose key begins with `prefix`, in order of key.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rows = self.db().scan_prefix(prefix);
        while let Some((key, value)) = guarded(&self.path, "scanning", || rows.next().transpose())? {
            each(&key, &value)?;
        }
        Ok(())
    }

    /// The greatest key.
    pub(super) fn last_key(&self) -> Result<Option<Vec<u8>>, Error> {
        guarded(&self.path, "reading", || Ok(self.db().last()?.map(|(key, _)| key.to_vec())))
    }

    /// Writes one value; durable with the next `sync`.
    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        guarded(&self.path, "writing", || self.db().insert(key, value).map(drop))
    }

    /// Applies all or nothing; durable with the next `sync`.
    pub(super) fn apply(&self, changes: Changes) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => {
                    debug_assert!(value.len() <= VALUE_BYTES_MAX, "values are split before");
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        guarded(&self.path, "writing", || {
            headwater_fail::io("disk.write")?;
            self.db().apply_batch(batch)
        })
    }

    /// Returns once all that was applied survives a power cut.
    pub(super) fn sync(&self) -> Result<(), Error> {
        guarded(&self.path, "flushing", || self.db().flush().map(drop))?;
        self.barrier.sync()
    }

    /// Fails when the engine put a value into a file of its own.
    pub(super) fn check_blobs(&self) -> Result<(), Error> {
        let blobs = self.path.join("blobs");
        let list = |source| Error::io("list", &blobs, source);
        match fs::read_dir(&blobs).map_err(list)?.next() {
            None => Ok(()),
            Some(_) => Err(Error::damaged(&blobs, "it must be empty: the engine never syncs it")),
        }
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("taken only by drop")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let db = self.db.take();
        // Closing flushes, and panics where it cannot; all that matters was synced before.
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(path = %self.path.display(), "storage engine panicked at close");
        }
    }
}

/// Not the contents, which sled would print.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engine").field(&self.path).finish()
    }
}

/// A value in the engine's page cache.
#[derive(Clone, Debug)]
pub(super) struct Value(sled::IVec);

impl std::ops::Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

fn remove_torn_snapshots(folder: &Path) -> Result<(), Error> {
    let list = |source| Error::io("list", folder, source);
    for entry in fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
    }
    Ok(())
}

/// sled reports a lock it does not get as an error of kind `Other`.
fn held(source: &std::io::Error) -> bool {
    source.to_string().contains("could not acquire lock")
}

fn guarded<T>(path: &Path, doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) => Err(Error::io("use", path, source)),
        Ok(Err(error)) => Err(Error::damaged(path, format!("while {doing}: {error}"))),
        Err(panic) => {
            let words = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(Error::damaged(path, format!("the engine panicked while {doing}: {words}")))
        }
    }
}
