//! The SQLite file: its format, and how it is opened so that a commit is durable.
//!
//! **Format** (times are microseconds since the Unix epoch):
//! - `epochs`: one row per (agent, epoch), with what came in it.
//! - `batches`: key and digest of each stored batch: what makes sending again harmless.
//! - `coverage`: the stored sequence numbers of an epoch as disjoint, non-adjacent ranges.
//! - `pipelines`: one row per (agent, pipeline), with the sums of its results, kept by each commit.
//! - `series`: one row per (pipeline, key).
//! - `modules`: digests, so that a result holds a small number.
//! - `results`: what was measured. `change` grows with each result stored or replaced: whoever has
//!   seen all up to one number finds everything newer beyond it. A result without a window has no
//!   `end`; SQL holds NULLs to be distinct, so `by_series` is the identity of windows alone. A
//!   retraction is a row as well, with `retracted` = 1, or a lower revision that comes after it would
//!   pass for new; the indexes that queries go by do not have it.
//! - `late`: readings that came too late for their windows, kept apart: no result has them in it; by
//!   (epoch, sequence number), each once.
//! - `reports`: the agents' words on what will never come; by (epoch, sequence number), each once.
//!
//! A file of an older format is brought to this one at open, by the same steps that make a new one, in
//! one transaction: a crash leaves the old file. The steps add tables, columns and indexes, and rewrite
//! no row. A newer format is refused.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::{Config, Error};

/// The format this version writes; it brings an older file to it.
const FORMAT: i64 = STEPS.len() as i64;
/// What makes each format of the one before; the first of an empty file.
const STEPS: [&str; 4] = [TABLES, REPORTS, PARTS, LATE];
/// Marks the file as a collector's: "HWCo".
const APPLICATION: i64 = 0x4857_436f;

const TABLES: &str = "
CREATE TABLE epochs (
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    epoch TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    batches INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    UNIQUE (agent, epoch)
) STRICT;
CREATE TABLE batches (
    epoch INTEGER NOT NULL REFERENCES epochs,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL,
    received INTEGER NOT NULL,
    PRIMARY KEY (epoch, first, last)
) STRICT, WITHOUT ROWID;
CREATE TABLE coverage (
    epoch INTEGER NOT NULL REFERENCES epochs,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE pipelines (
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    results INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0,
    readings INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    replaced INTEGER NOT NULL DEFAULT 0,
    ignored INTEGER NOT NULL DEFAULT 0,
    UNIQUE (agent, pipeline)
) STRICT;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    pipeline INTEGER NOT NULL REFERENCES pipelines,
    key TEXT NOT NULL,
    UNIQUE (pipeline, key)
) STRICT;
CREATE TABLE modules (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE results (
    change INTEGER PRIMARY KEY,
    pipeline INTEGER NOT NULL REFERENCES pipelines,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epochs,
    seq INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER,
    revision INTEGER,
    count INTEGER,
    late INTEGER,
    rejected INTEGER,
    module INTEGER REFERENCES modules,
    value TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX by_series ON results (series, start, end);
CREATE UNIQUE INDEX by_seq ON results (epoch, seq) WHERE end IS NULL;
CREATE INDEX by_pipeline ON results (pipeline, start);
CREATE INDEX by_start ON results (start);
";

/// New in format 2.
const REPORTS: &str = "
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epochs,
    seq INTEGER NOT NULL,
    agent TEXT NOT NULL,
    pipeline TEXT,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    count INTEGER,
    value TEXT NOT NULL,
    UNIQUE (epoch, seq)
) STRICT;
CREATE INDEX by_agent ON reports (agent, kind);
";

/// New in format 3.
const PARTS: &str = "
ALTER TABLE results ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN early INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN retracted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN watermark INTEGER;
ALTER TABLE pipelines ADD COLUMN early INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pipelines ADD COLUMN retracted INTEGER NOT NULL DEFAULT 0;
DROP INDEX by_series;
DROP INDEX by_pipeline;
DROP INDEX by_start;
CREATE UNIQUE INDEX by_window ON results (series, start, end, part);
CREATE INDEX by_series ON results (series, start) WHERE retracted = 0;
CREATE INDEX by_pipeline ON results (pipeline, start) WHERE retracted = 0;
CREATE INDEX by_start ON results (start) WHERE retracted = 0;
";

/// New in format 4.
const LATE: &str = "
CREATE TABLE late (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epochs,
    seq INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    time INTEGER NOT NULL,
    topic TEXT NOT NULL,
    module INTEGER REFERENCES modules,
    value TEXT NOT NULL,
    UNIQUE (epoch, seq)
) STRICT;
ALTER TABLE pipelines ADD COLUMN late_readings INTEGER NOT NULL DEFAULT 0;
";

/// Opens or creates the file, for the one thread that writes.
pub(crate) fn open(config: &Config) -> Result<Connection, Error> {
    let path = &config.store;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let in_folder = |source| Error::Folder { path: folder.to_owned(), source };
    let in_file = |source| Error::Open { path: path.clone(), source };
    make_folder(folder).map_err(in_folder)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(in_file)?;
    let found = prepare(&mut connection, config).map_err(in_file)?;
    if found != FORMAT {
        return Err(Error::Format { path: path.clone(), found, known: FORMAT });
    }
    // A new file survives a power cut only once its folder's entry does.
    sync_folder(folder).map_err(in_folder)?;
    Ok(connection)
}

/// Sets durability and bounds, creates the tables in a new file; returns the file's format.
///
/// A WAL with `synchronous=FULL` makes one fsync of the WAL the whole cost of a commit, and what the
/// answer to a batch waits for: with NORMAL a power cut takes commits that were answered. The
/// checkpoint at open puts what an earlier process left in the WAL into the file and syncs both: it
/// may have been readable, yet never synced, when that process was killed.
fn prepare(connection: &mut Connection, config: &Config) -> rusqlite::Result<i64> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = (config.store_bytes_max / page).clamp(1, u64::from(u32::MAX - 1));
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    create(connection)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings an empty or older file to this format, as a whole or not at all; leaves a newer one alone.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if tables == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    } else if !(1..FORMAT).contains(&found) {
        return Ok(());
    }
    let made = if tables == 0 { 0 } else { found as usize };
    if made > 0 {
        tracing::info!(from = found, to = FORMAT, "bringing the store to a newer format");
    }
    STEPS[made..].iter().try_for_each(|step| transaction.execute_batch(step))?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// A connection that cannot write.
pub(crate) fn open_reader(config: &Config) -> Result<Connection, Error> {
    let in_file = |source| Error::Open { path: config.store.clone(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&config.store, flags).map_err(in_file)?;
    connection.busy_timeout(Duration::from_secs(1)).map_err(in_file)?;
    connection.pragma_update(None, "query_only", true).map_err(in_file)?;
    Ok(connection)
}

/// Makes the folder where needed, and each new one's entry durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_folder(parent)?;
    fs::create_dir(folder)?;
    sync_folder(parent)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
