//! Sums over the results of agents and pipelines.

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::reports::{ReportTotals, report_totals};
use super::rfc3339;

/// Most epochs in the summary of an agent: those seen last.
const EPOCHS_MAX: u32 = 16;
/// Most pipelines in the summary of an agent.
const PIPELINES_MAX: u32 = 1000;
/// Most entries of an answer with totals.
const TOTALS_MAX: u32 = 10_000;

/// A summary of all that came from one agent.
#[derive(Debug, Serialize)]
pub(crate) struct AgentSummary {
    /// The name of the agent.
    pub(crate) agent: String,
    /// The arrival of its last batch, by this host's clock; RFC 3339.
    pub(crate) last_seen: String,
    /// The number of batches stored.
    pub(crate) batches: u64,
    /// The number of batches that came again and changed nothing.
    pub(crate) duplicates: u64,
    /// The sums over all its pipelines.
    #[serde(flatten)]
    pub(crate) sums: ResultSums,
    /// The sums of each pipeline, at most 1,000 of them.
    pub(crate) pipelines: Vec<PipelineTotals>,
    /// The sums of its reports, by kind.
    pub(crate) reports: Vec<ReportTotals>,
    /// The summaries of its epochs, at most 16, the one seen last first.
    pub(crate) epochs: Vec<EpochSummary>,
}

/// A summary of one epoch, that is of one outbox of an agent.
#[derive(Debug, Serialize)]
pub(crate) struct EpochSummary {
    /// The epoch in 32 hexadecimal digits.
    pub(crate) epoch: String,
    /// The arrival of its first batch; RFC 3339.
    pub(crate) first_seen: String,
    /// The arrival of its last batch; RFC 3339.
    pub(crate) last_seen: String,
    /// The number of batches stored.
    pub(crate) batches: u64,
    /// The number of batches that came again.
    pub(crate) duplicates: u64,
    /// The number of lines stored, counted by their sequence numbers.
    pub(crate) lines: u64,
    /// The highest number such that it and all before it, from 0, are stored.
    pub(crate) watermark: Option<u64>,
    /// The highest number stored.
    pub(crate) highest: Option<u64>,
    /// The number of ranges of numbers that are missing below `highest`.
    pub(crate) gaps: u64,
}

/// The sums over the results of one pipeline of one agent.
#[derive(Debug, Serialize)]
pub struct PipelineTotals {
    /// The name of the agent.
    pub agent: String,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The sums of the pipeline.
    #[serde(flatten)]
    pub sums: ResultSums,
}

/// Sums over stored results. A result that was replaced or retracted no longer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResultSums {
    /// The number of results with a window.
    pub results: u64,
    /// The number of these that are provisional, because their windows are still open.
    pub early: u64,
    /// The number of windows that were retracted: their readings are part of other results.
    pub retracted: u64,
    /// The number of results without a window.
    pub events: u64,
    /// The sum of `count` over the results.
    pub readings: u64,
    /// The sum of `late` over the results.
    pub late: u64,
    /// The sum of `rejected` over the results.
    pub rejected: u64,
    /// The number of readings that came too late for their windows. No other sum counts them.
    pub late_readings: u64,
    /// The number of results that were replaced or retracted by a higher revision.
    pub replaced: u64,
    /// The number of lines that changed nothing, because their revision was not higher than the stored
    /// one or because they had been stored before.
    pub ignored: u64,
}

/// Returns summaries of at most `limit` agents after this name, in the order of their names.
pub(crate) fn agents(store: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<AgentSummary>> {
    store
        .prepare_cached(
            "SELECT agent, max(last_seen), sum(batches), sum(duplicates) FROM epochs
             WHERE agent > ? GROUP BY agent ORDER BY agent LIMIT ?",
        )?
        .query_map(params![after, limit], |row| {
            let name: String = row.get(0)?;
            let pipelines = totals_of_agent(store, &name)?;
            Ok(AgentSummary {
                last_seen: rfc3339(row.get(1)?),
                batches: row.get(2)?,
                duplicates: row.get(3)?,
                sums: pipelines.iter().fold(ResultSums::default(), |sums, own| sums.with(&own.sums)),
                pipelines,
                reports: report_totals(store, &name)?,
                epochs: epochs(store, &name)?,
                agent: name,
            })
        })?
        .collect()
}

fn epochs(store: &Connection, agent: &str) -> rusqlite::Result<Vec<EpochSummary>> {
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
            Ok(EpochSummary {
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

fn totals_of_agent(store: &Connection, agent: &str) -> rusqlite::Result<Vec<PipelineTotals>> {
    store
        .prepare_cached(&format!("{TOTALS_QUERY} WHERE agent = ? ORDER BY pipeline LIMIT ?"))?
        .query_map(params![agent, PIPELINES_MAX], PipelineTotals::read)?
        .collect()
}

/// Returns the sums of each pipeline of each agent, or only of those with the given names.
pub(crate) fn totals(
    store: &Connection,
    agent: Option<&str>,
    pipeline: Option<&str>,
) -> rusqlite::Result<Vec<PipelineTotals>> {
    store
        .prepare_cached(&format!(
            "{TOTALS_QUERY} WHERE (?1 IS NULL OR agent = ?1) AND (?2 IS NULL OR pipeline = ?2)
             ORDER BY agent, pipeline LIMIT ?3"
        ))?
        .query_map(params![agent, pipeline, TOTALS_MAX], PipelineTotals::read)?
        .collect()
}

/// The columns that `PipelineTotals::read` reads.
const TOTALS_QUERY: &str = "SELECT agent, pipeline, results, events, readings, late, rejected, replaced,
                      ignored, early, retracted, late_readings FROM pipelines";

impl PipelineTotals {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            agent: row.get(0)?,
            pipeline: row.get(1)?,
            sums: ResultSums {
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

impl ResultSums {
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
