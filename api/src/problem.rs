//! The one place that maps faults to HTTP: status, RFC 9457 body, `Retry-After`.

use std::any::Any;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiro_schemas::{Blame, Fault, FaultKind};
use serde::Serialize;

use crate::Error;

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

const fn status(kind: FaultKind) -> (StatusCode, &'static str) {
    match kind {
        FaultKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "the request cannot be understood"),
        FaultKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too large"),
        FaultKind::NotFound => (StatusCode::NOT_FOUND, "not found"),
        FaultKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        FaultKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "not authenticated"),
        FaultKind::Forbidden => (StatusCode::FORBIDDEN, "not permitted"),
        FaultKind::Throttled => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
        FaultKind::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "took too long"),
        FaultKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "not available right now"),
        FaultKind::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "no space left"),
        FaultKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}

fn body(status: StatusCode, title: &str, detail: &str, code: &str) -> Response {
    let problem = Problem { r#type: "about:blank", title, status: status.as_u16(), detail, code };
    let mut response = (status, axum::Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, title) = match &self {
            // It was the sender that took too long.
            Self::Slow { .. } => (StatusCode::REQUEST_TIMEOUT, "the request came too slowly"),
            _ => status(self.kind()),
        };
        let text = self.to_string();
        // What is our fault is told in the log, not to the client.
        let detail = if self.blame() == Blame::Ours { "see the server's log" } else { text.as_str() };
        if self.blame() == Blame::Ours {
            tracing::error!(code = self.code(), error = %text, "request failed");
        }
        let mut response = body(status, title, detail, self.code());
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A handler panicked: the request ends, the process goes on.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the panic layer asks for")]
pub(crate) fn of_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(panic = text.as_deref().unwrap_or("?"), "a request handler panicked");
    Error::Panicked.into_response()
}
