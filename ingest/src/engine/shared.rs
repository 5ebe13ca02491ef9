//! What consumer, folds, committers and handles share: the tail, and the view that is made of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use kiro_ports::{Snapshot, TableSink, TableSource, TailBatch, View};
use kiro_schemas::{OffsetVector, TopicPartition};
use kiro_tables::{Table, TableName, TableShape};
use tokio::sync::{Notify, watch};

use super::table::{Cut, Side, TableState};
use super::{EngineConfig, EngineError, EngineResult};
use crate::telemetry::Telemetry;

/// One partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Partition {
    pub(super) is_owned: bool,
    /// Counts the times that it was taken away.
    pub(super) generation: u64,
    pub(super) stopped: Option<String>,
    pub(super) is_fenced: bool,
    pub(super) high: i64,
    /// Where the log ended when it was looked at first: reached, the engine is ready.
    pub(super) goal: Option<i64>,
}

/// What the folds publish at once.
#[derive(Debug, Default)]
pub(super) struct Publication {
    /// Partition, its generation, next offset.
    pub(super) moves: Vec<(TopicPartition, u64, i64)>,
    /// Rows of events; table, generation of the partition, rows.
    pub(super) rows: Vec<(TableName, u64, TailBatch)>,
    /// Rows of the folds, when they were asked.
    pub(super) derived: Option<Vec<(TableName, TailBatch)>>,
    /// Open subjects, when they changed.
    pub(super) open: Option<Vec<(TableName, RecordBatch)>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) tables: Vec<TableState>,
    pub(super) vector: OffsetVector,
    /// What the rows of the folds in the tail have seen.
    pub(super) emitted: OffsetVector,
    pub(super) partitions: BTreeMap<TopicPartition, Partition>,
    pub(super) is_assigned: bool,
    seq: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    view: ArcSwap<View>,
    published: watch::Sender<u64>,
    pub(super) room: Notify,
    pub(super) telemetry: Telemetry,
    pub(super) is_loaded: AtomicBool,
    pub(super) is_ready: AtomicBool,
    pub(super) tail_limit: usize,
    commit_bytes: usize,
}

impl Shared {
    pub(super) async fn open(
        config: &EngineConfig,
        outputs: Vec<TableName>,
        (sink, source): (Arc<dyn TableSink>, Arc<dyn TableSource>),
        telemetry: Telemetry,
    ) -> EngineResult<Arc<Self>> {
        let mut tables = Vec::new();
        for table in Table::all() {
            let (side, commits) = match table.shape {
                TableShape::Events => (Side::Events, config.commits_events),
                TableShape::Versions if outputs.contains(&table.name) => (Side::Derived, config.commits_derived),
                TableShape::Versions => (Side::Foreign, false),
            };
            let mut state = TableState::new(table, side, commits, &config.cluster);
            if commits {
                state.stands(&sink.offsets(table).await.map_err(EngineError::port("read the offsets of a table"))?);
            }
            state.snapshot = source.snapshot(table).await.map_err(EngineError::port("read a table"))?;
            if let (false, Some(snapshot)) = (commits, state.snapshot.clone()) {
                state.stands(snapshot.offsets());
            }
            tables.push(state);
        }
        let mut inner = Inner {
            tables,
            vector: OffsetVector::default(),
            emitted: OffsetVector::default(),
            partitions: BTreeMap::new(),
            is_assigned: false,
            seq: 1,
        };
        inner.vector = inner.contained();
        let view = ArcSwap::from_pointee(inner.view());
        Ok(Arc::new(Self {
            inner: Mutex::new(inner),
            view,
            published: watch::Sender::new(0),
            room: Notify::new(),
            telemetry,
            is_loaded: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            tail_limit: config.tail_bytes,
            commit_bytes: config.commit_bytes,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Swaps the view for one of what the lock holds now.
    pub(super) fn swap(&self, inner: &Inner) {
        self.view.store(Arc::new(inner.view()));
        self.published.send_modify(|count| *count += 1);
        let bytes = inner.bytes();
        self.telemetry.tail(bytes);
        if bytes < self.tail_limit {
            self.room.notify_one();
        }
    }

    pub(super) fn publish(&self, publication: Publication) {
        let mut inner = self.lock();
        inner.take(publication);
        let crowded = inner.bytes() >= self.tail_limit / 2;
        for state in inner.tables.iter().filter(|s| s.commits && !s.entries.is_empty()) {
            if crowded || state.bytes >= self.commit_bytes {
                state.full.notify_one();
            }
        }
        self.swap(&inner);
    }

    /// Waits until the tail has room.
    pub(super) async fn has_room(&self) {
        while self.lock().bytes() >= self.tail_limit {
            self.room.notified().await;
        }
    }

    pub(super) fn cut(&self, table: usize) -> Option<Cut> {
        self.lock().cut(table)
    }

    pub(super) fn done(&self, table: usize, cut: &Cut, snapshot: Arc<dyn Snapshot>) {
        let mut inner = self.lock();
        inner.tables[table].done(cut, snapshot);
        self.swap(&inner);
    }

    pub(super) fn follow(&self, table: usize, snapshot: Arc<dyn Snapshot>) {
        let mut inner = self.lock();
        inner.tables[table].follow(snapshot);
        self.swap(&inner);
    }

    /// Somebody else moved the partition: its rows are theirs. Of a table of the folds, all of it is.
    pub(super) fn fence(&self, table: usize, apps: &[(String, i64)]) {
        let mut inner = self.lock();
        if inner.tables[table].side == Side::Derived {
            inner.tables[table].commits = false;
        } else {
            let moved: Vec<TopicPartition> = apps.iter().filter_map(|(app, _)| inner.tables[table].partition(app)).collect();
            for at in moved {
                inner.drop_rows(&at);
                let partition = inner.partitions.entry(at).or_default();
                partition.is_fenced = true;
                partition.stopped = Some("another process commits this partition".to_owned());
            }
        }
        self.swap(&inner);
    }

    pub(super) fn stop(&self, at: &TopicPartition, reason: &str) {
        self.lock().partitions.entry(at.clone()).or_default().stopped = Some(reason.to_owned());
    }

    pub(super) fn revoke(&self, partitions: &[TopicPartition]) {
        let mut inner = self.lock();
        for at in partitions {
            inner.drop_rows(at);
            let partition = inner.partitions.entry(at.clone()).or_default();
            *partition = Partition { generation: partition.generation + 1, ..Partition::default() };
        }
        self.swap(&inner);
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }
}

impl Inner {
    /// What all tables of events contain.
    pub(super) fn contained(&self) -> OffsetVector {
        let events = || self.tables.iter().filter(|s| s.side == Side::Events);
        let mut all = OffsetVector::default();
        for (at, _) in events().flat_map(|s| s.committed.iter()) {
            all.set(at.clone(), events().map(|s| s.committed.next(at)).min().unwrap_or(0));
        }
        all
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().map(|s| s.bytes).sum()
    }

    fn view(&self) -> View {
        View { vector: self.vector.clone(), tables: self.tables.iter().map(|s| (s.table.name, s.view())).collect() }
    }

    pub(super) fn generation(&self, at: &TopicPartition) -> Option<u64> {
        self.partitions.get(at).filter(|p| p.is_owned && p.stopped.is_none()).map(|p| p.generation)
    }

    fn drop_rows(&mut self, at: &TopicPartition) {
        for state in self.tables.iter_mut().filter(|s| s.side == Side::Events) {
            state.keep(|entry| entry.batch.at != *at);
        }
        let next = self.tables.iter().filter(|s| s.side == Side::Events).map(|s| s.committed.next(at)).min().unwrap_or(0);
        self.vector.set(at.clone(), next);
    }

    fn take(&mut self, publication: Publication) {
        let live = |inner: &Self, at: &TopicPartition, generation: u64| {
            inner.partitions.get(at).is_some_and(|p| p.generation == generation && !p.is_fenced)
        };
        self.seq += 1;
        for (at, generation, next) in publication.moves {
            if live(self, &at, generation) {
                self.vector.advance(&at, next);
            }
        }
        for (name, generation, batch) in publication.rows {
            if live(self, &batch.at, generation) {
                self.push(name, batch, None);
            }
        }
        if let Some(derived) = publication.derived {
            let needs = Arc::new(self.vector.clone());
            for (name, batch) in derived {
                self.push(name, batch, Some(Arc::clone(&needs)));
            }
            self.emitted = self.vector.clone();
        }
        if let Some(open) = publication.open {
            self.tables.iter_mut().for_each(|s| s.open.clear());
            for (name, rows) in open {
                if let Some(state) = self.tables.iter_mut().find(|s| s.table.name == name) {
                    state.open.push(rows);
                }
            }
        }
    }

    fn push(&mut self, name: TableName, batch: TailBatch, needs: Option<Arc<OffsetVector>>) {
        let seq = self.seq;
        if let Some(state) = self.tables.iter_mut().find(|s| s.table.name == name) {
            state.push(seq, batch, needs);
        }
    }

    fn cut(&mut self, table: usize) -> Option<Cut> {
        self.seq += 1;
        let (seq, partitions) = (self.seq, &self.partitions);
        let state = &mut self.tables[table];
        if !state.commits {
            return None;
        }
        let is_derived = state.side == Side::Derived;
        let stand = if is_derived { &self.emitted } else { &self.vector };
        state.cut(seq, stand.iter().filter(|(at, _)| is_derived || partitions.get(*at).is_some_and(|p| p.is_owned && !p.is_fenced)))
    }
}
