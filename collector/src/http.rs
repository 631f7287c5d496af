//! The routes: what comes in is checked and handed on, what went wrong becomes a status.
//!
//! **Limits.** A body takes a place before it is read, a batch another before it is decoded; who finds
//! none is answered 503 with `Retry-After`, so that many agents back at once cost bounded memory.

mod answer;
mod counters;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::query::{
    Agent, CSV_HEADER, LateOf, LateRow, Order, Page, ROWS_MAX, ReportRow, ReportsOf, Selection, Totals,
};
use crate::{Collector, Config, page, receive};
use answer::Refused;
use counters::Counters;
use headwater_wire::micros;

/// How long a body that has arrived waits for its turn to be decoded.
const WAIT: Duration = Duration::from_secs(1);
/// Rows of a page, and entries of a list, when the request does not say.
const LIMIT: u32 = 1000;
/// Where the next page begins: JSON says it too, CSV cannot.
const NEXT: HeaderName = HeaderName::from_static("headwater-next");

/// What bounds the work at once, and counts it.
#[derive(Debug)]
pub(crate) struct Gates {
    bodies: Arc<Semaphore>,
    commits: Arc<Semaphore>,
    counters: Counters,
}

impl Gates {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bodies: Arc::new(Semaphore::new(config.bodies_max)),
            commits: Arc::new(Semaphore::new(config.commits_max)),
            counters: Counters::default(),
        }
    }
}

pub(crate) fn router(collector: &Collector) -> Router {
    Router::new()
        .route("/v1/batches", post(batches))
        .route("/v1/results", get(results))
        .route("/v1/agents", get(agents))
        .route("/v1/reports", get(reports))
        .route("/v1/late", get(late))
        .route("/v1/totals", get(totals))
        .route("/live", get(live))
        .route("/metrics", get(metrics))
        .merge(page::router())
        .fallback(async || Refused::new(StatusCode::NOT_FOUND, "failed to find this path"))
        .layer(map_response(harden))
        .with_state(collector.clone())
}

/// Whatever an answer holds, a browser runs nothing of it but the page's own files.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn batches(State(collector): State<Collector>, headers: HeaderMap, body: Body) -> Response {
    let answer = accept(&collector, &headers, body).await;
    if let Err(refused) = &answer {
        collector.gates.counters.refused(refused);
    }
    answer.into_response()
}

async fn accept(
    collector: &Collector,
    headers: &HeaderMap,
    body: Body,
) -> Result<impl IntoResponse + use<>, Refused> {
    let gates = &collector.gates;
    let head = receive::head(&collector.config, headers)?;
    let accepted = head.key.to_string();
    let place = gates.bodies.clone().try_acquire_owned().map_err(|_| Refused::busy())?;
    let sent = receive::body(&collector.config, body).await?;
    let turn = tokio::time::timeout(WAIT, gates.commits.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(Refused::busy());
    };
    let config = collector.config.clone();
    // The work ends also when the peer goes away, so the places go with it.
    let work = move || {
        let batch = receive::batch(&config, head, sent);
        drop(place);
        (batch, turn)
    };
    let (batch, turn) = tokio::task::spawn_blocking(work).await.map_err(|_| Refused::failed())?;
    let receipt = collector.writer.commit(batch?, now()).await?;
    drop(turn);
    gates.counters.accepted(receipt.duplicate);
    Ok(Json(Receipt { accepted, watermark: receipt.watermark }))
}

#[derive(Serialize)]
struct Receipt {
    accepted: String,
    watermark: Option<u64>,
}

/// Microseconds since the Unix epoch, by this host's clock.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Results {
    agent: Option<String>,
    pipeline: Option<String>,
    key: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    order: Order,
    after: Option<String>,
    limit: Option<u32>,
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Csv,
}

async fn results(
    State(collector): State<Collector>,
    headers: HeaderMap,
    query: Result<Query<Results>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(Refused::query)?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let accepts_csv = accept.is_some_and(|accept| accept.contains("text/csv"));
    let format = query.format.unwrap_or(if accepts_csv { Format::Csv } else { Format::Json });
    let page = collector.results(query.selection()?).await?;
    let next = page.next.as_deref().and_then(|next| HeaderValue::from_str(next).ok());
    let mut response = match format {
        Format::Json => Json(page).into_response(),
        Format::Csv => csv(&page),
    };
    if let Some(next) = next {
        response.headers_mut().insert(NEXT, next);
    }
    Ok(response)
}

impl Results {
    fn selection(self) -> Result<Selection, Refused> {
        let time = |name: &str, text: Option<String>| {
            let micros = text.as_deref().map(micros).transpose();
            micros.map_err(|reason| Refused::bad(format!("failed to read {name}: {reason}")))
        };
        let after = self.after.as_deref().map(str::parse).transpose();
        Ok(Selection {
            from: time("from", self.from)?,
            to: time("to", self.to)?,
            after: after.map_err(|_| Refused::bad("failed to read after: it is no cursor".into()))?,
            limit: limit(self.limit)?,
            agent: self.agent,
            pipeline: self.pipeline,
            key: self.key,
            order: self.order,
        })
    }
}

fn limit(limit: Option<u32>) -> Result<u32, Refused> {
    match limit.unwrap_or(LIMIT) {
        limit @ 1..=ROWS_MAX => Ok(limit),
        _ => Err(Refused::bad(format!("failed to read limit: it must be 1 to {ROWS_MAX}"))),
    }
}

fn csv(page: &Page) -> Response {
    let mut text = String::from(CSV_HEADER);
    for row in &page.results {
        text.push_str(&row.to_string());
    }
    ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], text).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Agents {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct AgentList {
    agents: Vec<Agent>,
}

async fn agents(
    State(collector): State<Collector>,
    query: Result<Query<Agents>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(Refused::query)?;
    let agents = collector.agents(query.after, limit(query.limit)?).await?;
    Ok(Json(AgentList { agents }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reports {
    agent: Option<String>,
    pipeline: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct ReportList {
    reports: Vec<ReportRow>,
}

async fn reports(
    State(collector): State<Collector>,
    query: Result<Query<Reports>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(Reports { agent, pipeline, kind, after, limit: asked }) = query.map_err(Refused::query)?;
    let of = ReportsOf { agent, pipeline, kind, after, limit: limit(asked)? };
    Ok(Json(ReportList { reports: collector.reports(of).await? }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LateReadings {
    agent: Option<String>,
    pipeline: Option<String>,
    key: Option<String>,
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct LateList {
    late: Vec<LateRow>,
}

async fn late(
    State(collector): State<Collector>,
    query: Result<Query<LateReadings>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(LateReadings { agent, pipeline, key, after, limit: asked }) = query.map_err(Refused::query)?;
    let of = LateOf { agent, pipeline, key, after, limit: limit(asked)? };
    Ok(Json(LateList { late: collector.late(of).await? }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TotalsOf {
    agent: Option<String>,
    pipeline: Option<String>,
}

#[derive(Serialize)]
struct TotalsList {
    totals: Vec<Totals>,
}

async fn totals(
    State(collector): State<Collector>,
    query: Result<Query<TotalsOf>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(Refused::query)?;
    let totals = collector.totals(query.agent, query.pipeline).await?;
    Ok(Json(TotalsList { totals }).into_response())
}

/// Alive means that a batch could be stored.
async fn live(State(collector): State<Collector>) -> Response {
    if collector.writer.is_broken() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store is broken\n").into_response();
    }
    "live\n".into_response()
}

async fn metrics(State(collector): State<Collector>) -> Response {
    let gates = &collector.gates;
    let places = |all: usize, gate: &Semaphore| all.saturating_sub(gate.available_permits());
    let bodies = places(collector.config.bodies_max, &gates.bodies);
    let commits = places(collector.config.commits_max, &gates.commits);
    let text = gates.counters.encode(bodies, commits);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
