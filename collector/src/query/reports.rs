//! What the agents said will never come, or not as it was.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::rfc3339;

/// Most kinds told of an agent: there are four, unless a newer agent knows more.
const KINDS_MAX: u32 = 32;

/// Which reports are asked for.
#[derive(Clone, Debug, Default)]
pub struct ReportsOf {
    /// Of one agent.
    pub agent: Option<String>,
    /// Of one pipeline.
    pub pipeline: Option<String>,
    /// Of one kind.
    pub kind: Option<String>,
    /// Those stored after this one.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// One report.
#[derive(Debug, Serialize)]
pub struct ReportRow {
    /// Grows with each report stored: the next page begins after it.
    pub id: i64,
    /// Who said it.
    pub agent: String,
    /// The pipeline it concerns; `null`: all.
    pub pipeline: Option<String>,
    /// When the agent noticed; RFC 3339.
    pub time: String,
    /// The report as it was sent.
    pub report: Box<RawValue>,
}

/// Reports of one kind, summed up.
#[derive(Debug, Serialize)]
pub struct Reported {
    /// `lost`, `dropped`, `coarsened`, `expired`.
    pub kind: String,
    /// How many reports.
    pub reports: u64,
    /// Records they speak of, as far as that was known.
    pub records: u64,
}

/// Reports in the order in which they were stored.
pub(crate) fn reports(
    store: &Connection,
    of: &ReportsOf,
    bytes_max: usize,
) -> rusqlite::Result<Vec<ReportRow>> {
    let mut statement = store.prepare_cached(
        "SELECT id, agent, pipeline, time, value FROM reports
         WHERE id > ?1 AND (?2 IS NULL OR agent = ?2) AND (?3 IS NULL OR pipeline = ?3)
           AND (?4 IS NULL OR kind = ?4)
         ORDER BY id LIMIT ?5",
    )?;
    let mut rows = statement.query(params![of.after, of.agent, of.pipeline, of.kind, of.limit])?;
    let (mut reports, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let value: String = row.get(4)?;
        bytes += value.len();
        let report = RawValue::from_string(value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let (id, agent, pipeline) = (row.get(0)?, row.get(1)?, row.get(2)?);
        reports.push(ReportRow { id, agent, pipeline, time: rfc3339(row.get(3)?), report });
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(reports)
}

/// An agent's reports by kind.
pub(super) fn reported(store: &Connection, agent: &str) -> rusqlite::Result<Vec<Reported>> {
    store
        .prepare_cached(
            "SELECT kind, count(*), total(count) FROM reports WHERE agent = ? GROUP BY kind ORDER BY kind LIMIT ?",
        )?
        .query_map(params![agent, KINDS_MAX], |row| {
            Ok(Reported { kind: row.get(0)?, reports: row.get(1)?, records: row.get::<_, f64>(2)? as u64 })
        })?
        .collect()
}
