//! Pages of results.

use std::str::FromStr;

use rusqlite::{Connection, Row, ToSql};
use serde::{Deserialize, Serialize};

use super::rows::{COLUMNS, ResultRow, RetractedRow};

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
    /// As they were stored: what is new, replaced or retracted since `after` comes after it.
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

impl Cursor {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { time: row.get(3)?, change: row.get(11)? })
    }

    fn text(self, order: Order) -> String {
        match order {
            Order::Change => self.change.to_string(),
            Order::Oldest | Order::Latest => format!("{}.{}", self.time, self.change),
        }
    }
}

/// A page of results.
#[derive(Debug, Serialize)]
pub struct Page {
    /// In the order asked for.
    pub results: Vec<ResultRow>,
    /// In the order of changes what is no longer among the results; else empty.
    pub retracted: Vec<RetractedRow>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<String>,
    /// The newest change the query could see, whether it matched or not: with the order of changes,
    /// what comes later lies after this.
    pub change: i64,
}

/// Reads a page: at most `limit` rows, and no more once their values have `bytes_max` bytes.
pub(crate) fn results(store: &Connection, selection: &Selection, bytes_max: usize) -> rusqlite::Result<Page> {
    let change = store.query_row("SELECT coalesce(max(change), 0) FROM results", [], |row| row.get(0))?;
    let limit = selection.limit.min(ROWS_MAX) as usize;
    let (sql, parameters) = statement(selection);
    let mut statement = store.prepare_cached(&sql)?;
    let parameters: Vec<&dyn ToSql> = parameters.iter().map(AsRef::as_ref).collect();
    let mut rows = statement.query(&parameters[..])?;
    let (mut results, mut retracted) = (Vec::new(), Vec::new());
    let (mut bytes, mut last, mut next) = (0, None, None);
    while let Some(row) = rows.next()? {
        if results.len() + retracted.len() >= limit || bytes >= bytes_max {
            next = last;
            break;
        }
        last = Some(Cursor::read(row)?);
        if row.get(15)? {
            let row = RetractedRow::read(row)?;
            bytes += row.key.len();
            retracted.push(row);
        } else {
            let row = ResultRow::read(row)?;
            bytes += row.value.get().len() + row.key.len();
            results.push(row);
        }
    }
    let next = next.map(|next: Cursor| next.text(selection.order));
    Ok(Page { results, retracted, next, change })
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
    let stored = if selection.order == Order::Change { "" } else { " AND r.retracted = 0" };
    let text = format!(
        "SELECT {COLUMNS}
         FROM {tables} WHERE p.id = r.pipeline AND s.id = r.series AND s.pipeline = p.id{stored}{}
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
