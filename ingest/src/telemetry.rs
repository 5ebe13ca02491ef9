//! The metrics of ingest; no other file names one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use kiro_ports::{Gap, PortError};
use kiro_schemas::TopicPartition;
use kiro_schemas::names::OTHER;
use kiro_tables::Table;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tracing::{debug, error, warn};

const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Partitions with series of their own; the rest share one.
const MOST_PARTITIONS: usize = 256;

/// Counters, gauges and histograms of one engine.
#[derive(Debug, Clone)]
pub struct Telemetry {
    records: IntCounterVec,
    bytes: IntCounterVec,
    events: IntCounterVec,
    dead_letters: IntCounter,
    repeats: IntCounter,
    person_errors: IntCounter,
    lag: IntGaugeVec,
    stopped: IntGauge,
    tail_bytes: IntGauge,
    freshness: Histogram,
    commit: HistogramVec,
    rows: IntCounterVec,
    commit_errors: IntCounterVec,
    fences: IntCounterVec,
    gaps: IntCounter,
    slots: Arc<Mutex<Slots>>,
}

/// Which partitions have series of their own: those that came first. Of the rest, the lags.
#[derive(Debug, Default)]
struct Slots {
    own: BTreeSet<(String, i32)>,
    rest: BTreeMap<(String, i32), i64>,
}

impl Slots {
    fn has(&mut self, topic: &str, partition: i32) -> bool {
        let key = (topic.to_owned(), partition);
        self.own.contains(&key) || (self.own.len() < MOST_PARTITIONS && self.own.insert(key))
    }
}

impl Telemetry {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// The registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let telemetry = Self::new()?;
        let all: [Box<dyn Collector>; 15] = [
            Box::new(telemetry.records.clone()),
            Box::new(telemetry.bytes.clone()),
            Box::new(telemetry.events.clone()),
            Box::new(telemetry.dead_letters.clone()),
            Box::new(telemetry.repeats.clone()),
            Box::new(telemetry.person_errors.clone()),
            Box::new(telemetry.lag.clone()),
            Box::new(telemetry.stopped.clone()),
            Box::new(telemetry.tail_bytes.clone()),
            Box::new(telemetry.freshness.clone()),
            Box::new(telemetry.commit.clone()),
            Box::new(telemetry.rows.clone()),
            Box::new(telemetry.commit_errors.clone()),
            Box::new(telemetry.fences.clone()),
            Box::new(telemetry.gaps.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))?;
        // From zero on: what appears with its first error shows no increase, and what appears with its first commit, which a table
        // without rows has after a minute, looks like growth.
        for table in Table::all() {
            telemetry.commit.with_label_values(&[table.name]);
            telemetry.rows.with_label_values(&[table.name]);
            telemetry.commit_errors.with_label_values(&[table.name]);
            telemetry.fences.with_label_values(&[table.name]);
        }
        Ok(telemetry)
    }

    fn new() -> Result<Self, prometheus::Error> {
        const AT: &[&str] = &["topic", "partition"];
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let behind = Opts::new("kiro_ingest_lag_offsets", "Offsets of the log that are not in the view yet.");
        let fresh = seconds("kiro_ingest_freshness_seconds", "From the log's arrival time to SQL, for the oldest record of each step.");
        Ok(Self {
            records: counters("kiro_ingest_records_total", "Records that were read from the log.", AT)?,
            bytes: counters("kiro_ingest_read_bytes_total", "Bytes of the records that were read from the log.", AT)?,
            events: counters("kiro_ingest_events_total", "Events that went into the tail, by table.", &["table"])?,
            dead_letters: IntCounter::new("kiro_ingest_dead_letters_total", "Records that could not be decoded.")?,
            repeats: IntCounter::new("kiro_ingest_repeats_total", "Events that were dropped because they had come before.")?,
            person_errors: IntCounter::new(
                "kiro_ingest_person_errors_total",
                "Failures to give persons their pseudonyms; ingestion waits until it is done.",
            )?,
            lag: IntGaugeVec::new(behind, AT)?,
            stopped: IntGauge::new(
                "kiro_ingest_stopped_partitions",
                "Partitions that are stopped: a part of the log is missing, or another process commits them.",
            )?,
            tail_bytes: IntGauge::new("kiro_ingest_tail_bytes", "Memory of rows that are not in files yet.")?,
            freshness: Histogram::with_opts(fresh)?,
            commit: HistogramVec::new(
                seconds("kiro_ingest_commit_seconds", "Time of a commit, of its retries too, by table."),
                &["table"],
            )?,
            rows: counters("kiro_ingest_committed_rows_total", "Rows in commits, by table.", &["table"])?,
            commit_errors: counters("kiro_ingest_commit_errors_total", "Commits that failed, by table.", &["table"])?,
            fences: counters(
                "kiro_ingest_fences_total",
                "Commits that were refused because another process had moved the table on, by table.",
                &["table"],
            )?,
            gaps: IntCounter::new("kiro_ingest_gaps_total", "Partitions that were stopped because a part of the log is missing.")?,
            slots: Arc::default(),
        })
    }

    /// Records were read.
    pub(crate) fn records(&self, at: &TopicPartition, records: usize, bytes: usize) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let partition = at.partition.to_string();
        let labels: [&str; 2] = if slots.has(&at.topic, at.partition) { [&at.topic, &partition] } else { [OTHER, OTHER] };
        self.records.with_label_values(&labels).inc_by(records as u64);
        self.bytes.with_label_values(&labels).inc_by(bytes as u64);
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

    pub(crate) fn person_error(&self, error: &PortError) {
        self.person_errors.inc();
        warn!(%error, "persons are not given their pseudonyms; ingestion waits and tries again");
    }

    pub(crate) fn lag(&self, topic: &str, partition: i32, offsets: i64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.has(topic, partition) {
            self.lag.with_label_values(&[topic, &partition.to_string()]).set(offsets);
        } else {
            slots.rest.insert((topic.to_owned(), partition), offsets);
            self.lag.with_label_values(&[OTHER, OTHER]).set(slots.rest.values().sum());
        }
    }

    pub(crate) fn stopped(&self, partitions: usize) {
        self.stopped.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    pub(crate) fn tail(&self, bytes: usize) {
        self.tail_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn freshness(&self, seconds: f64) {
        self.freshness.observe(seconds.max(0.0));
    }

    /// A commit ended.
    pub(crate) fn committed(&self, table: &str, rows: usize, seconds: f64) {
        self.commit.with_label_values(&[table]).observe(seconds.max(0.0));
        self.rows.with_label_values(&[table]).inc_by(rows as u64);
        debug!(table, rows, seconds, "commit ended");
    }

    pub(crate) fn commit_error(&self, table: &str, error: &PortError) {
        self.commit_errors.with_label_values(&[table]).inc();
        warn!(table, %error, "commit failed; trying again");
    }

    pub(crate) fn fence(&self, table: &str, apps: &[(String, i64)]) {
        self.fences.with_label_values(&[table]).inc();
        error!(table, ?apps, "another process commits these partitions; ours start over where the tables stand");
    }

    pub(crate) fn gap(&self, gap: &Gap) {
        self.gaps.inc();
        error!(at = %gap.at, expected = gap.expected, found = gap.found, reason = gap.reason, "a part of the log is missing; partition stopped");
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
    use kiro_schemas::TopicPartition;
    use prometheus::{Registry, TextEncoder};

    use super::{MOST_PARTITIONS, Telemetry};

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

    #[test]
    fn partitions_beyond_the_bound_are_summed_up() {
        let registry = Registry::new();
        let telemetry = Telemetry::register(&registry).expect("registered");
        for partition in 0..i32::try_from(MOST_PARTITIONS).expect("small") + 3 {
            telemetry.lag("events", partition, 5);
            telemetry.lag("events", partition, 7);
            telemetry.records(&TopicPartition::new("events", partition), 2, 100);
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let series = |name: &str| text.lines().filter(|l| l.starts_with(&format!("{name}{{"))).count();
        assert_eq!(series("kiro_ingest_lag_offsets"), MOST_PARTITIONS + 1);
        for line in [
            "kiro_ingest_lag_offsets{partition=\"other\",topic=\"other\"} 21",
            "kiro_ingest_lag_offsets{partition=\"255\",topic=\"events\"} 7",
            "kiro_ingest_records_total{partition=\"other\",topic=\"other\"} 6",
            "kiro_ingest_read_bytes_total{partition=\"0\",topic=\"events\"} 100",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
