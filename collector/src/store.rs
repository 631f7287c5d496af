//! The SQLite file: its format, and the settings under which a commit is durable.
//!
//! **Format** (times are microseconds since the Unix epoch):
//! - `epochs`: one row per (agent, epoch), with the numbers of its batches.
//! - `batches`: key and digest of each stored batch, by which a batch that is sent again is recognised.
//! - `coverage`: the stored sequence numbers of an epoch as disjoint, non-adjacent ranges.
//! - `pipelines`: one row per (agent, pipeline), with the sums of its results, kept by each commit.
//! - `series`: one row per (pipeline, key).
//! - `modules`: digests, so that a result holds a small number.
//! - `results`: the results with and without a window. `change` grows with each result stored or
//!   replaced, so a reader that has seen all up to one number finds everything newer beyond it. A
//!   result without a window has no `end`; SQL holds NULLs to be distinct, so `by_window` identifies
//!   windows alone. A retraction is a row as well, with `retracted` = 1, so that a lower revision that
//!   comes after it does not pass for new; the indexes by which queries go leave it out.
//! - `late`: readings that came too late for their windows, which no result contains; each once, by
//!   (epoch, sequence number).
//! - `reports`: the agents' reports of records that will never come; each once, by (epoch, sequence
//!   number).
//!
//! A file of an older format is brought to this one when it is opened, by the same steps that make a
//! new one, in one transaction: a crash leaves the old file. The steps add tables, columns and indexes,
//! and rewrite no row. A newer format is refused.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::{CollectorConfig, CollectorError};

/// The number of the format that this version writes.
const FORMAT: i64 = STEPS.len() as i64;
/// The SQL that makes each format of the one before, and the first one of an empty file.
const STEPS: [&str; 4] = [TABLES, REPORTS, PARTS, LATE];
/// The application id that marks the file as a collector's: "HWCo".
const APPLICATION_ID: i64 = 0x4857_436f;

/// The step to format 1.
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

/// The step to format 2.
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

/// The step to format 3.
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

/// The step to format 4.
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

/// Opens or creates the file for the one thread that writes.
pub(crate) fn open(config: &CollectorConfig) -> Result<Connection, CollectorError> {
    let path = &config.store;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let in_folder = |source| CollectorError::Folder { path: folder.to_owned(), source };
    let in_file = |source| CollectorError::Open { path: path.clone(), source };
    create_folder(folder).map_err(in_folder)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(in_file)?;
    let found = prepare(&mut connection, config).map_err(in_file)?;
    if found != FORMAT {
        return Err(CollectorError::Format { path: path.clone(), found, known: FORMAT });
    }
    // A new file survives a power cut only once its entry in the folder does.
    sync_folder(folder).map_err(in_folder)?;
    Ok(connection)
}

/// Sets durability and limits, brings the file to this format, and returns the format it then has.
///
/// With a WAL and `synchronous=FULL` a commit costs one fsync of the WAL, for which the answer to a
/// batch waits. With NORMAL a power cut could undo commits that were answered. The checkpoint moves the
/// commits that an earlier process left in the WAL into the file and syncs both: they can be read, but
/// if that process was killed they may never have been synced.
fn prepare(connection: &mut Connection, config: &CollectorConfig) -> rusqlite::Result<i64> {
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
    bring_to_format(connection)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings an empty or older file to this format, as a whole or not at all, and leaves a newer one as it is.
fn bring_to_format(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if tables == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    } else if !(1..FORMAT).contains(&found) {
        return Ok(());
    }
    let steps_done = if tables == 0 { 0 } else { found as usize };
    if steps_done > 0 {
        tracing::info!(from = found, to = FORMAT, "bringing the store to a newer format");
    }
    STEPS[steps_done..].iter().try_for_each(|step| transaction.execute_batch(step))?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Opens a connection that cannot write.
pub(crate) fn open_reader(config: &CollectorConfig) -> Result<Connection, CollectorError> {
    let in_file = |source| CollectorError::Open { path: config.store.clone(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&config.store, flags).map_err(in_file)?;
    connection.busy_timeout(Duration::from_secs(1)).map_err(in_file)?;
    connection.pragma_update(None, "query_only", true).map_err(in_file)?;
    Ok(connection)
}

/// Creates the folder and those above it where they are absent, and makes the entry of each durable.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    create_folder(parent)?;
    fs::create_dir(folder)?;
    sync_folder(parent)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
