//! `/v1/reload` and `/v1/pipelines/NAME/resume`: what the agent can be told about its modules. Who asks shows
//! the [`Key`](super::Key).

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::Admin;

pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/v1/reload", post(reload)).route("/v1/pipelines/{name}/resume", post(resume))
}

/// 200 says what each pipeline does about it, 409 why nothing was used.
async fn reload(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Some(refused) = admin.0.key.refuses(&headers) {
        return refused;
    }
    match admin.0.door.knock().await {
        Some(outcome) if outcome.refused.is_none() => Json(outcome).into_response(),
        Some(outcome) => (StatusCode::CONFLICT, Json(outcome)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping").into_response(),
    }
}

async fn resume(State(admin): State<Admin>, headers: HeaderMap, Path(name): Path<String>) -> Response {
    if let Some(refused) = admin.0.key.refuses(&headers) {
        return refused;
    }
    match admin.0.posts.get(&name) {
        Some(post) => {
            post.resume();
            (StatusCode::OK, "it goes on\n").into_response()
        }
        None => (StatusCode::NOT_FOUND, format!("there is no pipeline {name:?}")).into_response(),
    }
}
