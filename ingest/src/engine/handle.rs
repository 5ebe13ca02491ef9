//! The engine as others see it while it runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiro_ports::{EventLog, LogState, View, Views};
use kiro_schemas::{OffsetVector, TopicPartition};

use super::shared::Shared;

/// One partition of the log.
#[derive(Debug, Clone)]
pub struct PartitionStatus {
    /// Which.
    pub at: TopicPartition,
    /// The next offset of the view.
    pub next: i64,
    /// Everything below is in files.
    pub committed: i64,
    /// Offsets of the log that are not in the view, as of the last look.
    pub lag: i64,
    /// Why it is stopped, if it is.
    pub stopped: Option<String>,
}

/// How an engine is.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// Whether it has caught up with the log once.
    pub is_ready: bool,
    /// How the log is.
    pub log: LogState,
    /// What the view contains.
    pub vector: OffsetVector,
    /// The partitions that are read here.
    pub partitions: Vec<PartitionStatus>,
    /// Rows that are not in files.
    pub tail_rows: usize,
    /// Their memory.
    pub tail_bytes: usize,
    /// Records that could not be decoded, since the start.
    pub dead_letters: u64,
    /// Events that had come before, since the start.
    pub repeats: u64,
    /// Partitions that were stopped for a gap, since the start.
    pub gaps: u64,
}

/// Access to a running engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    log: Arc<dyn EventLog>,
}

impl EngineHandle {
    pub(super) fn new(shared: Arc<Shared>, log: Arc<dyn EventLog>) -> Self {
        Self { shared, log }
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let inner = self.shared.lock();
        let contained = inner.contained();
        let partitions = inner.partitions.iter().filter(|(_, p)| p.is_owned || p.stopped.is_some()).map(|(at, p)| {
            let next = inner.vector.next(at);
            let (committed, lag) = (contained.next(at), (p.high - next).max(0));
            PartitionStatus { at: at.clone(), next, committed, lag, stopped: p.stopped.clone() }
        });
        let telemetry = &self.shared.telemetry;
        EngineStatus {
            is_ready: self.shared.is_ready.load(Ordering::Acquire),
            log: self.log.state(),
            vector: inner.vector.clone(),
            partitions: partitions.collect(),
            tail_rows: inner.tables.iter().map(super::table::TableState::rows).sum(),
            tail_bytes: inner.bytes(),
            dead_letters: telemetry.dead_letters_total(),
            repeats: telemetry.repeats_total(),
            gaps: telemetry.gaps_total(),
        }
    }

    /// Waits until the view contains a record.
    pub async fn reached(&self, at: &TopicPartition, offset: i64) {
        let mut changes = self.shared.changes();
        while self.shared.view().vector.next(at) <= offset {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Views for EngineHandle {
    fn view(&self) -> Arc<View> {
        self.shared.view()
    }
}
