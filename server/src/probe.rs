//! What the roles without doors for people answer: whether they live, whether they are ready, and their metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, TextEncoder};

/// What a role tells of itself.
pub(crate) trait Vital: Send + Sync + 'static {
    /// What it does, in a sentence; an error when it is not ready to.
    fn state(&self) -> Result<String, String>;
    /// Its metrics.
    fn metrics(&self) -> Vec<MetricFamily>;
}

/// What is asked of a role.
pub(crate) fn router(vital: Arc<dyn Vital>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_show))
        .route("/metrics", get(metrics_show))
        .with_state(vital)
}

async fn ready_show(State(vital): State<Arc<dyn Vital>>) -> impl IntoResponse {
    match vital.state() {
        Ok(state) => (StatusCode::OK, format!("{state}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics_show(State(vital): State<Arc<dyn Vital>>) -> impl IntoResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&vital.metrics(), &mut text) {
        Ok(()) => (StatusCode::OK, [(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string().into_bytes()),
    }
}
