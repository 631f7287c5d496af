//! The routes: requests are checked and handed on, and errors become statuses.
//!
//! **Limits.** A body needs a permit before it is received, and a batch another one before it is
//! decoded. Without a permit the answer is 503 with `Retry-After`, so that many agents that come back
//! at once cost bounded memory.

mod batches;
mod counters;
mod error_response;
mod queries;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::{Collector, CollectorConfig, page};
use counters::BatchCounters;
use error_response::ErrorResponse;

/// The limits on batches in work, and the counters of batches.
#[derive(Debug)]
pub(crate) struct WorkLimits {
    bodies: Arc<Semaphore>,
    commits: Arc<Semaphore>,
    counters: BatchCounters,
}

impl WorkLimits {
    pub(crate) fn new(config: &CollectorConfig) -> Self {
        Self {
            bodies: Arc::new(Semaphore::new(config.bodies_max)),
            commits: Arc::new(Semaphore::new(config.commits_max)),
            counters: BatchCounters::default(),
        }
    }
}

pub(crate) fn router(collector: &Collector) -> Router {
    Router::new()
        .route("/v1/batches", post(batches::receive_batch))
        .route("/v1/results", get(queries::results))
        .route("/v1/agents", get(queries::agents))
        .route("/v1/reports", get(queries::reports))
        .route("/v1/late", get(queries::late))
        .route("/v1/totals", get(queries::totals))
        .route("/live", get(live))
        .route("/metrics", get(metrics))
        .merge(page::router())
        .fallback(async || ErrorResponse::new(StatusCode::NOT_FOUND, "failed to find this path"))
        .layer(map_response(set_security_headers))
        .with_state(collector.clone())
}

/// Sets headers under which a browser runs nothing of an answer but the page's own files.
async fn set_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Answers 200 if a batch could be stored.
async fn live(State(collector): State<Collector>) -> Response {
    if collector.writer.is_broken() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store is broken\n").into_response();
    }
    "live\n".into_response()
}

async fn metrics(State(collector): State<Collector>) -> Response {
    let limits = &collector.limits;
    let in_work = |max: usize, permits: &Semaphore| max.saturating_sub(permits.available_permits());
    let bodies = in_work(collector.config.bodies_max, &limits.bodies);
    let commits = in_work(collector.config.commits_max, &limits.commits);
    let text = limits.counters.encode(bodies, commits);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Returns microseconds since the Unix epoch, by this host's clock.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
