//! The routes by which the stored results, reports and sums are read.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use headwater_wire::micros;
use serde::{Deserialize, Serialize};

use super::error_response::ErrorResponse;
use crate::Collector;
use crate::query::{
    AgentSummary, CSV_HEADER, LateQuery, LateRow, PipelineTotals, ROWS_MAX, ReportQuery, ReportRow,
    ResultOrder, ResultPage, ResultQuery,
};

/// Number of rows or entries in an answer if the request does not say.
const LIMIT_DEFAULT: u32 = 1000;
/// Header with the place at which the next page begins. JSON has it in the body too, CSV cannot.
const NEXT_HEADER: HeaderName = HeaderName::from_static("headwater-next");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultParameters {
    agent: Option<String>,
    pipeline: Option<String>,
    key: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    order: ResultOrder,
    after: Option<String>,
    limit: Option<u32>,
    format: Option<ResultFormat>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResultFormat {
    Json,
    Csv,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentParameters {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct AgentList {
    agents: Vec<AgentSummary>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportParameters {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LateParameters {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TotalsParameters {
    agent: Option<String>,
    pipeline: Option<String>,
}

#[derive(Serialize)]
struct TotalsList {
    totals: Vec<PipelineTotals>,
}

pub(super) async fn results(
    State(collector): State<Collector>,
    headers: HeaderMap,
    parameters: Result<Query<ResultParameters>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let Query(parameters) = parameters.map_err(ErrorResponse::query)?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let accepts_csv = accept.is_some_and(|accept| accept.contains("text/csv"));
    let format =
        parameters.format.unwrap_or(if accepts_csv { ResultFormat::Csv } else { ResultFormat::Json });
    let page = collector.results(parameters.into_query()?).await?;
    let next = page.next.as_deref().and_then(|next| HeaderValue::from_str(next).ok());
    let mut response = match format {
        ResultFormat::Json => Json(page).into_response(),
        ResultFormat::Csv => csv_response(&page),
    };
    if let Some(next) = next {
        response.headers_mut().insert(NEXT_HEADER, next);
    }
    Ok(response)
}

impl ResultParameters {
    fn into_query(self) -> Result<ResultQuery, ErrorResponse> {
        let time = |name: &str, text: Option<String>| {
            let micros = text.as_deref().map(micros).transpose();
            micros.map_err(|reason| ErrorResponse::bad(format!("failed to read {name}: {reason}")))
        };
        let after = self.after.as_deref().map(str::parse).transpose();
        Ok(ResultQuery {
            from: time("from", self.from)?,
            to: time("to", self.to)?,
            after: after.map_err(|_| ErrorResponse::bad("failed to read after: it is no cursor".into()))?,
            limit: checked_limit(self.limit)?,
            agent: self.agent,
            pipeline: self.pipeline,
            key: self.key,
            order: self.order,
        })
    }
}

fn checked_limit(limit: Option<u32>) -> Result<u32, ErrorResponse> {
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=ROWS_MAX => Ok(limit),
        _ => Err(ErrorResponse::bad(format!("failed to read limit: it must be 1 to {ROWS_MAX}"))),
    }
}

fn csv_response(page: &ResultPage) -> Response {
    let mut text = String::from(CSV_HEADER);
    for row in &page.results {
        text.push_str(&row.to_string());
    }
    ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], text).into_response()
}

pub(super) async fn agents(
    State(collector): State<Collector>,
    parameters: Result<Query<AgentParameters>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let Query(parameters) = parameters.map_err(ErrorResponse::query)?;
    let agents = collector.agents(parameters.after, checked_limit(parameters.limit)?).await?;
    Ok(Json(AgentList { agents }).into_response())
}

pub(super) async fn reports(
    State(collector): State<Collector>,
    parameters: Result<Query<ReportParameters>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let Query(parameters) = parameters.map_err(ErrorResponse::query)?;
    let limit = checked_limit(parameters.limit)?;
    let ReportParameters { agent, pipeline, kind, after, .. } = parameters;
    let reports = collector.reports(ReportQuery { agent, pipeline, kind, after, limit }).await?;
    Ok(Json(ReportList { reports }).into_response())
}

pub(super) async fn late(
    State(collector): State<Collector>,
    parameters: Result<Query<LateParameters>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let Query(parameters) = parameters.map_err(ErrorResponse::query)?;
    let limit = checked_limit(parameters.limit)?;
    let LateParameters { agent, pipeline, key, after, .. } = parameters;
    let late = collector.late(LateQuery { agent, pipeline, key, after, limit }).await?;
    Ok(Json(LateList { late }).into_response())
}

pub(super) async fn totals(
    State(collector): State<Collector>,
    parameters: Result<Query<TotalsParameters>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let Query(parameters) = parameters.map_err(ErrorResponse::query)?;
    let totals = collector.totals(parameters.agent, parameters.pipeline).await?;
    Ok(Json(TotalsList { totals }).into_response())
}
