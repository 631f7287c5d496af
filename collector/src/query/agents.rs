//! What came from whom, in sums.

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::reports::{Reported, reported};
use super::rfc3339;

/// Most epochs told of an agent: the ones seen last.
const EPOCHS_MAX: u32 = 16;
/// Most pipelines told of an agent.
const PIPELINES_MAX: u32 = 1000;
/// Most rows of an answer with totals.
const TOTALS_MAX: u32 = 10_000;

/// What came from one agent.
#[derive(Debug, Serialize)]
pub struct Agent {
    /// Its name.
    pub agent: String,
    /// When its last batch came, by this host's clock; RFC 3339.
    pub last_seen: String,
    /// Batches stored.
    pub batches: u64,
    /// Batches that came again, and changed nothing.
    pub duplicates: u64,
    /// Over all its pipelines.
    #[serde(flatten)]
    pub sums: Sums,
    /// Each pipeline's own, at most 1,000.
    pub pipelines: Vec<Totals>,
    /// What it reported as lost, dropped, merged or given up, by kind.
    pub reports: Vec<Reported>,
    /// At most 16, the one seen last first.
    pub epochs: Vec<Epoch>,
}

/// One outbox of an agent.
#[derive(Debug, Serialize)]
pub struct Epoch {
    /// 32 hexadecimal digits.
    pub epoch: String,
    /// When its first batch came; RFC 3339.
    pub first_seen: String,
    /// When its last batch came; RFC 3339.
    pub last_seen: String,
    /// Batches stored.
    pub batches: u64,
    /// Batches that came again.
    pub duplicates: u64,
    /// Lines stored, counted by their sequence numbers.
    pub lines: u64,
    /// The highest number such that it and all before it, from 0, are stored.
    pub watermark: Option<u64>,
    /// The highest number stored.
    pub highest: Option<u64>,
    /// Ranges of numbers missing below `highest`.
    pub gaps: u64,
}

/// Sums over the results of one agent and pipeline.
#[derive(Debug, Serialize)]
pub struct Totals {
    /// The agent.
    pub agent: String,
    /// The pipeline.
    pub pipeline: String,
    /// Its sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Sums over stored results: one that was replaced or retracted no longer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Results with a window.
    pub results: u64,
    /// Of these, provisional ones: their windows are still open.
    pub early: u64,
    /// Windows that are no more: their readings are part of other results.
    pub retracted: u64,
    /// Results without one.
    pub events: u64,
    /// Sum of the results' `count`.
    pub readings: u64,
    /// Sum of the results' `late`.
    pub late: u64,
    /// Sum of the results' `rejected`.
    pub rejected: u64,
    /// Readings that came too late for their windows and are kept apart: in none of the others.
    pub late_readings: u64,
    /// Results replaced, or retracted, by a higher revision.
    pub replaced: u64,
    /// Lines that changed nothing: a revision not higher than the one stored, or an event stored before.
    pub ignored: u64,
}

/// The agents after this name, in the order of names.
pub(crate) fn agents(store: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<Agent>> {
    store
        .prepare_cached(
            "SELECT agent, max(last_seen), sum(batches), sum(duplicates) FROM epochs
             WHERE agent > ? GROUP BY agent ORDER BY agent LIMIT ?",
        )?
        .query_map(params![after, limit], |row| {
            let name: String = row.get(0)?;
            let pipelines = of_agent(store, &name)?;
            Ok(Agent {
                last_seen: rfc3339(row.get(1)?),
                batches: row.get(2)?,
                duplicates: row.get(3)?,
                sums: pipelines.iter().fold(Sums::default(), |sums, own| sums.with(&own.sums)),
                pipelines,
                reports: reported(store, &name)?,
                epochs: epochs(store, &name)?,
                agent: name,
            })
        })?
        .collect()
}

fn epochs(store: &Connection, agent: &str) -> rusqlite::Result<Vec<Epoch>> {
    store
        .prepare_cached(
            "SELECT epoch, first_seen, last_seen, batches, duplicates,
                    (SELECT last FROM coverage c WHERE c.epoch = e.id AND first = 0),
                    (SELECT max(last) FROM coverage c WHERE c.epoch = e.id),
                    (SELECT total(last - first + 1) FROM coverage c WHERE c.epoch = e.id),
                    (SELECT count(*) - (min(first) = 0) FROM coverage c WHERE c.epoch = e.id)
             FROM epochs e WHERE agent = ? ORDER BY last_seen DESC, id DESC LIMIT ?",
        )?
        .query_map(params![agent, EPOCHS_MAX], |row| {
            Ok(Epoch {
                epoch: row.get(0)?,
                first_seen: rfc3339(row.get(1)?),
                last_seen: rfc3339(row.get(2)?),
                batches: row.get(3)?,
                duplicates: row.get(4)?,
                watermark: row.get(5)?,
                highest: row.get(6)?,
                lines: row.get::<_, f64>(7)? as u64,
                gaps: row.get::<_, Option<u64>>(8)?.unwrap_or(0),
            })
        })?
        .collect()
}

fn of_agent(store: &Connection, agent: &str) -> rusqlite::Result<Vec<Totals>> {
    store
        .prepare_cached(&format!("{TOTALS} WHERE agent = ? ORDER BY pipeline LIMIT ?"))?
        .query_map(params![agent, PIPELINES_MAX], Totals::read)?
        .collect()
}

/// Sums per agent and pipeline.
pub(crate) fn totals(
    store: &Connection,
    agent: Option<&str>,
    pipeline: Option<&str>,
) -> rusqlite::Result<Vec<Totals>> {
    store
        .prepare_cached(&format!(
            "{TOTALS} WHERE (?1 IS NULL OR agent = ?1) AND (?2 IS NULL OR pipeline = ?2)
             ORDER BY agent, pipeline LIMIT ?3"
        ))?
        .query_map(params![agent, pipeline, TOTALS_MAX], Totals::read)?
        .collect()
}

const TOTALS: &str = "SELECT agent, pipeline, results, events, readings, late, rejected, replaced,
                      ignored, early, retracted, late_readings FROM pipelines";

impl Totals {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            agent: row.get(0)?,
            pipeline: row.get(1)?,
            sums: Sums {
                results: row.get(2)?,
                events: row.get(3)?,
                readings: row.get(4)?,
                late: row.get(5)?,
                rejected: row.get(6)?,
                replaced: row.get(7)?,
                ignored: row.get(8)?,
                early: row.get(9)?,
                retracted: row.get(10)?,
                late_readings: row.get(11)?,
            },
        })
    }
}

impl Sums {
    fn with(self, other: &Self) -> Self {
        Self {
            results: self.results.saturating_add(other.results),
            early: self.early.saturating_add(other.early),
            retracted: self.retracted.saturating_add(other.retracted),
            events: self.events.saturating_add(other.events),
            readings: self.readings.saturating_add(other.readings),
            late: self.late.saturating_add(other.late),
            rejected: self.rejected.saturating_add(other.rejected),
            late_readings: self.late_readings.saturating_add(other.late_readings),
            replaced: self.replaced.saturating_add(other.replaced),
            ignored: self.ignored.saturating_add(other.ignored),
        }
    }
}
