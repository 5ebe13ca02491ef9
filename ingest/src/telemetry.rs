//! The metrics of ingest; no other file names one.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Counters, gauges and histograms of one engine.
#[derive(Debug, Clone)]
pub struct Telemetry {
    events: IntCounterVec,
    dead_letters: IntCounter,
    repeats: IntCounter,
    lag: IntGaugeVec,
    tail_bytes: IntGauge,
    freshness: Histogram,
    commit: Histogram,
    commit_errors: IntCounterVec,
    gaps: IntCounter,
}

impl Telemetry {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// The registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str| Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()));
        let telemetry = Self {
            events: IntCounterVec::new(Opts::new("kiro_ingest_events_total", "Events that went into the tail, by table."), &["table"])?,
            dead_letters: IntCounter::new("kiro_ingest_dead_letters_total", "Records that could not be decoded.")?,
            repeats: IntCounter::new("kiro_ingest_repeats_total", "Events that were dropped because they had come before.")?,
            lag: IntGaugeVec::new(
                Opts::new("kiro_ingest_lag_offsets", "Offsets of the log that are not in the view yet."),
                &["topic", "partition"],
            )?,
            tail_bytes: IntGauge::new("kiro_ingest_tail_bytes", "Memory of rows that are not in files yet.")?,
            freshness: histogram("kiro_ingest_freshness_seconds", "From the log's arrival time to the view.")?,
            commit: histogram("kiro_ingest_commit_seconds", "Time of a commit, of its retries too.")?,
            commit_errors: IntCounterVec::new(Opts::new("kiro_ingest_commit_errors_total", "Commits that failed, by table."), &["table"])?,
            gaps: IntCounter::new("kiro_ingest_gaps_total", "Partitions that were stopped because a part of the log is missing.")?,
        };
        let all: [Box<dyn Collector>; 9] = [
            Box::new(telemetry.events.clone()),
            Box::new(telemetry.dead_letters.clone()),
            Box::new(telemetry.repeats.clone()),
            Box::new(telemetry.lag.clone()),
            Box::new(telemetry.tail_bytes.clone()),
            Box::new(telemetry.freshness.clone()),
            Box::new(telemetry.commit.clone()),
            Box::new(telemetry.commit_errors.clone()),
            Box::new(telemetry.gaps.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))?;
        Ok(telemetry)
    }

    pub(crate) fn events(&self, table: &str, rows: usize) {
        self.events.with_label_values(&[table]).inc_by(u64::try_from(rows).unwrap_or(0));
    }

    pub(crate) fn dead_letter(&self) {
        self.dead_letters.inc();
    }

    pub(crate) fn repeat(&self) {
        self.repeats.inc();
    }

    pub(crate) fn lag(&self, topic: &str, partition: i32, offsets: i64) {
        self.lag.with_label_values(&[topic, &partition.to_string()]).set(offsets);
    }

    pub(crate) fn tail(&self, bytes: usize) {
        self.tail_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn freshness(&self, seconds: f64) {
        self.freshness.observe(seconds.max(0.0));
    }

    pub(crate) fn commit(&self, seconds: f64) {
        self.commit.observe(seconds.max(0.0));
    }

    pub(crate) fn commit_error(&self, table: &str) {
        self.commit_errors.with_label_values(&[table]).inc();
    }

    pub(crate) fn gap(&self) {
        self.gaps.inc();
    }

    /// Records that could not be decoded, so far.
    #[must_use]
    pub fn dead_letters_total(&self) -> u64 {
        self.dead_letters.get()
    }

    /// Events that were dropped as repeats, so far.
    #[must_use]
    pub fn repeats_total(&self) -> u64 {
        self.repeats.get()
    }

    /// Partitions that were stopped, so far.
    #[must_use]
    pub fn gaps_total(&self) -> u64 {
        self.gaps.get()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::Telemetry;

    #[test]
    fn a_registry_takes_the_metrics_once() {
        let registry = Registry::new();
        let telemetry = Telemetry::register(&registry).expect("registered");
        telemetry.events("changes_events", 3);
        telemetry.repeat();
        assert!(Telemetry::register(&registry).is_err());
        let names: Vec<String> = registry.gather().iter().map(|f| f.name().to_owned()).collect();
        assert!(names.iter().all(|n| n.starts_with("kiro_ingest_")), "{names:?}");
        assert!(names.contains(&"kiro_ingest_events_total".to_owned()));
    }
}
