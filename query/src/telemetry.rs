//! The metrics of this crate.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use crate::Result;

struct Metrics {
    seconds: Histogram,
    errors: IntCounterVec,
    rows: IntCounter,
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        Ok(Self {
            seconds: Histogram::with_opts(
                HistogramOpts::new("kiro_query_seconds", "Time from a question to its last row.").buckets(buckets),
            )?,
            errors: IntCounterVec::new(Opts::new("kiro_query_errors_total", "Questions that failed, by error code."), &["code"])?,
            rows: IntCounter::new("kiro_query_rows_total", "Rows of answers.")?,
        })
    }
}

static METRICS: LazyLock<Option<Metrics>> = LazyLock::new(|| Metrics::new().ok());

/// Makes the metrics visible in a registry.
///
/// # Errors
/// [`Error::Metrics`](crate::Error::Metrics) when they are in it already.
pub fn register(registry: &Registry) -> Result<()> {
    if let Some(metrics) = &*METRICS {
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.rows.clone()))?;
    }
    Ok(())
}

/// A question was answered, or left.
pub(crate) fn answered(rows: usize, took: Duration) {
    if let Some(metrics) = &*METRICS {
        metrics.seconds.observe(took.as_secs_f64());
        metrics.rows.inc_by(rows as u64);
    }
}

/// A question failed; `code` is one of the error codes of this crate.
pub(crate) fn failed(code: &'static str) {
    if let Some(metrics) = &*METRICS {
        metrics.errors.with_label_values(&[code]).inc();
    }
}
