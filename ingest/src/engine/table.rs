//! One table in the engine: where it stands, and the part of its tail.

use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_ports::{Commit, Offsets, Snapshot, TableView, TailBatch, Transaction};
use kiro_schemas::{OffsetVector, TopicPartition};
use kiro_tables::Table;
use tokio::sync::Notify;

use super::batches;

/// Small batches of a partition are merged up to this many rows.
const MERGE_ROWS: usize = 8_192;

/// Who fills a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Records of the log, one by one.
    Events,
    /// The folds.
    Derived,
    /// Somebody else.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) batch: Arc<TailBatch>,
    /// What a snapshot must contain to have the rows: the vector that the folds had seen.
    needs: Option<Arc<OffsetVector>>,
    bytes: usize,
}

/// A part of a table to be committed.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) commit: Commit,
    pub(super) moves: Vec<(TopicPartition, i64)>,
    seq: u64,
}

#[derive(Debug)]
pub(super) struct TableState {
    pub(super) table: &'static Table,
    pub(super) side: Side,
    pub(super) commits: bool,
    pub(super) committed: OffsetVector,
    pub(super) snapshot: Option<Arc<dyn Snapshot>>,
    pub(super) entries: Vec<Entry>,
    pub(super) open: Vec<RecordBatch>,
    pub(super) full: Arc<Notify>,
    pub(super) bytes: usize,
    sealed: u64,
    prefix: String,
}

impl TableState {
    pub(super) fn new(table: &'static Table, side: Side, commits: bool, cluster: &str) -> Self {
        let prefix = if side == Side::Derived { format!("kiro/{cluster}/fold/") } else { format!("kiro/{cluster}/") };
        Self {
            table,
            side,
            commits,
            committed: OffsetVector::default(),
            snapshot: None,
            entries: Vec::new(),
            open: Vec::new(),
            full: Arc::default(),
            bytes: 0,
            sealed: 0,
            prefix,
        }
    }

    pub(super) fn app(&self, at: &TopicPartition) -> String {
        format!("{}{}/{}", self.prefix, at.topic, at.partition)
    }

    /// The partition of an application id, if it is one of this table's.
    pub(super) fn partition(&self, app: &str) -> Option<TopicPartition> {
        let (topic, partition) = app.strip_prefix(&self.prefix)?.rsplit_once('/')?;
        (!topic.contains('/')).then_some(())?;
        Some(TopicPartition::new(topic, partition.parse().ok()?))
    }

    pub(super) fn stands(&mut self, offsets: &Offsets) {
        self.committed = offsets.iter().filter_map(|(app, next)| Some((self.partition(app)?, *next))).collect();
    }

    pub(super) fn push(&mut self, seq: u64, batch: TailBatch, needs: Option<Arc<OffsetVector>>) {
        let batch = match batches::compact(std::slice::from_ref(&batch.rows)) {
            Ok(rows) => TailBatch { rows, ..batch },
            Err(_) => batch,
        };
        let bytes = batch.rows.get_array_memory_size();
        self.bytes += bytes;
        self.entries.push(Entry { seq, batch: Arc::new(batch), needs, bytes });
        while self.merge_last() {}
    }

    /// Merges the last batch into an earlier one of its partition that is not much larger.
    fn merge_last(&mut self) -> bool {
        let Some((last, before)) = self.entries.split_last() else { return false };
        let Some(at) = before.iter().rposition(|e| e.seq >= self.sealed && e.batch.at == last.batch.at) else { return false };
        let (first, rows) = (&before[at].batch, last.batch.rows.num_rows());
        if first.rows.num_rows() > 2 * rows || first.rows.num_rows() + rows > MERGE_ROWS {
            return false;
        }
        let Ok(merged) = batches::compact(&[first.rows.clone(), last.batch.rows.clone()]) else { return false };
        let (start, freed) = (first.start.min(last.batch.start), before[at].bytes);
        self.entries.remove(at);
        let Some(last) = self.entries.last_mut() else { return false };
        let bytes = merged.get_array_memory_size();
        self.bytes = (self.bytes + bytes).saturating_sub(freed + last.bytes);
        let batch = &last.batch;
        last.batch = Arc::new(TailBatch { at: batch.at.clone(), start, next: batch.next, rows: merged });
        last.bytes = bytes;
        true
    }

    /// What can be committed now, given where the table's rows stand.
    pub(super) fn cut<'p>(&mut self, seq: u64, stand: impl Iterator<Item = (&'p TopicPartition, i64)>) -> Option<Cut> {
        let moves: Vec<(TopicPartition, i64)> =
            stand.filter(|(at, next)| *next > self.committed.next(at)).map(|(at, next)| (at.clone(), next)).collect();
        if moves.is_empty() && (self.entries.is_empty() || self.side == Side::Derived) {
            return None;
        }
        self.sealed = seq;
        let transactions =
            moves.iter().map(|(at, next)| Transaction { app: self.app(at), start: self.committed.next(at), next: *next }).collect();
        let rows = self.entries.iter().map(|e| e.batch.rows.clone()).collect();
        Some(Cut { commit: Commit { rows, transactions }, moves, seq })
    }

    /// A commit is in the table and in this snapshot.
    pub(super) fn done(&mut self, cut: &Cut, snapshot: Arc<dyn Snapshot>) {
        for (at, next) in &cut.moves {
            self.committed.advance(at, *next);
        }
        self.keep(|entry| entry.seq >= cut.seq);
        self.snapshot = Some(snapshot);
    }

    pub(super) fn keep(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(keep);
        self.bytes = self.entries.iter().map(|e| e.bytes).sum();
    }

    /// Somebody else committed: what the snapshot has leaves the tail.
    pub(super) fn follow(&mut self, snapshot: Arc<dyn Snapshot>) {
        self.stands(snapshot.offsets());
        self.snapshot = Some(snapshot);
        let committed = self.committed.clone();
        self.keep(|entry| match &entry.needs {
            Some(needs) => !committed.covers(needs),
            None => entry.batch.next > committed.next(&entry.batch.at),
        });
        for entry in self.entries.iter_mut().filter(|e| e.needs.is_none()) {
            let from = committed.next(&entry.batch.at);
            if from > entry.batch.start
                && let Ok(rows) = batches::rows_from(&entry.batch.rows, from)
            {
                let (at, next) = (entry.batch.at.clone(), entry.batch.next);
                entry.batch = Arc::new(TailBatch { at, start: from, next, rows });
            }
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.entries.iter().map(|e| e.batch.rows.num_rows()).sum()
    }

    pub(super) fn view(&self) -> TableView {
        TableView {
            snapshot: self.snapshot.clone(),
            tail: self.entries.iter().map(|e| Arc::clone(&e.batch)).collect(),
            open: self.open.clone(),
        }
    }
}
