//! Headwater's collector: central collection of the agents' results over HTTP.
//!
//! The way of the data, and the order of the modules below:
//!
//! ```text
//! POST /v1/batches ─► receive (decode, check) ─► commit (SQLite) ─► query ─► GET /v1/…, the page at /
//! beside the way: http (routes), serve (connections)
//! ```
//!
//! **Promise.** A batch that was answered with 2xx survives `kill -9` and power loss on a disk that
//! honours flush, and counts exactly once, however often it is sent. A crash before the answer leaves
//! either the whole batch or nothing of it; the agent sends the same bytes again.
//!
//! **Limits** are all in [`Config`]. What lies beyond one of them is refused with its status: 413 for
//! sizes, 503 with `Retry-After` for load, a closed connection for slowness.
//!
//! **Not protected**: reading. The token guards what is stored; whoever reaches the address may read.

pub mod batch;

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

pub use query::{
    Agent, Cursor, Epoch, LateOf, LateRow, Order, Page, QueryError, ROWS_MAX, ReportRow, Reported, ReportsOf,
    ResultRow, RetractedRow, Selection, Sums, Totals, Window,
};

/// Where results are kept, who may store them, and how much work there may be at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The SQLite file; made when absent, with the folder it is in.
    pub store: PathBuf,
    /// What a batch must bring as `Authorization: Bearer …`; `None` takes batches from everybody.
    pub token: Option<Token>,
    /// Bytes of a body as sent. Default 4 MiB; more is answered 413.
    pub encoded_bytes_max: usize,
    /// Bytes of a body after decompression. Default 16 MiB; more is answered 413.
    pub decoded_bytes_max: usize,
    /// Bodies received at the same time. Default 64; more are answered 503.
    pub bodies_max: usize,
    /// Batches decoded or committed at the same time. Default 8; bodies beyond wait for one second,
    /// then they are answered 503.
    pub commits_max: usize,
    /// Time for a whole body. Default 30 s; slower ones are answered 408.
    pub body_timeout: Duration,
    /// Time for a request's head, and the longest a connection may be idle. Default 60 s.
    pub head_timeout: Duration,
    /// The longest a peer may take nothing of its answer. Default 30 s, then it is disconnected.
    pub write_timeout: Duration,
    /// Open connections. Default 512; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Queries run at the same time. Default 4; more wait for one second, then they are answered 503.
    pub queries_max: usize,
    /// Time for one query. Default 5 s, then it is interrupted and answered 503.
    pub query_timeout: Duration,
    /// Bytes of values in one answer. Default 8 MiB; the rest comes with the next page.
    pub answer_bytes_max: usize,
    /// Size of the SQLite file. Default 64 GiB; batches that do not fit are answered 503.
    pub store_bytes_max: u64,
    /// Time for requests in work after the shutdown began. Default 10 s, then they are cut off.
    pub grace: Duration,
}

impl Config {
    /// The defaults, with the results in this file and without a token.
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

/// A secret; prints as `***`.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Surrounding white space is dropped: files end in a line feed. `None` when nothing is left.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty()).then(|| Self(token.to_owned()))
    }

    /// Compares digests, in a time that says nothing about where they differ.
    fn is(&self, other: &[u8]) -> bool {
        let (own, other) = (batch::digest(self.0.as_bytes()), batch::digest(other));
        own.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Why the collector could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of the store cannot be made or synced.
    #[error("failed to prepare the folder {path}: check that it exists and can be written")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite cannot use the file.
    #[error("failed to open the store {path}: it must be a writable file made by this collector")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file has a format that only a newer version knows.
    #[error(
        "failed to open the store {path}: its format is {found}, this version knows {known}; use a newer collector"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: i64,
        /// The newest format this version reads.
        known: i64,
    },
    /// The store can no longer be trusted to make batches durable: only a restart helps.
    #[error("failed to write the store, stopping: check the disk and start again")]
    Broken,
    /// A thread could not be started.
    #[error("failed to start the thread that commits")]
    Thread(#[source] std::io::Error),
}

/// The open store and what serves it. Cheap to clone; the store is closed with the last clone.
#[derive(Clone, Debug)]
pub struct Collector {
    config: Arc<Config>,
    writer: commit::Writer,
    readers: query::Readers,
    gates: Arc<http::Gates>,
}

impl Collector {
    /// Opens or creates the store, and starts the thread that commits.
    ///
    /// # Errors
    /// When the file or its folder cannot be used, or has the format of a newer version.
    pub fn open(config: Config) -> Result<Self, Error> {
        let connection = store::open(&config)?;
        let readers = query::Readers::open(&config)?;
        let writer = commit::Writer::start(connection, config.commits_max).map_err(Error::Thread)?;
        let gates = Arc::new(http::Gates::new(&config));
        Ok(Self { config: Arc::new(config), writer, readers, gates })
    }

    /// All routes, for a server of one's own. [`Collector::serve`] adds the limits on connections.
    pub fn router(&self) -> axum::Router {
        http::router(self)
    }

    /// Serves until `shutdown` resolves, then ends requests in work within the grace.
    ///
    /// # Errors
    /// [`Error::Broken`] when the store failed in a way that only a restart can mend.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        tokio::select! {
            () = serve::serve(&self.config, self.router(), listener, shutdown) => Ok(()),
            () = self.writer.broken() => Err(Error::Broken),
        }
    }

    /// Results that match, a page at a time.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn results(&self, selection: Selection) -> Result<Page, QueryError> {
        let bytes_max = self.config.answer_bytes_max;
        self.readers.read(move |store| query::results(store, &selection, bytes_max)).await
    }

    /// What came from each agent, in the order of their names: at most `limit`, those after `after`.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn agents(&self, after: String, limit: u32) -> Result<Vec<Agent>, QueryError> {
        self.readers.read(move |store| query::agents(store, &after, limit)).await
    }

    /// What agents reported as lost, dropped, merged or given up, oldest first.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn reports(&self, of: ReportsOf) -> Result<Vec<ReportRow>, QueryError> {
        let bytes_max = self.config.answer_bytes_max;
        self.readers.read(move |store| query::reports(store, &of, bytes_max)).await
    }

    /// Readings that came too late for their windows, in the order in which they were stored.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn late(&self, of: LateOf) -> Result<Vec<LateRow>, QueryError> {
        let bytes_max = self.config.answer_bytes_max;
        self.readers.read(move |store| query::late(store, &of, bytes_max)).await
    }

    /// Sums of the stored results, one entry per agent and pipeline, at most 10,000.
    ///
    /// # Errors
    /// [`QueryError`]: too many queries at once, the deadline, or SQLite.
    pub async fn totals(
        &self,
        agent: Option<String>,
        pipeline: Option<String>,
    ) -> Result<Vec<Totals>, QueryError> {
        self.readers.read(move |store| query::totals(store, agent.as_deref(), pipeline.as_deref())).await
    }
}
