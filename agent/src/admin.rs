//! The agent's own HTTP: `/live`, `/ready`, `/metrics`, `/status`, `/dead-letters`, `/v1/reload`,
//! `/v1/pipelines/NAME/resume`.
//!
//! It only reads, mostly counters, so no request can change the way of the data, but for the replay of dead letters
//! and for what pipelines are told about their modules, which take a key. The stages that it shows are those of the
//! roster. It listens on loopback unless configured otherwise.
//!
//! **Bounds.** Answers are bounded, and so is the body of a replay, the only one read. The store is asked on one
//! thread; `/metrics` and `/status` wait for it no longer than [`STORE_ANSWER_MAX`], and `/live` and `/ready` not at
//! all, so that an agent whose disk stands still can say so.

mod letters;
mod reload;

pub use letters::{AdminKey, KEY_FILE, PAGE as DEAD_LETTERS_PAGE, ReplayAnswer, ReplayAsk, ReplayProgress};

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::audit::AuditView;
use crate::blocking::{BlockingThread, ThreadError};
use crate::metrics::Metrics;
use crate::reload::ReloadHandle;
use crate::roster::{PipelineEntry, RosterReader};
use crate::store::Store;

/// How long `/metrics` and `/status` wait for the store; then they show what is known without it.
const STORE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// The endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin(Arc<AdminState>);

/// The handles that the endpoints need.
#[derive(Debug)]
pub struct AdminParts {
    /// The agent's id.
    pub agent: String,
    /// The agent's metrics.
    pub metrics: Arc<Metrics>,
    /// The stages that run.
    pub roster: RosterReader,
    /// The outcome of the audit's last look.
    pub audit: AuditView,
    /// The store, for dead letters and for what is pending.
    pub store: Store,
    /// The key that a caller shows to change something.
    pub key: AdminKey,
    /// The way to ask for a reload.
    pub reload: ReloadHandle,
}

#[derive(Debug)]
struct AdminState {
    parts: AdminParts,
    started: Instant,
    /// For what is asked of the store.
    thread: BlockingThread,
}

impl Admin {
    /// Starts the thread that asks the store; nothing is served yet.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: AdminParts) -> Result<Self, ThreadError> {
        let thread = BlockingThread::start("admin")?;
        Ok(Self(Arc::new(AdminState { parts, started: Instant::now(), thread })))
    }

    /// Returns the agent's metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.0.parts.metrics.clone()
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// When the system no longer lets it listen.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let router = Router::new()
            .route("/live", get(live))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics_text))
            .route("/status", get(status))
            .merge(letters::routes())
            .merge(reload::routes())
            .with_state(self);
        axum::serve(listener, router).await
    }

    /// Counts what is pending, since an output's own count lags behind a commit. A store that does not answer keeps
    /// nothing from being shown.
    async fn refresh(&self) {
        let store = self.0.parts.store.clone();
        let roster = self.0.parts.roster.current();
        let refresh = self.0.thread.call(move || {
            for (name, output) in &roster.outputs {
                if let Ok(pending) = store.pending(name) {
                    output.metrics.pending_results.set(i64::try_from(pending).unwrap_or(i64::MAX));
                }
            }
        });
        match timeout(STORE_ANSWER_MAX, refresh).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::error!(reason, "failed to count what is pending"),
            Err(_) => tracing::warn!("the store did not say in time what is pending"),
        }
    }

    /// Returns the ledger of now; null when the store cannot be asked.
    async fn ledger(&self) -> Value {
        let audit = self.0.parts.audit.clone();
        let read = self.0.thread.call(move || audit.ledger().map_err(|error| error.to_string()));
        let reason = match timeout(STORE_ANSWER_MAX, read).await {
            Ok(Ok(Ok(ledger))) => return ledger,
            Ok(Ok(Err(reason)) | Err(reason)) => reason,
            Err(_) => "the store did not answer in time".to_owned(),
        };
        tracing::error!(reason, "failed to read the ledger");
        Value::Null
    }

    /// Returns the inputs that are not connected and subscribed.
    fn unready(&self) -> Vec<Arc<str>> {
        let roster = self.0.parts.roster.current();
        let apart = roster.inputs.iter().filter(|(_, input)| input.metrics.connected.get() == 0);
        apart.map(|(name, _)| name.clone()).collect()
    }
}

/// Shows progress, not presence: 503 names the stages that are stuck, and the work that waits for them.
async fn live(State(admin): State<Admin>) -> Response {
    let stuck = admin.0.parts.audit.stuck(Instant::now());
    let named = stuck.iter().map(|stuck| json!({ "stage": stuck.stage, "cause": stuck.cause }));
    answer(stuck.is_empty(), json!({ "live": stuck.is_empty(), "stuck": named.collect::<Vec<_>>() }))
}

/// Names the inputs that are not connected and subscribed, with 503.
async fn ready(State(admin): State<Admin>) -> Response {
    let unready = admin.unready();
    answer(unready.is_empty(), json!({ "ready": unready.is_empty(), "inputs_not_connected": unready }))
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    admin.refresh().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.0.parts.metrics.encode()).into_response()
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    admin.refresh().await;
    let parts = &admin.0.parts;
    let roster = parts.roster.current();
    let now = Instant::now();
    let stuck: Vec<_> = parts.audit.stuck(now).into_iter().map(|stuck| stuck.stage).collect();
    Json(json!({
        "agent": parts.agent,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": admin.0.started.elapsed().as_secs(),
        "ready": admin.unready().is_empty(),
        "stuck": stuck,
        "ledger": admin.ledger().await,
        "inputs": named(roster.inputs.iter().map(|(name, input)| (name, input.metrics.values()))),
        "pipelines": named(roster.pipelines.iter().map(|(name, pipeline)| (name, counts(pipeline)))),
        "modules": named(roster.pipelines.iter().map(|(name, pipeline)| (name, pipeline.mailbox.value(now)))),
        "outputs": named(roster.outputs.iter().map(|(name, output)| (name, output.metrics.values()))),
    }))
}

/// Returns an object with a value for each name.
fn named<'a>(values: impl Iterator<Item = (&'a Arc<str>, Value)>) -> Value {
    values.map(|(name, value)| (name.to_string(), value)).collect::<Map<_, _>>().into()
}

/// Returns the counts of a pipeline and those of its modules' calls, as one object.
fn counts(pipeline: &PipelineEntry) -> Value {
    let mut values = pipeline.metrics.values();
    if let (Value::Object(values), Value::Object(calls)) = (&mut values, pipeline.calls.values()) {
        values.extend(calls);
    }
    values
}

fn answer(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
