//! What is told of a stored result, and how it is written as CSV.

use std::fmt;

use rusqlite::Row;
use serde::Serialize;
use serde_json::value::RawValue;

use super::rfc3339;

/// What a query of results must select, for the rows below to be read.
pub(super) const COLUMNS: &str = "p.agent, p.pipeline, s.key, r.start, r.end, r.revision,
    (SELECT digest FROM modules WHERE id = r.module),
    r.count, r.late, r.rejected, r.value, r.change, r.part, r.early, r.watermark, r.retracted";

/// A stored result.
#[derive(Debug, Serialize)]
pub struct ResultRow {
    /// Who sent it.
    pub agent: String,
    /// The pipeline that made it.
    pub pipeline: String,
    /// What it belongs to.
    pub key: String,
    /// Its window, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Event time, if it has no window; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// How often it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// Whether it is provisional: its window is still open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
    /// Digest of the module that made it.
    pub module: Option<String>,
    /// Readings used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of these, late ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
    /// Readings refused by the aggregate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
    /// The event time up to which the agent had counted; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// As it was sent.
    pub value: Box<RawValue>,
    /// Grows with each result stored or replaced.
    pub change: i64,
}

/// A window whose result was withdrawn, whether it had been stored before or not.
#[derive(Debug, Serialize)]
pub struct RetractedRow {
    /// Who withdrew it.
    pub agent: String,
    /// The pipeline that had made it.
    pub pipeline: String,
    /// What it belonged to.
    pub key: String,
    /// The window that is no more.
    pub window: Window,
    /// Results of it count again only with a higher one.
    pub revision: u32,
    /// Grows with each change.
    pub change: i64,
}

/// Which window, RFC 3339.
#[derive(Debug, Serialize)]
pub struct Window {
    /// Belongs to it.
    pub start: String,
    /// Does not.
    pub end: String,
    /// Tells those of the same bounds apart; absent when it is 0.
    #[serde(skip_serializing_if = "is_first")]
    pub part: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_first(part: &u32) -> bool {
    *part == 0
}

impl ResultRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let end: Option<i64> = row.get(4)?;
        let window = end.map(|end| Window::of(row, end)).transpose()?;
        let value: String = row.get(10)?;
        let value = RawValue::from_string(value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(10, rusqlite::types::Type::Text, error.into())
        })?;
        Ok(Self {
            agent: row.get(0)?,
            pipeline: row.get(1)?,
            key: row.get(2)?,
            time: if window.is_none() { Some(rfc3339(row.get(3)?)) } else { None },
            window,
            revision: row.get(5)?,
            module: row.get(6)?,
            count: row.get(7)?,
            late: row.get(8)?,
            rejected: row.get(9)?,
            value,
            change: row.get(11)?,
            early: row.get(13)?,
            watermark: row.get::<_, Option<i64>>(14)?.map(rfc3339),
        })
    }
}

impl RetractedRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            agent: row.get(0)?,
            pipeline: row.get(1)?,
            key: row.get(2)?,
            window: Window::of(row, row.get(4)?)?,
            revision: row.get(5)?,
            change: row.get(11)?,
        })
    }
}

impl Window {
    fn of(row: &Row<'_>, end: i64) -> rusqlite::Result<Self> {
        Ok(Self { start: rfc3339(row.get(3)?), end: rfc3339(end), part: row.get(12)? })
    }
}

/// The header of a page as CSV.
pub(crate) const CSV_HEADER: &str =
    "agent,pipeline,key,time,start,end,part,revision,early,module,count,late,rejected,watermark,value\r\n";

/// One row as CSV (RFC 4180): always the same columns, whatever the value holds; `value` is JSON.
impl fmt::Display for ResultRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window.as_ref();
        let (start, end) = window.map_or(("", ""), |window| (&window.start, &window.end));
        let time = self.time.as_deref().unwrap_or_default();
        let module = self.module.as_deref().unwrap_or_default();
        for text in [&self.agent, &self.pipeline, &self.key] {
            write!(f, "{},", Quoted(text))?;
        }
        write!(f, "{time},{start},{end},")?;
        for number in [window.map(|window| window.part), self.revision] {
            write!(f, "{},", Number(number.map(u64::from)))?;
        }
        write!(f, "{},{module},", window.map_or("", |_| if self.early { "true" } else { "false" }))?;
        for number in [self.count, self.late, self.rejected] {
            write!(f, "{},", Number(number))?;
        }
        write!(f, "{},{}\r\n", self.watermark.as_deref().unwrap_or_default(), Quoted(self.value.get()))
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

struct Number(Option<u64>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |number| number.fmt(f))
    }
}
