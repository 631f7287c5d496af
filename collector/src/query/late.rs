//! Readings that came too late for their windows: no result has them in it.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::rfc3339;

/// Which late readings are asked for.
#[derive(Clone, Debug, Default)]
pub struct LateOf {
    /// Of one agent.
    pub agent: Option<String>,
    /// Of one pipeline.
    pub pipeline: Option<String>,
    /// Of one key.
    pub key: Option<String>,
    /// Those stored after this one.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// One late reading.
#[derive(Debug, Serialize)]
pub struct LateRow {
    /// Grows with each one stored: the next page begins after it.
    pub id: i64,
    /// Who sent it.
    pub agent: String,
    /// The pipeline that it was too late for.
    pub pipeline: String,
    /// What it belongs to.
    pub key: String,
    /// Where it was published.
    pub topic: String,
    /// Event time; RFC 3339.
    pub time: String,
    /// Digest of the last module that changed it.
    pub module: Option<String>,
    /// As it was sent.
    pub value: Box<RawValue>,
}

/// Late readings in the order in which they were stored.
pub(crate) fn late(store: &Connection, of: &LateOf, bytes_max: usize) -> rusqlite::Result<Vec<LateRow>> {
    let mut statement = store.prepare_cached(
        "SELECT l.id, p.agent, p.pipeline, s.key, l.topic, l.time,
                (SELECT digest FROM modules WHERE id = l.module), l.value
         FROM late l JOIN series s ON s.id = l.series JOIN pipelines p ON p.id = s.pipeline
         WHERE l.id > ?1 AND (?2 IS NULL OR p.agent = ?2) AND (?3 IS NULL OR p.pipeline = ?3)
           AND (?4 IS NULL OR s.key = ?4)
         ORDER BY l.id LIMIT ?5",
    )?;
    let mut rows = statement.query(params![of.after, of.agent, of.pipeline, of.key, of.limit])?;
    let (mut late, mut bytes) = (Vec::new(), 0);
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
