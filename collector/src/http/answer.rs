//! Errors as answers: which status each has, and how an agent should go on.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::batch::BatchError;
use crate::commit::CommitError;
use crate::query::QueryError;
use crate::receive::Refusal;

/// An answer that is no success: `{"error": …}`, with the line it is about if there is one.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    error: String,
    line: Option<usize>,
    retry_after_seconds: Option<u16>,
}

impl Refused {
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
        let refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, error);
        Self { retry_after_seconds: Some(seconds), ..refused }
    }

    fn at(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Token => StatusCode::UNAUTHORIZED,
            Refusal::Key(_) | Refusal::Cut | Refusal::Decode(_) => StatusCode::BAD_REQUEST,
            Refusal::Type | Refusal::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Batch(BatchError::Malformed { .. }) => StatusCode::BAD_REQUEST,
            Refusal::Batch(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let refused = Self::new(status, refusal.to_string());
        match refusal {
            Refusal::Batch(BatchError::Malformed { line, .. } | BatchError::Agent { line }) => {
                refused.at(line)
            }
            _ => refused,
        }
    }
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        let text = error.to_string();
        match error {
            CommitError::Key => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
            CommitError::Sequence { line } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text).at(line),
            CommitError::Full(_) => Self::later(10, text),
            CommitError::Broken | CommitError::Store(_) => Self::later(5, text),
        }
    }
}

impl From<QueryError> for Refused {
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

impl IntoResponse for Refused {
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
