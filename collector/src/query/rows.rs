//! The rows of an answer with results, and their form as CSV.

use std::fmt;

use rusqlite::Row;
use serde::Serialize;
use serde_json::value::RawValue;

use super::rfc3339;

/// The columns that a query of results must select for the rows below to be read.
pub(super) const COLUMNS: &str = "p.agent, p.pipeline, s.key, r.start, r.end, r.revision,
    (SELECT digest FROM modules WHERE id = r.module),
    r.count, r.late, r.rejected, r.value, r.change, r.part, r.early, r.watermark, r.retracted";

/// A stored result.
#[derive(Debug, Serialize)]
pub struct ResultRow {
    /// The agent that sent it.
    pub agent: String,
    /// The pipeline that made it.
    pub pipeline: String,
    /// The key it belongs to.
    pub key: String,
    /// The window, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowBounds>,
    /// The event time, if it has no window; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The number of times that the result has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// True if the result is provisional, because its window is still open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
    /// The digest of the module that made it.
    pub module: Option<String>,
    /// The number of readings used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The number of these that were late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
    /// The number of readings that the aggregate refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
    /// The event time up to which the agent had counted; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// The value as it was sent, in JSON.
    pub value: Box<RawValue>,
    /// The number of the change that stored it. Each result stored or replaced takes the next number.
    pub change: i64,
}

/// A window whose result was retracted. The result may never have been stored.
#[derive(Debug, Serialize)]
pub struct RetractedRow {
    /// The agent that retracted it.
    pub agent: String,
    /// The pipeline that had made it.
    pub pipeline: String,
    /// The key it belonged to.
    pub key: String,
    /// The window that no longer has a result.
    pub window: WindowBounds,
    /// The revision of the retraction. A result of this window counts again only with a higher one.
    pub revision: u32,
    /// The number of the change that stored the retraction.
    pub change: i64,
}

/// The bounds of a window in RFC 3339, with the number of its part.
#[derive(Debug, Serialize)]
pub struct WindowBounds {
    /// The first instant of the window.
    pub start: String,
    /// The first instant after the window.
    pub end: String,
    /// A number that tells windows of the same bounds apart; not written if it is 0.
    #[serde(skip_serializing_if = "is_first_part")]
    pub part: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_first_part(part: &u32) -> bool {
    *part == 0
}

impl ResultRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let end: Option<i64> = row.get(4)?;
        let window = end.map(|end| WindowBounds::read(row, end)).transpose()?;
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
            window: WindowBounds::read(row, row.get(4)?)?,
            revision: row.get(5)?,
            change: row.get(11)?,
        })
    }
}

impl WindowBounds {
    fn read(row: &Row<'_>, end: i64) -> rusqlite::Result<Self> {
        Ok(Self { start: rfc3339(row.get(3)?), end: rfc3339(end), part: row.get(12)? })
    }
}

/// The header line of a page in CSV.
pub(crate) const CSV_HEADER: &str =
    "agent,pipeline,key,time,start,end,part,revision,early,module,count,late,rejected,watermark,value\r\n";

/// Writes the row in CSV (RFC 4180). The columns are the same for every value; `value` is JSON.
impl fmt::Display for ResultRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window.as_ref();
        let (start, end) = window.map_or(("", ""), |window| (&window.start, &window.end));
        let time = self.time.as_deref().unwrap_or_default();
        let module = self.module.as_deref().unwrap_or_default();
        for text in [&self.agent, &self.pipeline, &self.key] {
            write!(f, "{},", CsvText(text))?;
        }
        write!(f, "{time},{start},{end},")?;
        for number in [window.map(|window| window.part), self.revision] {
            write!(f, "{},", CsvNumber(number.map(u64::from)))?;
        }
        write!(f, "{},{module},", window.map_or("", |_| if self.early { "true" } else { "false" }))?;
        for number in [self.count, self.late, self.rejected] {
            write!(f, "{},", CsvNumber(number))?;
        }
        write!(f, "{},{}\r\n", self.watermark.as_deref().unwrap_or_default(), CsvText(self.value.get()))
    }
}

/// A text in double quotes, with those in it doubled.
struct CsvText<'a>(&'a str);

impl fmt::Display for CsvText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A number; `None` is an empty field.
struct CsvNumber(Option<u64>);

impl fmt::Display for CsvNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |number| number.fmt(f))
    }
}
