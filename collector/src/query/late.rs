//! Readings that came too late for their windows. No result contains them.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::rfc3339;

/// A query for late readings. A filter that is `None` lets all of them pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct LateQuery {
    /// The name of the agent.
    pub(crate) agent: Option<String>,
    /// The name of the pipeline.
    pub(crate) pipeline: Option<String>,
    /// The key.
    pub(crate) key: Option<String>,
    /// The id after which the answer begins.
    pub(crate) after: i64,
    /// Most readings in the answer.
    pub(crate) limit: u32,
}

/// A stored late reading.
#[derive(Debug, Serialize)]
pub(crate) struct LateRow {
    /// The id, which grows with each reading stored: the next page begins after the last one.
    pub(crate) id: i64,
    /// The agent that sent it.
    pub(crate) agent: String,
    /// The pipeline that it was too late for.
    pub(crate) pipeline: String,
    /// The key it belongs to.
    pub(crate) key: String,
    /// The topic it was published to.
    pub(crate) topic: String,
    /// The event time; RFC 3339.
    pub(crate) time: String,
    /// The digest of the last module that changed it.
    pub(crate) module: Option<String>,
    /// The content as it was sent, in JSON.
    pub(crate) value: Box<RawValue>,
}

/// Returns late readings in the order in which they were stored, until their content has `bytes_max` bytes.
pub(crate) fn late(
    store: &Connection,
    query: &LateQuery,
    bytes_max: usize,
) -> rusqlite::Result<Vec<LateRow>> {
    let mut statement = store.prepare_cached(
        "SELECT l.id, p.agent, p.pipeline, s.key, l.topic, l.time,
                (SELECT digest FROM modules WHERE id = l.module), l.value
         FROM late l JOIN series s ON s.id = l.series JOIN pipelines p ON p.id = s.pipeline
         WHERE l.id > ?1 AND (?2 IS NULL OR p.agent = ?2) AND (?3 IS NULL OR p.pipeline = ?3)
           AND (?4 IS NULL OR s.key = ?4)
         ORDER BY l.id LIMIT ?5",
    )?;
    let mut rows =
        statement.query(params![query.after, query.agent, query.pipeline, query.key, query.limit])?;
    let mut late = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let value: String = row.get(7)?;
        bytes += value.len();
        let value = RawValue::from_string(value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(7, rusqlite::types::Type::Text, error.into())
        })?;
        late.push(LateRow {
            id: row.get(0)?,
            agent: row.get(1)?,
            pipeline: row.get(2)?,
            key: row.get(3)?,
            topic: row.get(4)?,
            time: rfc3339(row.get(5)?),
            module: row.get(6)?,
            value,
        });
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(late)
}
