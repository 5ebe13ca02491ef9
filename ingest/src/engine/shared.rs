//! What consumer, folds, committers and handles share: the tail, and the view that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use futures::future::try_join_all;
use kiro_ports::{Commit, Committed, Offsets, Snapshot, TableSink, TableSource, TableView, TailBatch, Transaction, View};
use kiro_schemas::{OffsetVector, TopicPartition, invariant};
use kiro_tables::{Table, TableName, TableShape};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

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
    /// What the folds contained when they were loaded, of one table or another: these do not end at one place.
    loaded: OffsetVector,
    pub(super) partitions: BTreeMap<TopicPartition, Partition>,
    /// Topics whose partitions were not assigned yet.
    awaited: BTreeSet<String>,
    seq: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    view: ArcSwap<View>,
    published: watch::Sender<u64>,
    /// Cancelled when another process commits what the folds of this one derive.
    pub(super) lost: CancellationToken,
    pub(super) telemetry: Telemetry,
    pub(super) is_loaded: AtomicBool,
    pub(super) is_ready: AtomicBool,
    /// How often a person was forgotten, as of the last look.
    pub(super) forgotten: AtomicI64,
    pub(super) tail_limit: usize,
    #[cfg(test)]
    pub(super) watcher: std::sync::OnceLock<super::tests::Watcher>,
    commit_bytes: usize,
}

impl Shared {
    pub(super) async fn open(
        config: &EngineConfig,
        outputs: Vec<TableName>,
        (sink, source): (Arc<dyn TableSink>, Arc<dyn TableSource>),
        telemetry: Telemetry,
    ) -> EngineResult<Arc<Self>> {
        let open = |table: &'static Table| {
            let (side, commits) = match table.shape {
                TableShape::Events => (Side::Events, config.commits_events),
                TableShape::Versions if outputs.contains(&table.name) => (Side::Derived, config.commits_derived),
                TableShape::Versions => (Side::Foreign, false),
            };
            open_table(TableState::new(table, side, commits, config), sink.as_ref(), source.as_ref())
        };
        // All at once: a store that is slow is waited for once.
        let mut tables = try_join_all(Table::all().iter().map(open)).await?;
        place_newcomers(&mut tables, sink.as_ref(), source.as_ref()).await?;
        let mut inner = Inner {
            tables,
            vector: OffsetVector::default(),
            emitted: OffsetVector::default(),
            loaded: OffsetVector::default(),
            partitions: BTreeMap::new(),
            awaited: config.topics.iter().chain(&config.history).cloned().collect(),
            seq: 1,
        };
        inner.vector = inner.contained();
        inner.loaded = inner.reached();
        let view = ArcSwap::from_pointee(inner.view());
        Ok(Arc::new(Self {
            inner: Mutex::new(inner),
            view,
            published: watch::Sender::new(0),
            lost: CancellationToken::new(),
            telemetry,
            is_loaded: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            forgotten: AtomicI64::new(0),
            tail_limit: config.tail_bytes,
            #[cfg(test)]
            watcher: std::sync::OnceLock::new(),
            commit_bytes: config.commit_bytes,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of a table that is shown.
    pub(super) fn shown(&self, table: &Table) -> Option<Arc<dyn Snapshot>> {
        self.lock().tables.iter().find(|s| s.table.name == table.name).and_then(|s| s.snapshot.clone())
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Swaps the view for one of what the lock holds now.
    pub(super) fn swap(&self, inner: &Inner) {
        invariant!(ViewIsDisjoint, inner.tables.iter().all(TableState::is_disjoint));
        let view = Arc::new(inner.view());
        #[cfg(test)]
        if let Some(watcher) = self.watcher.get() {
            watcher.look(&view);
        }
        self.view.store(view);
        self.published.send_modify(|count| *count += 1);
        self.telemetry.tail(inner.bytes());
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

    /// Waits until the tail has room below a limit.
    pub(super) async fn has_room(&self, limit: usize) {
        let mut changes = self.changes();
        while self.lock().bytes() >= limit && changes.changed().await.is_ok() {}
    }

    pub(super) fn cut(&self, table: usize) -> Option<Cut> {
        self.lock().cut(table)
    }

    pub(super) fn done(&self, table: usize, cut: &Cut, snapshot: Arc<dyn Snapshot>) {
        let mut inner = self.lock();
        inner.tables[table].done(cut, snapshot);
        self.swap(&inner);
    }

    /// Takes a version that others committed, once all that it contains has been seen here: a view is of one vector. When
    /// the tail is crowded it is taken in any case, since else there might never be room to get that far. Of a table that we
    /// commit it is taken when only files changed: what our commits add comes with their own snapshots.
    pub(super) fn follow_seen(&self, table: usize, snapshot: Arc<dyn Snapshot>) {
        let is_due = {
            let inner = self.lock();
            let state = &inner.tables[table];
            let is_crowded = || inner.bytes() >= self.tail_limit / 2;
            if state.commits { state.has_all(snapshot.offsets()) } else { inner.has_seen(table, snapshot.offsets()) || is_crowded() }
        };
        if is_due {
            self.follow(vec![(table, snapshot)]);
        }
    }

    pub(super) fn follow(&self, snapshots: Vec<(usize, Arc<dyn Snapshot>)>) {
        let mut inner = self.lock();
        for (table, snapshot) in snapshots {
            inner.tables[table].follow(snapshot);
        }
        self.swap(&inner);
    }

    /// Somebody else moved the partition: its rows are theirs. Of the folds, all is, and this engine ends.
    pub(super) fn fence(&self, table: usize, apps: &[(String, i64)]) {
        let mut inner = self.lock();
        if inner.tables[table].side == Side::Derived {
            inner.tables.iter_mut().filter(|s| s.side == Side::Derived).for_each(|s| s.commits = false);
            self.lost.cancel();
        } else {
            inner.tables[table].learn_gaps(apps);
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

    /// The partitions of these topics that are read here, if one of them was moved by somebody else.
    pub(super) fn fenced(&self, topics: &[String]) -> Option<Vec<TopicPartition>> {
        let inner = self.lock();
        let owned = || inner.partitions.iter().filter(|(at, p)| p.is_owned && topics.iter().any(|topic| *topic == *at.topic));
        owned().any(|(_, p)| p.is_fenced).then(|| owned().map(|(at, _)| at.clone()).collect())
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

/// Reads where a table stands.
async fn open_table(mut state: TableState, sink: &dyn TableSink, source: &dyn TableSource) -> EngineResult<TableState> {
    let table = state.table;
    if state.commits {
        take_over(&state, sink).await?;
        state.stands(&sink.offsets(table).await.map_err(EngineError::port("read the offsets of a table"))?);
    }
    state.snapshot = source.snapshot(table).await.map_err(EngineError::port("read a table"))?;
    if let (false, Some(snapshot)) = (state.commits, state.snapshot.clone()) {
        state.stands(snapshot.offsets());
    }
    Ok(state)
}

/// Gives tables that came with a newer program their place: where the others stand. Of what these contain no row is missing
/// in a new table, for no program knew of it; without a place the whole log would be read again for its sake.
async fn place_newcomers(tables: &mut [TableState], sink: &dyn TableSink, source: &dyn TableSource) -> EngineResult<()> {
    let failed = || EngineError::port("give a new table its place");
    let newcomers = sink.newcomers().await.map_err(failed())?;
    if newcomers.is_empty() {
        return Ok(());
    }
    let is_new = |state: &TableState| newcomers.contains(&state.table.name);
    let contained = contained(&|| tables.iter().filter(|s| s.side == Side::Events && !is_new(s)));
    for state in tables.iter_mut().filter(|s| s.side == Side::Events && is_new(s)) {
        if !state.commits {
            // Who commits it writes it down.
            contained.iter().for_each(|(at, next)| state.committed.advance(at, next));
            continue;
        }
        let missing = contained.iter().filter(|(at, _)| state.committed.get(at).is_none());
        let transactions: Vec<_> = missing.map(|(at, next)| Transaction { app: state.app(at), start: 0, next }).collect();
        if transactions.is_empty() {
            continue;
        }
        // Where another member was first, it stands where that one put it.
        match sink.commit(state.table, Commit { rows: Vec::new(), transactions }).await.map_err(failed())? {
            Committed::Done(version) => info!(table = state.table.name, ?version, "a new table begins where the others stand"),
            Committed::Fenced(_) => {}
        }
        state.stands(&sink.offsets(state.table).await.map_err(failed())?);
        state.snapshot = source.snapshot(state.table).await.map_err(failed())?;
    }
    if tables.iter().any(|state| state.side == Side::Events && state.commits) {
        sink.settle().await.map_err(failed())?;
    }
    Ok(())
}

/// What all of these tables contain.
fn contained<'t, I: Iterator<Item = &'t TableState>>(tables: &dyn Fn() -> I) -> OffsetVector {
    let mut all = OffsetVector::default();
    for (at, _) in tables().flat_map(|s| s.committed.iter()) {
        all.set(at.clone(), tables().map(|s| s.committed.next(at)).min().unwrap_or(0));
    }
    all
}

/// Makes a table of the folds ours: from then on the owner before is fenced, whatever it still wants to write.
async fn take_over(state: &TableState, sink: &dyn TableSink) -> EngineResult<()> {
    let table = state.table;
    let fenced = |epoch| EngineError::Fenced { table: table.name, epoch };
    let offsets = sink.offsets(table).await.map_err(EngineError::port("read the offsets of a table"))?;
    let Some(transaction) = state.takeover(&offsets).map_err(fenced)? else { return Ok(()) };
    let commit = Commit { rows: Vec::new(), transactions: vec![transaction] };
    match sink.commit(table, commit).await.map_err(EngineError::port("take over a table"))? {
        Committed::Done(_) => Ok(()),
        Committed::Fenced(moved) => Err(fenced(moved.first().map_or(0, |(_, epoch)| *epoch))),
    }
}

impl Inner {
    /// What all tables of events contain.
    pub(super) fn contained(&self) -> OffsetVector {
        contained(&|| self.tables.iter().filter(|s| s.side == Side::Events))
    }

    /// Whether a table has heard of the partition.
    pub(super) fn is_seen(&self, at: &TopicPartition) -> bool {
        self.tables.iter().any(|s| s.side == Side::Events && s.committed.get(at).is_some())
    }

    pub(super) fn assigned(&mut self, topics: &[String]) {
        for topic in topics {
            self.awaited.remove(topic);
        }
    }

    /// Whether it is not known yet which partitions of the topic are read here.
    pub(super) fn is_awaited(&self, topic: &str) -> bool {
        self.awaited.contains(topic)
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().map(|s| s.bytes).sum()
    }

    fn view(&self) -> View {
        let view = |state: &TableState| TableView { is_ahead: self.is_ahead(state, |at| self.vector.next(at)), ..state.view() };
        View { vector: self.vector.clone(), tables: self.tables.iter().map(|s| (s.table.name, view(s))).collect() }
    }

    /// Whether a table of the folds, or the folds themselves since they were loaded, contain more than was read, of a
    /// partition that is read here or may be yet. What they would tell is of another vector than the tables of events.
    pub(super) fn is_ahead(&self, state: &TableState, next: impl Fn(&TopicPartition) -> i64) -> bool {
        let is_read =
            |at: &TopicPartition| self.is_awaited(&at.topic) || self.partitions.get(at).is_some_and(|p| p.is_owned && p.stopped.is_none());
        let contained = || state.reached.iter().chain(self.loaded.iter());
        state.side == Side::Derived && contained().any(|(at, stand)| stand > next(at) && is_read(at))
    }

    /// What any table contains.
    fn reached(&self) -> OffsetVector {
        let mut furthest = OffsetVector::default();
        let tables = self.tables.iter().filter(|s| s.side != Side::Foreign);
        tables.flat_map(|s| s.reached.iter()).for_each(|(at, next)| furthest.advance(at, next));
        furthest
    }

    pub(super) fn generation(&self, at: &TopicPartition) -> Option<u64> {
        self.partitions.get(at).filter(|p| p.is_owned && p.stopped.is_none()).map(|p| p.generation)
    }

    /// Whether the view has come to where a version of a table stands. A member of ingest asks for the partitions that it
    /// reads. Who only follows reads all of them, and asks for those that are not assigned yet too: reading starts where
    /// the tables of the view end, and what they gained before would never reach the folds.
    fn has_seen(&self, table: usize, offsets: &Offsets) -> bool {
        let is_follower = !self.tables.iter().any(|s| s.side == Side::Events && s.commits);
        let is_read =
            |at: &TopicPartition| self.partitions.get(at).map_or(is_follower, |p| (p.is_owned || is_follower) && p.stopped.is_none());
        let reached = self.tables[table].reached(offsets);
        reached.iter().filter(|(at, _)| is_read(at)).all(|(at, next)| self.vector.next(at) >= next)
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
