//! What every log does, checked against a real one. An adapter's tests build a [`Bench`] and call [`run`].

mod checks;
mod reader;

use std::sync::Arc;

use async_trait::async_trait;
use kiro_ports::{EventLog, PortError};

/// A promise that a log did not keep.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// What it did instead.
    #[error("{0}")]
    Promise(String),
    /// A call failed that had to work.
    #[error("a call failed: {0}")]
    Call(#[from] PortError),
}

/// A log with what the suite does to it from the outside.
#[async_trait]
pub trait Bench: Send {
    /// The log.
    fn log(&self) -> Arc<dyn EventLog>;
    /// Makes retention delete the first record of partition 0 of a topic, and perhaps more; it may append.
    async fn trim(&mut self, topic: &str) -> Result<(), Broken>;
    /// Closes the log and opens it again.
    async fn reopen(&mut self) -> Result<(), Broken>;
}

/// Runs all checks, each on topics whose names begin with `prefix`.
///
/// # Errors
/// The first promise that was not kept, with the name of its check.
pub async fn run(bench: &mut dyn Bench, prefix: &str) -> Result<(), Broken> {
    let named = |check: &'static str| move |broken: Broken| Broken::Promise(format!("{check}: {broken}"));
    let topic = |check: &str| format!("{prefix}.{check}");
    let log = bench.log();
    checks::unknown_topic(&log, &topic("unknown")).await.map_err(named("unknown topic"))?;
    checks::order(&log, &topic("order"), None).await.map_err(named("order"))?;
    checks::order(&log, &topic("order-group"), Some(topic("group"))).await.map_err(named("order in a group"))?;
    checks::keys(&log, &topic("keys")).await.map_err(named("keys"))?;
    checks::spread(&log, &topic("spread")).await.map_err(named("records without a key"))?;
    checks::topics(&log, &topic("topics")).await.map_err(named("several topics"))?;
    checks::shapes(&log, &topic("shapes")).await.map_err(named("headers and empty values"))?;
    checks::starts(&log, &topic("starts")).await.map_err(named("start offsets"))?;
    checks::batches(&log, &topic("batches")).await.map_err(named("size of batches"))?;
    checks::concurrent(&log, &topic("concurrent")).await.map_err(named("concurrent appends"))?;
    checks::live(&log, &topic("live")).await.map_err(named("idle, then an append"))?;
    checks::read(&log, &topic("read")).await.map_err(named("read"))?;
    checks::gap_beyond(&log, &topic("beyond")).await.map_err(named("gap beyond the high watermark"))?;
    drop(log);
    checks::gap_below(bench, &topic("below")).await.map_err(named("gap below the low watermark"))?;
    checks::durable(bench, &topic("durable")).await.map_err(named("reopen"))
}
