//! The peers of risk and gate: axum, and nothing that is not needed.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use kiro_log::{EmbeddedLog, EmbeddedOptions};
use kiro_ports::{EventLog, NewRecord, SystemClock};
use serde_json::Value;

/// The topic of the peer's log.
const TOPIC: &str = "kiro.events";

/// Reads JSON and answers it.
pub(crate) fn echo() -> Result<()> {
    serve(Router::new().route("/", post(|Json(value): Json<Value>| async move { Json(value) })))
}

/// Appends the body to an embedded log, and answers it when it is durable.
pub(crate) fn append(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(folder, EmbeddedOptions::default(), Arc::new(SystemClock))?);
    let handler = |State(log): State<Arc<dyn EventLog>>, body: Bytes| async move {
        let record = NewRecord { topic: TOPIC.to_owned(), value: body.clone(), ..NewRecord::default() };
        log.append(vec![record]).await.map(|_at| body).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
    };
    let made = Arc::clone(&log);
    runtime()?.block_on(async move { made.ensure_topic(TOPIC, 4).await })?;
    serve(Router::new().route("/", post(handler)).with_state(log))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Prints the address, then serves until it is killed.
#[expect(clippy::print_stdout, reason = "whoever started it waits for the address")]
fn serve(router: Router) -> Result<()> {
    runtime()?.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        axum::serve(listener, router).await?;
        Ok(())
    })
}
