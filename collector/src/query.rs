//! Reads the store: read-only connections, each query with a deadline.
//!
//! **Limits.** As many queries at once as there are connections; further ones wait for one second.
//! A query past its deadline is interrupted by SQLite itself. Answers are bounded in rows and bytes.
//! A query sees one moment of the store, and never holds up the thread that commits.

mod agents;
mod late;
mod reports;
mod results;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;

pub use agents::{Agent, Epoch, Sums, Totals};
pub(crate) use agents::{agents, totals};
pub(crate) use late::late;
pub use late::{LateOf, LateRow};
pub(crate) use reports::reports;
pub use reports::{ReportRow, Reported, ReportsOf};
pub(crate) use results::results;
pub use results::{Cursor, Order, Page, ROWS_MAX, Selection};
pub(crate) use rows::CSV_HEADER;
pub use rows::{ResultRow, RetractedRow, Window};

use crate::{Config, Error, store};

/// How long a query waits for a connection.
const WAIT: Duration = Duration::from_secs(1);
/// Steps of SQLite's machine between two looks at the clock: a fraction of a millisecond.
const STEPS: i32 = 10_000;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// As many queries as allowed are running: try again.
    #[error("failed to query: too many queries at once, try again")]
    Busy,
    /// It took longer than allowed.
    #[error("failed to query within the deadline: ask for one key, or a shorter time")]
    Deadline,
    /// SQLite said no.
    #[error("failed to query the store")]
    Store(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Deadline,
            Some(ErrorCode::DatabaseBusy) => Self::Busy,
            _ => Self::Store(error),
        }
    }
}

/// The connections that read.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    free: Arc<Semaphore>,
    connections: Arc<Mutex<Vec<Connection>>>,
    timeout: Duration,
}

impl Readers {
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let number = config.queries_max.max(1);
        let connections = (0..number).map(|_| store::open_reader(config)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            free: Arc::new(Semaphore::new(number)),
            connections: Arc::new(Mutex::new(connections)),
            timeout: config.query_timeout,
        })
    }

    /// Runs a query on a connection of its own, in one transaction.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        let place = tokio::time::timeout(WAIT, self.free.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(QueryError::Busy);
        };
        let readers = self.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut connection = readers.take().ok_or(QueryError::Busy)?;
            let answer = timed(&mut connection, readers.timeout, query);
            readers.give_back(connection);
            drop(place);
            answer
        });
        answer.await.unwrap_or(Err(QueryError::Busy))
    }

    fn take(&self) -> Option<Connection> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, connection: Connection) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

fn timed<T>(
    connection: &mut Connection,
    timeout: Duration,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, QueryError> {
    let deadline = Instant::now() + timeout;
    connection.progress_handler(STEPS, Some(move || Instant::now() > deadline))?;
    let transaction = connection.transaction()?;
    let answer = query(&transaction)?;
    // Nothing was written: there is nothing to commit, and nothing that could fail.
    drop(transaction);
    Ok(answer)
}

/// RFC 3339, UTC, with what precision it has.
fn rfc3339(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros);
    time.unwrap_or(if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX }).to_string()
}
