//! `/v1/reload` and `/v1/pipelines/NAME/resume`: requests about the modules that run. A caller shows
//! the [`AdminKey`](super::AdminKey).

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::Admin;

pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/v1/reload", post(reload)).route("/v1/pipelines/{name}/resume", post(resume))
}

/// Answers 200 with the change of each pipeline, or 409 with the reason that nothing was used.
async fn reload(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Some(refused) = admin.0.parts.key.refuses(&headers) {
        return refused;
    }
    match admin.0.parts.reload.request().await {
        Some(outcome) if outcome.refused.is_none() => Json(outcome).into_response(),
        Some(outcome) => (StatusCode::CONFLICT, Json(outcome)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping").into_response(),
    }
}

async fn resume(State(admin): State<Admin>, headers: HeaderMap, Path(name): Path<String>) -> Response {
    if let Some(refused) = admin.0.parts.key.refuses(&headers) {
        return refused;
    }
    match admin.0.parts.roster.current().pipelines.get(name.as_str()) {
        Some(pipeline) => {
            pipeline.mailbox.resume();
            (StatusCode::OK, "it goes on\n").into_response()
        }
        None => (StatusCode::NOT_FOUND, format!("there is no pipeline {name:?}")).into_response(),
    }
}
