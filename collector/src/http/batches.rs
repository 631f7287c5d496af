//! The route by which agents send batches.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error_response::ErrorResponse;
use super::now;
use crate::{Collector, receive};

/// Longest time for which a received body waits for a permit to be decoded.
const COMMIT_WAIT: Duration = Duration::from_secs(1);

/// The answer to a stored batch.
#[derive(Serialize)]
struct ReceiptBody {
    accepted: String,
    watermark: Option<u64>,
}

pub(super) async fn receive_batch(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = store_batch(&collector, &headers, body).await;
    if let Err(error) = &answer {
        collector.limits.counters.count_refused(error);
    }
    answer.into_response()
}

async fn store_batch(
    collector: &Collector,
    headers: &HeaderMap,
    body: Body,
) -> Result<impl IntoResponse + use<>, ErrorResponse> {
    let limits = &collector.limits;
    let head = receive::read_head(&collector.config, headers)?;
    let accepted = head.key.to_string();
    let body_permit = limits.bodies.clone().try_acquire_owned().map_err(|_| ErrorResponse::busy())?;
    let sent = receive::receive_body(&collector.config, body).await?;
    let commit_permit = tokio::time::timeout(COMMIT_WAIT, limits.commits.clone().acquire_owned()).await;
    let Ok(Ok(commit_permit)) = commit_permit else {
        return Err(ErrorResponse::busy());
    };
    let config = collector.config.clone();
    // The work goes on when the peer disconnects, so it holds the permits itself.
    let work = move || {
        let batch = receive::decode_batch(&config, head, sent);
        drop(body_permit);
        (batch, commit_permit)
    };
    let work = tokio::task::spawn_blocking(work).await;
    let (batch, commit_permit) = work.map_err(|_| ErrorResponse::failed())?;
    let receipt = collector.writer.commit(batch?, now()).await?;
    drop(commit_permit);
    limits.counters.count_accepted(receipt.duplicate);
    Ok(Json(ReceiptBody { accepted, watermark: receipt.watermark }))
}
