//! Headwater's collector: central collection of the agents' results over HTTP.
//!
//! The path of the data, which is also the order of the modules below:
//!
//! ```text
//! POST /v1/batches ─► receive (decode, check) ─► commit (SQLite) ─► query ─► GET /v1/…, the page at /
//! beside the path: http (routes), serve (connections)
//! ```
//!
//! **Promise.** A batch that was answered with 2xx survives `kill -9` and power loss on a disk that
//! honours flush, and counts exactly once, however often it is sent. A crash before the answer leaves
//! either the whole batch or nothing of it; the agent sends the same bytes again.
//!
//! **Limits** are all in [`CollectorConfig`]. A request beyond one of them is refused with its status:
//! 413 for sizes, 503 with `Retry-After` for load, a closed connection for slowness.
//!
//! **Not protected**: reading. The token guards only the storing of batches; anybody who reaches the
//! address may read.

mod batch;

mod receive;

mod commit;

mod query;

mod http;
mod page;
mod serve;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use query::{AgentSummary, LateQuery, LateRow, ReportQuery, ReportRow};
pub use query::{
    PipelineTotals, QueryError, ResultCursor, ResultOrder, ResultPage, ResultQuery, ResultRow, ResultSums,
    RetractedRow, WindowBounds,
};

/// The store's file, the token for storing batches, and the limits on the work done at the same time.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// Path of the SQLite file. The file and its folder are created if they are absent.
    pub store: PathBuf,
    /// Token that a batch must bring as `Authorization: Bearer …`; with `None` anybody may store.
    pub token: Option<BearerToken>,
    /// Most bytes of a body as sent. Default 4 MiB; a larger body is answered 413.
    pub encoded_bytes_max: usize,
    /// Most bytes of a body after decompression. Default 16 MiB; a larger body is answered 413.
    pub decoded_bytes_max: usize,
    /// Most bodies received at the same time. Default 64; further ones are answered 503.
    pub bodies_max: usize,
    /// Most batches decoded or committed at the same time. Default 8; further ones wait for one second
    /// and are then answered 503.
    pub commits_max: usize,
    /// Time in which a whole body must arrive. Default 30 s; a slower one is answered 408.
    pub body_timeout: Duration,
    /// Time in which the head of a request must arrive, which also bounds how long a connection may be
    /// idle. Default 60 s; then the connection is closed.
    pub head_timeout: Duration,
    /// Longest time for which a peer may read nothing of its answer. Default 30 s; then it is disconnected.
    pub write_timeout: Duration,
    /// Most open connections. Default 512; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Most queries run at the same time. Default 4; further ones wait for one second and are then
    /// answered 503.
    pub queries_max: usize,
    /// Longest time of one query. Default 5 s; then it is interrupted and answered 503.
    pub query_timeout: Duration,
    /// Most bytes of values in one answer. Default 8 MiB; the rest comes with the next page.
    pub answer_bytes_max: usize,
    /// Largest size of the SQLite file, in bytes. Default 64 GiB; a batch that does not fit is answered 503.
    pub store_bytes_max: u64,
    /// Time for requests in work after the shutdown began. Default 10 s; then they are cut off.
    pub grace: Duration,
}

impl CollectorConfig {
    /// Returns the default configuration, with the results in this file and without a token.
    #[must_use]
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            token: None,
            encoded_bytes_max: 4 << 20,
            decoded_bytes_max: 16 << 20,
            bodies_max: 64,
            commits_max: 8,
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            connections_max: 512,
            queries_max: 4,
            query_timeout: Duration::from_secs(5),
            answer_bytes_max: 8 << 20,
            store_bytes_max: 64 << 30,
            grace: Duration::from_secs(10),
        }
    }
}

/// The secret that a batch must bring. It prints as `***`.
#[derive(Clone)]
pub struct BearerToken(String);

impl BearerToken {
    /// Takes a token without the white space around it, since files end in a line feed. Returns `None`
    /// if nothing is left.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty()).then(|| Self(token.to_owned()))
    }

    /// Returns true if `other` is this token. Digests are compared, in a time that does not depend on
    /// the place at which they differ.
    fn matches(&self, other: &[u8]) -> bool {
        let own = batch::digest(self.0.as_bytes());
        let other = batch::digest(other);
        own.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// An error that keeps the collector from starting, or makes it stop.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The folder of the store cannot be created or synced.
    #[error("failed to prepare the folder {path}: check that it exists and can be written")]
    Folder {
        /// The path of the folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// SQLite cannot use the file.
    #[error("failed to open the store {path}: it must be a writable file made by this collector")]
    Open {
        /// The path of the file.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// The file has a format that only a newer version knows.
    #[error(
        "failed to open the store {path}: its format is {found}, this version knows {known}; use a newer collector"
    )]
    Format {
        /// The path of the file.
        path: PathBuf,
        /// The format of the file.
        found: i64,
        /// The newest format that this version reads.
        known: i64,
    },
    /// A write or sync failed, so that the store can no longer make batches durable; only a restart helps.
    #[error("failed to write the store, stopping: check the disk and start again")]
    Broken,
    /// The thread that commits could not be started.
    #[error("failed to start the thread that commits")]
    Thread(#[source] std::io::Error),
}

/// An open store with its writer and readers. It is cheap to clone; the last clone closes the store.
#[derive(Clone, Debug)]
pub struct Collector {
    config: Arc<CollectorConfig>,
    writer: commit::BatchWriter,
    readers: query::ReaderPool,
    limits: Arc<http::WorkLimits>,
}

impl Collector {
    /// Opens or creates the store, and starts the thread that commits.
    ///
    /// # Errors
    /// When the file or its folder cannot be used, or the file has the format of a newer version.
    pub fn open(config: CollectorConfig) -> Result<Self, CollectorError> {
        let connection = store::open(&config)?;
        let readers = query::ReaderPool::open(&config)?;
        let writer =
            commit::BatchWriter::start(connection, config.commits_max).map_err(CollectorError::Thread)?;
        let limits = Arc::new(http::WorkLimits::new(&config));
        Ok(Self { config: Arc::new(config), writer, readers, limits })
    }

    /// Returns all routes. [`Collector::serve`] serves them with limits on connections.
    pub(crate) fn router(&self) -> axum::Router {
        http::router(self)
    }

    /// Serves until `shutdown` resolves, then ends requests in work within the grace.
    ///
    /// # Errors
    /// [`CollectorError::Broken`] when the store failed in a way that only a restart can repair.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), CollectorError> {
        tokio::select! {
            () = serve::serve(&self.config, self.router(), listener, shutdown) => Ok(()),
            () = self.writer.broken() => Err(CollectorError::Broken),
        }
    }

    /// Returns a page of the results that match.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn results(&self, query: ResultQuery) -> Result<ResultPage, QueryError> {
        let bytes_max = self.config.answer_bytes_max;
        self.readers.read(move |store| query::results(store, &query, bytes_max)).await
    }

    /// Returns summaries of at most `limit` agents, in the order of their names, from the first after
    /// `after`.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub(crate) async fn agents(&self, after: String, limit: u32) -> Result<Vec<AgentSummary>, QueryError> {
        self.readers.read(move |store| query::agents(store, &after, limit)).await
    }

    /// Returns the agents' reports of records that were lost, dropped, coarsened or expired, in the
    /// order in which they were stored.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub(crate) async fn reports(&self, query: ReportQuery) -> Result<Vec<ReportRow>, QueryError> {
        let bytes_max = self.config.answer_bytes_max;
        self.readers.read(move |store| query::reports(store, &query, bytes_max)).await
    }

    /// Returns readings that came too late for their windows, in the order in which they were stored.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub(crate) async fn late(&self, query: LateQuery) -> Result<Vec<LateRow>, QueryError> {
        let bytes_max = self.config.answer_bytes_max;
        self.readers.read(move |store| query::late(store, &query, bytes_max)).await
    }

    /// Returns sums over the stored results: one entry for each agent and pipeline, at most 10,000.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn totals(
        &self,
        agent: Option<String>,
        pipeline: Option<String>,
    ) -> Result<Vec<PipelineTotals>, QueryError> {
        self.readers.read(move |store| query::totals(store, agent.as_deref(), pipeline.as_deref())).await
    }
}
