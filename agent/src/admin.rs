//! The agent's own HTTP: `/live`, `/ready`, `/metrics`, `/status`, `/dead-letters`, `/v1/reload`,
//! `/v1/pipelines/NAME/resume`.
//!
//! It only reads, mostly counters, so nothing it is asked can change the way of the data, except for
//! the replay of dead letters and what it is told about modules, which take a key. Answers are bounded, and
//! so is the body of a replay, the only one read. It listens on loopback unless configured otherwise.

mod letters;
mod reload;

pub use letters::{Answered, Ask, KEY_FILE, Key, PAGE as DEAD_LETTERS_PAGE, Waiting};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::audit::Verdict;
use crate::blocking::{BlockingThread, ThreadError};
use crate::config::Config;
use crate::metrics::{self, Metrics};
use crate::pipeline::Post;
use crate::reload::Door;
use crate::store::Store;

/// How long `/metrics` and `/status` wait for the store; then they show what is known without it.
const STORE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// What the endpoints show.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    agent: String,
    started: Instant,
    metrics: Arc<Metrics>,
    inputs: Vec<(String, metrics::Input)>,
    pipelines: Vec<(String, (metrics::Pipeline, metrics::CallMetrics))>,
    outputs: Vec<(String, metrics::Output)>,
    verdict: Verdict,
    store: Store,
    key: Key,
    posts: BTreeMap<String, Arc<Post>>,
    door: Door,
    /// For what is asked of the store.
    thread: BlockingThread,
}

/// What a caller who shows the key can ask for beside a replay.
#[derive(Debug)]
pub struct Told {
    /// Who may ask.
    pub key: Key,
    /// Of the pipelines, by name.
    pub posts: BTreeMap<String, Arc<Post>>,
    /// Of the configuration.
    pub door: Door,
}

impl Admin {
    /// Shows the stages of `config`.
    ///
    /// # Errors
    /// When there is no thread for what is asked of the store.
    pub fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        verdict: Verdict,
        store: Store,
        told: Told,
    ) -> Result<Self, ThreadError> {
        let Told { key, posts, door } = told;
        let (inputs, pipelines, outputs) =
            (config.inputs.keys(), config.pipelines.keys(), config.outputs.keys());
        Ok(Self(Arc::new(Shown {
            agent: config.agent.id.clone(),
            started: Instant::now(),
            inputs: inputs.map(|name| (name.clone(), metrics.input(name))).collect(),
            pipelines: pipelines
                .map(|name| (name.clone(), (metrics.pipeline(name), metrics.calls(name))))
                .collect(),
            outputs: outputs.map(|name| (name.clone(), metrics.output(name))).collect(),
            metrics,
            verdict,
            store,
            key,
            posts,
            door,
            thread: BlockingThread::start("admin")?,
        })))
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
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

    /// What is pending is the store's to say: the output's own count lags behind a commit. A store that does not
    /// answer keeps no count from being shown.
    async fn refresh(&self) {
        let admin = self.clone();
        let refresh = self.0.thread.call(move || {
            for (name, output) in &admin.0.outputs {
                if let Ok(pending) = admin.0.store.pending(name) {
                    output.pending_results.set(i64::try_from(pending).unwrap_or(i64::MAX));
                }
            }
        });
        match timeout(STORE_ANSWER_MAX, refresh).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::error!(reason, "failed to count what is pending"),
            Err(_) => tracing::warn!("the store did not say in time what is pending"),
        }
    }

    /// The ledger now; null when the store cannot be asked.
    async fn ledger(&self) -> Value {
        let verdict = self.0.verdict.clone();
        let read = self.0.thread.call(move || verdict.ledger().map_err(|error| error.to_string()));
        let reason = match timeout(STORE_ANSWER_MAX, read).await {
            Ok(Ok(Ok(ledger))) => return ledger,
            Ok(Ok(Err(reason)) | Err(reason)) => reason,
            Err(_) => "the store did not answer in time".to_owned(),
        };
        tracing::error!(reason, "failed to read the ledger");
        Value::Null
    }

    fn unready(&self) -> Vec<&str> {
        let apart = self.0.inputs.iter().filter(|(_, input)| input.connected.get() == 0);
        apart.map(|(name, _)| name.as_str()).collect()
    }
}

/// Progress, not presence: 503 names the stages that are stuck, and what waits for them.
async fn live(State(admin): State<Admin>) -> Response {
    let stuck = admin.0.verdict.stuck(Instant::now());
    let named = stuck.iter().map(|stuck| json!({ "stage": stuck.stage, "cause": stuck.cause }));
    answer(stuck.is_empty(), json!({ "live": stuck.is_empty(), "stuck": named.collect::<Vec<_>>() }))
}

/// 503 names the inputs that are not connected and subscribed.
async fn ready(State(admin): State<Admin>) -> Response {
    let unready = admin.unready();
    answer(unready.is_empty(), json!({ "ready": unready.is_empty(), "inputs_not_connected": unready }))
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    admin.refresh().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.0.metrics.encode()).into_response()
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    admin.refresh().await;
    let shown = &admin.0;
    let named = |all: Vec<(&String, Value)>| -> Value {
        all.into_iter().map(|(name, value)| (name.clone(), value)).collect::<serde_json::Map<_, _>>().into()
    };
    Json(json!({
        "agent": shown.agent,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shown.started.elapsed().as_secs(),
        "ready": admin.unready().is_empty(),
        "stuck": shown.verdict.stuck(Instant::now()).iter().map(|stuck| stuck.stage.clone()).collect::<Vec<_>>(),
        "ledger": admin.ledger().await,
        "inputs": named(shown.inputs.iter().map(|(name, input)| (name, input.values())).collect()),
        "pipelines": named(shown.pipelines.iter().map(|(name, pipeline)| (name, pipeline_values(pipeline))).collect()),
        "modules": named(shown.posts.iter().map(|(name, post)| (name, post.value(Instant::now()))).collect()),
        "outputs": named(shown.outputs.iter().map(|(name, output)| (name, output.values())).collect()),
    }))
}

/// The counts of a pipeline and those of its modules' calls, as one object.
fn pipeline_values((pipeline, calls): &(metrics::Pipeline, metrics::CallMetrics)) -> Value {
    let mut values = pipeline.values();
    if let (Value::Object(values), Value::Object(calls)) = (&mut values, calls.values()) {
        values.extend(calls);
    }
    values
}

fn answer(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
