//! The lake of one process: the real committers, and the witness for reading.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream;
use kiro_lake::Lake;
use kiro_ports::{AnchorMap, Anchors, Commit, Committed, Offsets, PortError, RowStream, Snapshot, TableSink, TableSource};
use kiro_schemas::{FaultKind, Micros, TopicPartition};
use kiro_tables::{Table, TableName};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::super::batches;
use super::crash::{CrashPoint, Life};
use super::witness::{Version, Witness};

pub(super) fn failure(what: &str) -> PortError {
    PortError { what: what.to_owned(), kind: FaultKind::Unavailable, code: "KIR-0000", source: None }
}

#[derive(Debug)]
pub(super) struct SimSink {
    pub(super) lake: Lake,
    pub(super) life: Arc<Life>,
    pub(super) stop: CancellationToken,
    pub(super) last: Mutex<Option<TableName>>,
}

#[async_trait]
impl TableSink for SimSink {
    async fn offsets(&self, table: &'static Table) -> Result<Offsets, PortError> {
        self.life.pass(CrashPoint::StartOffsets).await;
        self.lake.offsets(table).await
    }

    async fn commit(&self, table: &'static Table, commit: Commit) -> Result<Committed, PortError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(table.name);
        if last.is_some_and(|last| last != table.name) {
            self.life.pass(CrashPoint::BetweenTables).await;
        }
        if self.stop.is_cancelled() {
            self.life.pass(CrashPoint::LastCommit).await;
        }
        let rows: usize = commit.rows.iter().map(RecordBatch::num_rows).sum();
        let moves: Vec<String> = commit.transactions.iter().map(|t| format!("{}:{}-{}", t.app, t.start, t.next)).collect();
        let outcome = self.lake.commit(table, commit).await;
        let said = outcome.as_ref().map_err(|error| error.kind);
        self.life.trace.note(format_args!("member {} commits {rows} rows {moves:?} to {}: {said:?}", self.life.member, table.name));
        self.life.pass(CrashPoint::CommitAnswered).await;
        outcome
    }
}

#[derive(Debug)]
pub(super) struct SimSource {
    witness: Arc<Witness>,
    life: Arc<Life>,
    random: Mutex<StdRng>,
}

impl SimSource {
    pub(super) fn new(witness: Arc<Witness>, life: Arc<Life>, seed: u64) -> Self {
        Self { witness, life, random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

#[async_trait]
impl TableSource for SimSource {
    /// Answers at once: it is also asked while the consumer waits for it.
    async fn snapshot(&self, table: &'static Table) -> Result<Option<Arc<dyn Snapshot>>, PortError> {
        let fails = self.random.lock().unwrap_or_else(PoisonError::into_inner).gen_bool(0.01);
        if self.life.strike(CrashPoint::BeforeSnapshot) || fails {
            return Err(failure("no snapshot now"));
        }
        Ok(self.witness.read(table).map(|version| version as Arc<dyn Snapshot>))
    }

    /// Columns that were not asked for do no harm.
    async fn stream(&self, _table: &'static Table, version: &dyn Snapshot, _columns: &[&str]) -> Result<RowStream, PortError> {
        self.life.pass(CrashPoint::StartScan).await;
        let batches = version.as_any().downcast_ref::<Version>().map_or_else(Vec::new, |version| version.batches.clone());
        Ok(Box::pin(stream::iter(batches.into_iter().map(Ok))))
    }

    async fn lookup(&self, table: &'static Table, among: &[(&str, &[String])]) -> Result<Vec<RecordBatch>, PortError> {
        self.life.pass(CrashPoint::Lookup).await;
        let all = self.witness.read(table).map_or_else(Vec::new, |version| version.batches.clone());
        Ok(all.into_iter().filter_map(|batch| batches::matching(batch, among).expect("text columns")).collect())
    }
}

/// What the processes of a world remember of the end of the audit log; one time in ten it is not to be had.
#[derive(Debug, Default)]
pub(in crate::engine) struct SimAnchors(pub(super) Mutex<AnchorMap>, AtomicU64);

#[async_trait]
impl Anchors for SimAnchors {
    async fn anchor(&self, at: &TopicPartition, offset: i64, chain: &str, _now: Micros) -> Result<(), PortError> {
        if self.1.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
            return Err(failure("no control store now"));
        }
        let mut anchors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if anchors.get(at).is_none_or(|(last, _)| *last < offset) {
            anchors.insert(at.clone(), (offset, chain.to_owned()));
        }
        Ok(())
    }

    async fn anchors(&self) -> Result<AnchorMap, PortError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
