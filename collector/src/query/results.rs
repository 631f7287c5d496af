//! Pages of results.

use std::str::FromStr;

use rusqlite::{Connection, Row, ToSql};
use serde::{Deserialize, Serialize};

use super::rows::{COLUMNS, ResultRow, RetractedRow};

/// Most rows of a page.
pub(crate) const ROWS_MAX: u32 = 10_000;

/// A query for results. A filter that is `None` lets all of them pass.
#[derive(Clone, Debug, Default)]
pub struct ResultQuery {
    /// The name of the agent.
    pub agent: Option<String>,
    /// The name of the pipeline.
    pub pipeline: Option<String>,
    /// The key.
    pub key: Option<String>,
    /// The earliest window start or event time, in microseconds since the Unix epoch.
    pub from: Option<i64>,
    /// The first window start or event time that is too late, in microseconds since the Unix epoch.
    pub to: Option<i64>,
    /// The order of the results.
    pub order: ResultOrder,
    /// The place in that order after which the answer begins.
    pub after: Option<ResultCursor>,
    /// Most rows of the answer; a number above 10,000 counts as that.
    pub limit: u32,
}

/// The order of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultOrder {
    /// By time, the earliest first.
    #[default]
    Oldest,
    /// By time, the latest first.
    Latest,
    /// By the number of their change: a reader that goes on from the last number that it has seen gets
    /// all that was stored, replaced or retracted since.
    Change,
}

/// A place in an order, written `time.change` in the orders by time and `change` in that of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultCursor {
    /// The window start or event time, in microseconds since the Unix epoch; 0 in the order of changes.
    pub time: i64,
    /// The number of the change.
    pub change: i64,
}

impl FromStr for ResultCursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, change) = text.split_once('.').unwrap_or(("0", text));
        Ok(Self { time: time.parse()?, change: change.parse()? })
    }
}

impl ResultCursor {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { time: row.get(3)?, change: row.get(11)? })
    }

    fn to_text(self, order: ResultOrder) -> String {
        match order {
            ResultOrder::Change => self.change.to_string(),
            ResultOrder::Oldest | ResultOrder::Latest => format!("{}.{}", self.time, self.change),
        }
    }
}

/// A page of results.
#[derive(Debug, Serialize)]
pub struct ResultPage {
    /// The results in the order of the query.
    pub results: Vec<ResultRow>,
    /// The windows that were retracted; empty but in the order of changes.
    pub retracted: Vec<RetractedRow>,
    /// The cursor after which the next page begins; `None` on the last page.
    pub next: Option<String>,
    /// The number of the newest change in the store, even if its result did not match. In the order of
    /// changes a reader can go on from here.
    pub change: i64,
}

/// Returns a page of at most `limit` rows, which ends once their values have `bytes_max` bytes.
pub(crate) fn results(
    store: &Connection,
    query: &ResultQuery,
    bytes_max: usize,
) -> rusqlite::Result<ResultPage> {
    let change = store.query_row("SELECT coalesce(max(change), 0) FROM results", [], |row| row.get(0))?;
    let limit = query.limit.min(ROWS_MAX) as usize;
    let (sql, parameters) = select_statement(query);
    let mut statement = store.prepare_cached(&sql)?;
    let parameters: Vec<&dyn ToSql> = parameters.iter().map(AsRef::as_ref).collect();
    let mut rows = statement.query(&parameters[..])?;
    let mut results = Vec::new();
    let mut retracted = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    let mut next = None;
    while let Some(row) = rows.next()? {
        if results.len() + retracted.len() >= limit || bytes >= bytes_max {
            next = last;
            break;
        }
        last = Some(ResultCursor::read(row)?);
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
    let next = next.map(|next: ResultCursor| next.to_text(query.order));
    Ok(ResultPage { results, retracted, next, change })
}

/// Returns the SQL of a query, and its parameters. Each form of query has an index that yields its rows
/// in order, so that a page costs only its own rows: CROSS JOIN fixes the order of the joins, INDEXED BY
/// the index.
fn select_statement(query: &ResultQuery) -> (String, Vec<Box<dyn ToSql>>) {
    let tables = match (query.order, &query.agent, &query.pipeline, &query.key) {
        (ResultOrder::Change, ..) => "results r CROSS JOIN pipelines p CROSS JOIN series s",
        (_, Some(_), Some(_), Some(_)) => {
            "pipelines p CROSS JOIN series s CROSS JOIN results r INDEXED BY by_series"
        }
        (_, Some(_), Some(_), None) => {
            "pipelines p CROSS JOIN results r INDEXED BY by_pipeline CROSS JOIN series s"
        }
        _ => "results r INDEXED BY by_start CROSS JOIN pipelines p CROSS JOIN series s",
    };
    let mut clauses = SqlClauses { sql: String::new(), parameters: Vec::new() };
    clauses.equal("p.agent", query.agent.as_ref());
    clauses.equal("p.pipeline", query.pipeline.as_ref());
    clauses.equal("s.key", query.key.as_ref());
    clauses.compare("r.start >=", query.from);
    clauses.compare("r.start <", query.to);
    let order = match (query.order, query.after) {
        (ResultOrder::Change, after) => {
            clauses.compare("r.change >", after.map(|after| after.change));
            "r.change"
        }
        (ResultOrder::Oldest, after) => {
            clauses.beyond("r.start >=", "r.start >", "r.change >", after);
            "r.start, r.change"
        }
        (ResultOrder::Latest, after) => {
            clauses.beyond("r.start <=", "r.start <", "r.change <", after);
            "r.start DESC, r.change DESC"
        }
    };
    let stored = if query.order == ResultOrder::Change { "" } else { " AND r.retracted = 0" };
    let text = format!(
        "SELECT {COLUMNS}
         FROM {tables} WHERE p.id = r.pipeline AND s.id = r.series AND s.pipeline = p.id{stored}{}
         ORDER BY {order}",
        clauses.sql
    );
    (text, clauses.parameters)
}

/// The conditions of a WHERE clause, each preceded by AND, with their parameters.
struct SqlClauses {
    sql: String,
    parameters: Vec<Box<dyn ToSql>>,
}

impl SqlClauses {
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

    /// Adds the condition that a row comes after a cursor. The comparison `indexed` follows from the
    /// others; it is there because an index can use only that one.
    fn beyond(&mut self, indexed: &str, time: &str, change: &str, after: Option<ResultCursor>) {
        if let Some(after) = after {
            self.add(indexed, after.time);
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
