//! Reads the store over read-only connections, each query with a deadline.
//!
//! **Limits.** As many queries run at once as there are connections; further ones wait for one second.
//! SQLite itself interrupts a query past its deadline. Answers are bounded in rows and bytes.
//! A query sees one moment of the store and never holds up the thread that commits.

mod agents;
mod late;
mod reports;
mod results;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;

pub(crate) use agents::{AgentSummary, agents, totals};
pub use agents::{PipelineTotals, ResultSums};
pub(crate) use late::{LateQuery, LateRow, late};
pub(crate) use reports::{ReportQuery, ReportRow, reports};
pub(crate) use results::{ROWS_MAX, results};
pub use results::{ResultCursor, ResultOrder, ResultPage, ResultQuery};
pub(crate) use rows::CSV_HEADER;
pub use rows::{ResultRow, RetractedRow, WindowBounds};

use crate::{CollectorConfig, CollectorError, store};

/// Longest time for which a query waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// Steps of SQLite's virtual machine between two reads of the clock: a fraction of a millisecond.
const STEPS_PER_CHECK: i32 = 10_000;

/// An error of a query.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// As many queries as allowed are running; the same query may succeed later.
    #[error("failed to query: too many queries at once, try again")]
    Busy,
    /// The query took longer than allowed.
    #[error("failed to query within the deadline: ask for one key, or a shorter time")]
    Deadline,
    /// SQLite returned an error.
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

/// The read-only connections to the store.
#[derive(Clone, Debug)]
pub(crate) struct ReaderPool {
    free: Arc<Semaphore>,
    connections: Arc<Mutex<Vec<Connection>>>,
    timeout: Duration,
}

impl ReaderPool {
    pub(crate) fn open(config: &CollectorConfig) -> Result<Self, CollectorError> {
        let count = config.queries_max.max(1);
        let connections = (0..count).map(|_| store::open_reader(config)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            free: Arc::new(Semaphore::new(count)),
            connections: Arc::new(Mutex::new(connections)),
            timeout: config.query_timeout,
        })
    }

    /// Runs a query in one transaction, on a connection that it has for itself.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        let permit = tokio::time::timeout(CONNECTION_WAIT, self.free.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(QueryError::Busy);
        };
        let readers = self.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut connection = readers.take().ok_or(QueryError::Busy)?;
            let answer = run_timed(&mut connection, readers.timeout, query);
            readers.put_back(connection);
            drop(permit);
            answer
        });
        answer.await.unwrap_or(Err(QueryError::Busy))
    }

    fn take(&self) -> Option<Connection> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, connection: Connection) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

fn run_timed<T>(
    connection: &mut Connection,
    timeout: Duration,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, QueryError> {
    let deadline = Instant::now() + timeout;
    connection.progress_handler(STEPS_PER_CHECK, Some(move || Instant::now() > deadline))?;
    let transaction = connection.transaction()?;
    let answer = query(&transaction)?;
    // Nothing was written, so there is nothing to commit.
    drop(transaction);
    Ok(answer)
}

/// Returns a time in microseconds since the Unix epoch as RFC 3339, UTC.
fn rfc3339(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros);
    time.unwrap_or(if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX }).to_string()
}
