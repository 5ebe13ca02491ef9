//! The metrics of upkeep: what the tables have, and what was done to them.

use anyhow::Result;
use kiro_lake::{Deleted, Stored};
use kiro_schemas::Micros;
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use tracing::{debug, info, warn};

use super::Telemetry;

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trash {
    /// Files that no version needs.
    Data,
    /// Commits and checkpoints below a checkpoint.
    Log,
    /// What killed processes left half written.
    Staged,
    /// Tables of older versions of the folds.
    Version,
}

impl Trash {
    const ALL: [Self; 4] = [Self::Data, Self::Log, Self::Staged, Self::Version];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Log => "log",
            Self::Staged => "staged",
            Self::Version => "version",
        }
    }
}

#[derive(Debug)]
pub(super) struct Metrics {
    files: IntGaugeVec,
    bytes: IntGaugeVec,
    compactions: IntCounter,
    compacted_files: IntCounter,
    compacted_bytes: IntCounter,
    deleted_files: IntCounterVec,
    deleted_bytes: IntCounterVec,
    errors: IntCounter,
    success: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Result<Self> {
        let metrics = Self {
            files: IntGaugeVec::new(Opts::new("kiro_lake_files", "Files of the newest version of a table."), &["table"])?,
            bytes: IntGaugeVec::new(Opts::new("kiro_lake_bytes", "Bytes of these files."), &["table"])?,
            compactions: IntCounter::new("kiro_maintain_compactions_total", "Times that files were made one.")?,
            compacted_files: IntCounter::new("kiro_maintain_compacted_files_total", "Files that were made one with others.")?,
            compacted_bytes: IntCounter::new("kiro_maintain_compacted_bytes_total", "Bytes of these files.")?,
            deleted_files: IntCounterVec::new(
                Opts::new("kiro_maintain_deleted_files_total", "Files that were deleted because nobody needs them any more, by kind."),
                &["kind"],
            )?,
            deleted_bytes: IntCounterVec::new(Opts::new("kiro_maintain_deleted_bytes_total", "Bytes of these files."), &["kind"])?,
            errors: IntCounter::new("kiro_maintain_errors_total", "Times that a table could not be kept.")?,
            success: Gauge::new(
                "kiro_maintain_last_success_timestamp_seconds",
                "When all tables were kept last, in seconds since 1970; 0 in a process that does not keep them.",
            )?,
        };
        for kind in Trash::ALL {
            metrics.deleted_files.with_label_values(&[kind.as_str()]);
            metrics.deleted_bytes.with_label_values(&[kind.as_str()]);
        }
        Ok(metrics)
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<()> {
        let all: [Box<dyn Collector>; 9] = [
            Box::new(self.files.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.compactions.clone()),
            Box::new(self.compacted_files.clone()),
            Box::new(self.compacted_bytes.clone()),
            Box::new(self.deleted_files.clone()),
            Box::new(self.deleted_bytes.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.success.clone()),
        ];
        Ok(all.into_iter().try_for_each(|metric| registry.register(metric))?)
    }
}

impl Telemetry {
    /// What a table has.
    pub(crate) fn stored(&self, table: &'static str, stored: Stored) {
        let upkeep = &self.0.upkeep;
        upkeep.files.with_label_values(&[table]).set(i64::try_from(stored.files).unwrap_or(i64::MAX));
        upkeep.bytes.with_label_values(&[table]).set(i64::try_from(stored.bytes).unwrap_or(i64::MAX));
    }

    /// Files were made one.
    pub(crate) fn compacted(&self, table: &'static str, files: usize, bytes: u64) {
        let upkeep = &self.0.upkeep;
        upkeep.compactions.inc();
        upkeep.compacted_files.inc_by(files as u64);
        upkeep.compacted_bytes.inc_by(bytes);
        debug!(table, files, bytes, "files made one");
    }

    /// Files were deleted.
    pub(crate) fn deleted(&self, kind: Trash, deleted: Deleted) {
        let upkeep = &self.0.upkeep;
        upkeep.deleted_files.with_label_values(&[kind.as_str()]).inc_by(deleted.files as u64);
        upkeep.deleted_bytes.with_label_values(&[kind.as_str()]).inc_by(deleted.bytes);
        if deleted.files > 0 {
            info!(kind = kind.as_str(), files = deleted.files, bytes = deleted.bytes, "files deleted");
        }
    }

    /// A table could not be kept.
    pub(crate) fn upkeep_failed(&self, table: &'static str, error: &kiro_lake::Error) {
        self.0.upkeep.errors.inc();
        warn!(table, %error, "a table was not kept; trying again");
    }

    /// All tables were kept.
    pub(crate) fn kept(&self, now: Micros) {
        self.0.upkeep.success.set(now.seconds_since(Micros(0)));
    }
}
