//! Error answers: the status of each error, and the time after which an agent should try again.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::batch::BatchError;
use crate::commit::CommitError;
use crate::query::QueryError;
use crate::receive::ReceiveError;

/// An answer that is no success: `{"error": …}`, with the number of the faulty line if there is one.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    pub(super) status: StatusCode,
    error: String,
    line: Option<usize>,
    retry_after_seconds: Option<u16>,
}

impl ErrorResponse {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), line: None, retry_after_seconds: None }
    }

    pub(super) fn bad(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn busy() -> Self {
        Self::later(1, "failed to take the request: too many in work, try again")
    }

    pub(super) fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed to handle the request")
    }

    pub(super) fn query(rejection: QueryRejection) -> Self {
        Self::bad(format!("failed to read the query: {}", rejection.body_text()))
    }

    fn later(seconds: u16, error: impl Into<String>) -> Self {
        let response = Self::new(StatusCode::SERVICE_UNAVAILABLE, error);
        Self { retry_after_seconds: Some(seconds), ..response }
    }

    fn at_line(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl std::fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl From<ReceiveError> for ErrorResponse {
    fn from(error: ReceiveError) -> Self {
        let status = match &error {
            ReceiveError::Token => StatusCode::UNAUTHORIZED,
            ReceiveError::Key(_) | ReceiveError::Cut | ReceiveError::Decode(_) => StatusCode::BAD_REQUEST,
            ReceiveError::Type | ReceiveError::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ReceiveError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ReceiveError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ReceiveError::Batch(BatchError::Malformed { .. }) => StatusCode::BAD_REQUEST,
            ReceiveError::Batch(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let response = Self::new(status, error.to_string());
        match error {
            ReceiveError::Batch(BatchError::Malformed { line, .. } | BatchError::Agent { line }) => {
                response.at_line(line)
            }
            _ => response,
        }
    }
}

impl From<CommitError> for ErrorResponse {
    fn from(error: CommitError) -> Self {
        let text = error.to_string();
        match error {
            CommitError::Key => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
            CommitError::Sequence { line } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text).at_line(line),
            CommitError::Full(_) => Self::later(10, text),
            CommitError::Broken | CommitError::Store(_) => Self::later(5, text),
        }
    }
}

impl From<QueryError> for ErrorResponse {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        match error {
            QueryError::Busy => Self::later(1, text),
            QueryError::Deadline => Self::later(5, text),
            QueryError::Store(source) => {
                tracing::error!(error = %source, "query failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let body = match self.line {
            Some(line) => json!({ "error": self.error, "line": line }),
            None => json!({ "error": self.error }),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
