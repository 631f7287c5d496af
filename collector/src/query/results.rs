//! Pages of results.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, Row, ToSql};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::rfc3339;

/// Most rows of a page.
pub const ROWS_MAX: u32 = 10_000;

/// Which results, in which order, and how many of them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this agent's.
    pub agent: Option<String>,
    /// Only this pipeline's.
    pub pipeline: Option<String>,
    /// Only this key's.
    pub key: Option<String>,
    /// Only windows that start, and events that happened, then or later; in microseconds.
    pub from: Option<i64>,
    /// Only those before; in microseconds.
    pub to: Option<i64>,
    /// Their order.
    pub order: Order,
    /// Only those beyond this place, in that order.
    pub after: Option<Cursor>,
    /// Most rows; at most [`ROWS_MAX`] count.
    pub limit: u32,
}

/// Order of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By time, the first first.
    #[default]
    Oldest,
    /// By time, the last first.
    Latest,
    /// As they were stored: what is new or replaced since `after` comes after it.
    Change,
}

/// A place in an order: `time.change` by time, `change` by change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Window start or event time, in microseconds; 0 in the order of changes.
    pub time: i64,
    /// Number of the change.
    pub change: i64,
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, change) = text.split_once('.').unwrap_or(("0", text));
        Ok(Self { time: time.parse()?, change: change.parse()? })
    }
}

/// A page of results.
#[derive(Debug, Serialize)]
pub struct Page {
    /// In the order asked for.
    pub results: Vec<ResultRow>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<String>,
    /// The newest change the query could see, whether it matched or not: with the order of changes,
    /// what comes later lies after this.
    pub change: i64,
}

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
    /// How often late readings changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
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
    /// As it was sent.
    pub value: Box<RawValue>,
    /// Grows with each result stored or replaced.
    pub change: i64,
    #[serde(skip)]
    start: i64,
}

/// Bounds of a window, RFC 3339.
#[derive(Debug, Serialize)]
pub struct Window {
    /// Belongs to it.
    pub start: String,
    /// Does not.
    pub end: String,
}

/// Reads a page: at most `limit` rows, and no more once their values have `bytes_max` bytes.
pub(crate) fn results(store: &Connection, selection: &Selection, bytes_max: usize) -> rusqlite::Result<Page> {
    let change = store.query_row("SELECT coalesce(max(change), 0) FROM results", [], |row| row.get(0))?;
    let limit = selection.limit.min(ROWS_MAX) as usize;
    let (sql, parameters) = statement(selection);
    let mut statement = store.prepare_cached(&sql)?;
    let parameters: Vec<&dyn ToSql> = parameters.iter().map(AsRef::as_ref).collect();
    let mut rows = statement.query(&parameters[..])?;
    let (mut results, mut bytes, mut more) = (Vec::new(), 0, false);
    while let Some(row) = rows.next()? {
        if results.len() >= limit || bytes >= bytes_max {
            more = true;
            break;
        }
        let row = ResultRow::read(row)?;
        bytes += row.value.get().len() + row.key.len();
        results.push(row);
    }
    let next = results.last().filter(|_| more).map(|last| last.place(selection.order));
    Ok(Page { results, next, change })
}

/// Each shape of a question has an index that gives its answer in order, so that a page costs its
/// own rows: the joins' order is fixed with CROSS JOIN, the index with INDEXED BY.
fn statement(selection: &Selection) -> (String, Vec<Box<dyn ToSql>>) {
    let tables = match (selection.order, &selection.agent, &selection.pipeline, &selection.key) {
        (Order::Change, ..) => "results r CROSS JOIN pipelines p CROSS JOIN series s",
        (_, Some(_), Some(_), Some(_)) => {
            "pipelines p CROSS JOIN series s CROSS JOIN results r INDEXED BY by_series"
        }
        (_, Some(_), Some(_), None) => {
            "pipelines p CROSS JOIN results r INDEXED BY by_pipeline CROSS JOIN series s"
        }
        _ => "results r INDEXED BY by_start CROSS JOIN pipelines p CROSS JOIN series s",
    };
    let mut sql = Clauses { sql: String::new(), parameters: Vec::new() };
    sql.equal("p.agent", selection.agent.as_ref());
    sql.equal("p.pipeline", selection.pipeline.as_ref());
    sql.equal("s.key", selection.key.as_ref());
    sql.compare("r.start >=", selection.from);
    sql.compare("r.start <", selection.to);
    let order = match (selection.order, selection.after) {
        (Order::Change, after) => {
            sql.compare("r.change >", after.map(|after| after.change));
            "r.change"
        }
        (Order::Oldest, after) => {
            sql.beyond("r.start >=", "r.start >", "r.change >", after);
            "r.start, r.change"
        }
        (Order::Latest, after) => {
            sql.beyond("r.start <=", "r.start <", "r.change <", after);
            "r.start DESC, r.change DESC"
        }
    };
    let text = format!(
        "SELECT p.agent, p.pipeline, s.key, r.start, r.end, r.revision,
                (SELECT digest FROM modules WHERE id = r.module),
                r.count, r.late, r.rejected, r.value, r.change
         FROM {tables} WHERE p.id = r.pipeline AND s.id = r.series AND s.pipeline = p.id{}
         ORDER BY {order}",
        sql.sql
    );
    (text, sql.parameters)
}

struct Clauses {
    sql: String,
    parameters: Vec<Box<dyn ToSql>>,
}

impl Clauses {
    fn equal(&mut self, column: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.add(&format!("{column} ="), value.clone());
        }
    }

    fn compare(&mut self, comparison: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.add(comparison, value);
        }
    }

    /// The first comparison alone is what an index can use.
    fn beyond(&mut self, reach: &str, time: &str, change: &str, after: Option<Cursor>) {
        if let Some(after) = after {
            self.add(reach, after.time);
            self.parameters.push(Box::new(after.time));
            self.parameters.push(Box::new(after.change));
            let number = self.parameters.len();
            self.sql += &format!(" AND ({time} ?{} OR {change} ?{number})", number - 1);
        }
    }

    fn add(&mut self, comparison: &str, value: impl ToSql + 'static) {
        self.parameters.push(Box::new(value));
        self.sql += &format!(" AND {comparison} ?{}", self.parameters.len());
    }
}

impl ResultRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let start: i64 = row.get(3)?;
        let end: Option<i64> = row.get(4)?;
        let value: String = row.get(10)?;
        let value = RawValue::from_string(value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(10, rusqlite::types::Type::Text, error.into())
        })?;
        Ok(Self {
            agent: row.get(0)?,
            pipeline: row.get(1)?,
            key: row.get(2)?,
            window: end.map(|end| Window { start: rfc3339(start), end: rfc3339(end) }),
            time: end.is_none().then(|| rfc3339(start)),
            revision: row.get(5)?,
            module: row.get(6)?,
            count: row.get(7)?,
            late: row.get(8)?,
            rejected: row.get(9)?,
            value,
            change: row.get(11)?,
            start,
        })
    }

    fn place(&self, order: Order) -> String {
        match order {
            Order::Change => self.change.to_string(),
            Order::Oldest | Order::Latest => format!("{}.{}", self.start, self.change),
        }
    }
}

/// The header of a page as CSV.
pub(crate) const CSV_HEADER: &str =
    "agent,pipeline,key,time,start,end,revision,module,count,late,rejected,value\r\n";

/// One row as CSV (RFC 4180): always the same columns, whatever the value holds; `value` is JSON.
impl fmt::Display for ResultRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = self.window.as_ref().map_or(("", ""), |w| (&w.start, &w.end));
        let time = self.time.as_deref().unwrap_or_default();
        let module = self.module.as_deref().unwrap_or_default();
        for text in [&self.agent, &self.pipeline, &self.key] {
            write!(f, "{},", Quoted(text))?;
        }
        write!(f, "{time},{start},{end},{},{module},", Number(self.revision.map(u64::from)))?;
        for number in [self.count, self.late, self.rejected] {
            write!(f, "{},", Number(number))?;
        }
        write!(f, "{}\r\n", Quoted(self.value.get()))
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
