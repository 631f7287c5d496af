//! The agents' reports of records that will never come, or not as they were.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::rfc3339;

/// Most kinds in the summary of an agent. There are four, unless a newer agent knows more.
const KINDS_MAX: u32 = 32;

/// A query for reports. A filter that is `None` lets all of them pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportQuery {
    /// The name of the agent.
    pub(crate) agent: Option<String>,
    /// The name of the pipeline.
    pub(crate) pipeline: Option<String>,
    /// The kind of the report.
    pub(crate) kind: Option<String>,
    /// The id after which the answer begins.
    pub(crate) after: i64,
    /// Most reports in the answer.
    pub(crate) limit: u32,
}

/// A stored report.
#[derive(Debug, Serialize)]
pub(crate) struct ReportRow {
    /// The id, which grows with each report stored: the next page begins after the last one.
    pub(crate) id: i64,
    /// The agent that reported.
    pub(crate) agent: String,
    /// The pipeline that the report concerns; `null` for all pipelines.
    pub(crate) pipeline: Option<String>,
    /// The time at which the agent noticed; RFC 3339.
    pub(crate) time: String,
    /// The report as it was sent.
    pub(crate) report: Box<RawValue>,
}

/// Sums over an agent's reports of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct ReportTotals {
    /// The kind: `lost`, `dropped`, `coarsened`, `expired`, or one of a newer agent.
    pub(crate) kind: String,
    /// The number of reports.
    pub(crate) reports: u64,
    /// The number of records reported, without those whose number the agent did not know.
    pub(crate) records: u64,
}

/// Returns reports in the order in which they were stored, until they have `bytes_max` bytes.
pub(crate) fn reports(
    store: &Connection,
    query: &ReportQuery,
    bytes_max: usize,
) -> rusqlite::Result<Vec<ReportRow>> {
    let mut statement = store.prepare_cached(
        "SELECT id, agent, pipeline, time, value FROM reports
         WHERE id > ?1 AND (?2 IS NULL OR agent = ?2) AND (?3 IS NULL OR pipeline = ?3)
           AND (?4 IS NULL OR kind = ?4)
         ORDER BY id LIMIT ?5",
    )?;
    let mut rows =
        statement.query(params![query.after, query.agent, query.pipeline, query.kind, query.limit])?;
    let mut reports = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let value: String = row.get(4)?;
        bytes += value.len();
        let report = RawValue::from_string(value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
        })?;
        reports.push(ReportRow {
            id: row.get(0)?,
            agent: row.get(1)?,
            pipeline: row.get(2)?,
            time: rfc3339(row.get(3)?),
            report,
        });
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(reports)
}

/// Returns the sums of an agent's reports by kind.
pub(super) fn report_totals(store: &Connection, agent: &str) -> rusqlite::Result<Vec<ReportTotals>> {
    store
        .prepare_cached(
            "SELECT kind, count(*), total(count) FROM reports WHERE agent = ? GROUP BY kind ORDER BY kind LIMIT ?",
        )?
        .query_map(params![agent, KINDS_MAX], |row| {
            Ok(ReportTotals { kind: row.get(0)?, reports: row.get(1)?, records: row.get::<_, f64>(2)? as u64 })
        })?
        .collect()
}
