//! One table in the engine: where it stands, and the part of its tail.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_ports::{Commit, Offsets, Snapshot, TableView, TailBatch, Transaction};
use kiro_schemas::{OffsetVector, TopicPartition};
use kiro_tables::Table;
use tokio::sync::Notify;

use super::load::OWN;
use super::{EngineConfig, FoldPart, batches};

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

#[cfg(test)]
impl Cut {
    /// A cut that no table made.
    pub(super) const fn of(commit: Commit, moves: Vec<(TopicPartition, i64)>) -> Self {
        Self { commit, moves, seq: 0 }
    }
}

#[derive(Debug)]
pub(super) struct TableState {
    pub(super) table: &'static Table,
    pub(super) side: Side,
    pub(super) commits: bool,
    pub(super) committed: OffsetVector,
    /// As `committed`, where it is furthest: the parts of a table are written by several.
    pub(super) reached: OffsetVector,
    /// Of gaps that have their row: the offset after the one that was expected.
    gaps: OffsetVector,
    /// How often rows of the folds were committed: they also change when the log does not, as time passes.
    turn: i64,
    pub(super) snapshot: Option<Arc<dyn Snapshot>>,
    pub(super) entries: Vec<Entry>,
    pub(super) open: Vec<RecordBatch>,
    pub(super) full: Arc<Notify>,
    pub(super) bytes: usize,
    sealed: u64,
    apps: Apps,
}

/// The application ids of a table: what they begin with, one beginning for each part that writes it.
#[derive(Debug)]
struct Apps {
    /// Of a table that we commit there is one, ours.
    parts: Vec<String>,
    /// Of a part of the folds that is ours: what stands at the epoch of its owner.
    epoch: Option<(String, i64)>,
}

impl Apps {
    fn of(side: Side, commits: bool, cluster: &str, fold: FoldPart) -> Self {
        if side != Side::Derived {
            return Self { parts: vec![format!("kiro/{cluster}/")], epoch: None };
        }
        if commits {
            return Self { epoch: Some((fold.epoch_app(cluster), fold.epoch)), parts: vec![fold.prefix(cluster)] };
        }
        Self { parts: (0..fold.shards).map(|shard| FoldPart { shard, ..fold }.prefix(cluster)).collect(), epoch: None }
    }

    fn own(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    /// The partition of an application id, if it is one of this table's.
    fn partition(&self, app: &str) -> Option<TopicPartition> {
        let (topic, partition) = self.parts.iter().find_map(|part| app.strip_prefix(part.as_str()))?.rsplit_once('/')?;
        (!topic.contains('/')).then_some(())?;
        Some(TopicPartition::new(topic, partition.parse().ok()?))
    }

    /// What all parts contain.
    fn contained(&self, offsets: &Offsets) -> OffsetVector {
        let mut parts: BTreeMap<TopicPartition, (usize, i64)> = BTreeMap::new();
        for (at, next) in self.stands(offsets) {
            let (count, least) = parts.entry(at).or_insert((0, i64::MAX));
            (*count, *least) = (*count + 1, (*least).min(next));
        }
        parts.into_iter().filter(|(_, (count, _))| *count == self.parts.len()).map(|(at, (_, least))| (at, least)).collect()
    }

    /// What any part contains.
    fn reached(&self, offsets: &Offsets) -> OffsetVector {
        let mut furthest = OffsetVector::default();
        self.stands(offsets).for_each(|(at, next)| furthest.advance(&at, next));
        furthest
    }

    fn stands(&self, offsets: &Offsets) -> impl Iterator<Item = (TopicPartition, i64)> {
        offsets.iter().filter_map(|(app, next)| Some((self.partition(app)?, *next)))
    }
}

impl TableState {
    pub(super) fn new(table: &'static Table, side: Side, commits: bool, config: &EngineConfig) -> Self {
        let apps = Apps::of(side, commits, &config.cluster, config.fold);
        Self {
            table,
            side,
            commits,
            committed: OffsetVector::default(),
            reached: OffsetVector::default(),
            gaps: OffsetVector::default(),
            turn: 0,
            snapshot: None,
            entries: Vec::new(),
            open: Vec::new(),
            full: Arc::default(),
            bytes: 0,
            sealed: 0,
            apps,
        }
    }

    pub(super) fn app(&self, at: &TopicPartition) -> String {
        format!("{}{}/{}", self.apps.own(), at.topic, at.partition)
    }

    /// The partition of an application id, if it is one of this table's.
    pub(super) fn partition(&self, app: &str) -> Option<TopicPartition> {
        self.apps.partition(app)
    }

    /// What makes the table ours for this epoch; none where it is so already, an error where a larger one has it.
    pub(super) fn takeover(&self, offsets: &Offsets) -> Result<Option<Transaction>, i64> {
        let Some((app, epoch)) = self.apps.epoch.clone() else { return Ok(None) };
        let start = offsets.get(&app).copied().unwrap_or(0);
        if start > epoch {
            return Err(start);
        }
        Ok((start < epoch).then_some(Transaction { app, start, next: epoch }))
    }

    /// What somebody's rows in a version of the table come from.
    pub(super) fn reached(&self, offsets: &Offsets) -> OffsetVector {
        self.apps.reached(offsets)
    }

    /// Whether the snapshot that is shown has all the rows that a version with these offsets has.
    pub(super) fn has_all(&self, offsets: &Offsets) -> bool {
        let known = self.snapshot.as_ref().map(|shown| shown.offsets());
        let is_known = |(app, next): (&String, &i64)| known.is_some_and(|known| known.get(app) == Some(next));
        offsets.iter().filter(|(app, _)| app.starts_with(self.apps.own())).all(is_known)
    }

    /// The application under which rows of gaps are committed, so that none is written twice.
    fn gap_app(&self, at: &TopicPartition) -> String {
        format!("{}gaps/{}/{}", self.apps.own(), at.topic, at.partition)
    }

    fn gap_partition(&self, app: &str) -> Option<TopicPartition> {
        let (topic, partition) = app.strip_prefix(self.apps.own())?.strip_prefix("gaps/")?.rsplit_once('/')?;
        Some(TopicPartition::new(topic, partition.parse().ok()?))
    }

    fn turn_app(&self) -> String {
        format!("{}turn", self.apps.own())
    }

    pub(super) fn stands(&mut self, offsets: &Offsets) {
        self.turn = offsets.get(&self.turn_app()).copied().unwrap_or(0);
        (self.committed, self.reached) = (self.apps.contained(offsets), self.apps.reached(offsets));
        if self.holds_gaps() {
            self.gaps = offsets.iter().filter_map(|(app, next)| Some((self.gap_partition(app)?, *next))).collect();
        }
    }

    fn holds_gaps(&self) -> bool {
        self.table.name == OWN[1]
    }

    /// Somebody else wrote rows of gaps.
    pub(super) fn learn_gaps(&mut self, apps: &[(String, i64)]) {
        for (app, next) in apps {
            if let Some(at) = self.gap_partition(app) {
                self.gaps.advance(&at, *next);
            }
        }
    }

    /// Whether the table has the rows already.
    fn has(&self, entry: &Entry) -> bool {
        match &entry.needs {
            Some(needs) => self.committed.covers(needs),
            None if self.holds_gaps() => entry.batch.next < self.gaps.next(&entry.batch.at),
            None => entry.batch.next <= self.committed.next(&entry.batch.at),
        }
    }

    /// Whether no row of the tail is in the table too.
    pub(super) fn is_disjoint(&self) -> bool {
        let is_new = |e: &Entry| self.holds_gaps() || e.batch.start >= self.committed.next(&e.batch.at);
        self.side != Side::Events || self.entries.iter().all(is_new)
    }

    pub(super) fn push(&mut self, seq: u64, batch: TailBatch, needs: Option<Arc<OffsetVector>>) {
        let Some(batch) = self.beyond(batch) else { return };
        let batch = match batches::compact(std::slice::from_ref(&batch.rows)) {
            Ok(rows) => TailBatch { rows, ..batch },
            Err(_) => batch,
        };
        let bytes = batch.rows.get_array_memory_size();
        self.bytes += bytes;
        self.entries.push(Entry { seq, batch: Arc::new(batch), needs, bytes });
        while self.merge_last() {}
    }

    /// Of rows that others commit, what their files lack. What our folds derive comes before any row of the files with the
    /// same key: files are shown only up to what the folds have seen, and what these derive later is newer.
    fn beyond(&self, batch: TailBatch) -> Option<TailBatch> {
        if self.holds_gaps() || (self.commits && self.side == Side::Derived) {
            return Some(batch);
        }
        if self.side == Side::Derived {
            let rows = batches::lift(self.table, &batch.rows).unwrap_or_else(|_| batch.rows.clone());
            return Some(TailBatch { rows, ..batch });
        }
        let from = self.committed.next(&batch.at);
        if from <= batch.start {
            return Some(batch);
        }
        if from >= batch.next {
            return None;
        }
        let rows = batches::rows_from(&batch.rows, from).ok()?;
        Some(TailBatch { start: from, rows, ..batch })
    }

    /// Merges the last batch into an earlier one that is not much larger: of its partition or, of rows of the folds, the one
    /// just before it. These leave the tail in the order in which they came; else an older version of a row could stay behind,
    /// merged with what came later, and hide the newer one in the files.
    fn merge_last(&mut self) -> bool {
        let Some((last, before)) = self.entries.split_last() else { return false };
        let is_near = |e: &Entry| self.side == Side::Derived || e.batch.at == last.batch.at;
        let Some(at) = before.iter().rposition(|e| e.seq >= self.sealed && is_near(e)) else { return false };
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
        // A partition that was never seen is committed at 0 too: what retention takes from then on is a gap.
        let is_ahead = |at: &TopicPartition, next: i64| self.committed.get(at).is_none_or(|stands| next > stands);
        let moves: Vec<(TopicPartition, i64)> =
            stand.filter(|(at, next)| is_ahead(at, *next)).map(|(at, next)| (at.clone(), next)).collect();
        let transaction = |at: &TopicPartition, next| Transaction { app: self.app(at), start: self.committed.next(at), next };
        let mut transactions: Vec<Transaction> = moves.iter().map(|(at, next)| transaction(at, *next)).collect();
        if self.holds_gaps() {
            let gaps = std::mem::take(&mut self.gaps);
            self.keep(|entry| entry.batch.next >= gaps.next(&entry.batch.at));
            self.gaps = gaps;
            transactions.extend(self.gap_marks().iter().map(|(at, next)| Transaction {
                app: self.gap_app(at),
                start: self.gaps.next(at),
                next,
            }));
        }
        if self.side == Side::Derived && !self.entries.is_empty() {
            transactions.push(Transaction { app: self.turn_app(), start: self.turn, next: self.turn + 1 });
        }
        if transactions.is_empty() {
            return None;
        }
        let epoch = self.apps.epoch.iter();
        transactions.extend(epoch.map(|(app, epoch)| Transaction { app: app.clone(), start: *epoch, next: *epoch }));
        self.sealed = seq;
        let rows = self.entries.iter().map(|e| e.batch.rows.clone()).collect();
        Some(Cut { commit: Commit { rows, transactions }, moves, seq })
    }

    /// What the rows of gaps in the tail lead to.
    fn gap_marks(&self) -> OffsetVector {
        let mut marks = OffsetVector::default();
        self.entries.iter().for_each(|entry| marks.advance(&entry.batch.at, entry.batch.next + 1));
        marks
    }

    /// A commit is in the table and in this snapshot.
    pub(super) fn done(&mut self, cut: &Cut, snapshot: Arc<dyn Snapshot>) {
        for (at, next) in &cut.moves {
            self.committed.advance(at, *next);
        }
        let gaps = cut.commit.transactions.iter().map(|t| (t.app.clone(), t.next)).collect::<Vec<_>>();
        self.learn_gaps(&gaps);
        let turn = self.turn_app();
        self.turn = cut.commit.transactions.iter().find(|t| t.app == turn).map_or(self.turn, |t| t.next);
        self.keep(|entry| entry.seq >= cut.seq);
        // Another process may have moved other partitions: what it wrote is no longer the tail's.
        self.follow(snapshot);
    }

    pub(super) fn keep(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(keep);
        self.bytes = self.entries.iter().map(|e| e.bytes).sum();
    }

    /// Takes a snapshot, unless a newer one is there: rows must not vanish again. What it has leaves the tail.
    pub(super) fn follow(&mut self, snapshot: Arc<dyn Snapshot>) {
        if self.snapshot.as_ref().is_some_and(|shown| shown.version() > snapshot.version()) {
            return;
        }
        self.stands(snapshot.offsets());
        self.snapshot = Some(snapshot);
        if self.commits && self.side == Side::Derived {
            return;
        }
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries.into_iter().filter(|entry| !self.has(entry)).collect();
        self.keep(|_| true);
        let committed = self.committed.clone();
        if self.holds_gaps() {
            return;
        }
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
            is_ahead: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray as _, RecordBatch};
    use arrow::datatypes::Int64Type;
    use kiro_ports::{Offsets, TailBatch};
    use kiro_schemas::{Kind, Micros, TopicPartition, Value};
    use kiro_tables::{Rows, Table};

    use super::super::{EngineConfig, FoldPart};
    use super::{Side, TableState};

    /// A key's rows of the tail, oldest first: revision and outcome.
    fn versions(state: &TableState) -> Vec<(i64, String)> {
        let of = |batch: &RecordBatch| {
            let revs = batch.column_by_name("_rev").expect("revisions").as_primitive::<Int64Type>().clone();
            let words = batch.column_by_name("outcome").expect("outcomes").as_string_view().clone();
            (0..batch.num_rows()).map(|at| (revs.value(at) % 100, words.value(at).to_owned())).collect::<Vec<_>>()
        };
        state.entries.iter().flat_map(|e| of(&e.batch.rows)).collect()
    }

    #[test]
    fn a_newer_row_of_the_folds_leaves_the_tail_with_all_older_ones() {
        let table = Table::find("pipeline_runs").expect("a table");
        let config = EngineConfig::new(vec!["events".to_owned()], "c", std::path::Path::new("q"));
        let mut state = TableState::new(table, Side::Derived, false, &config);
        // What was folded last came from one partition or another.
        for (seq, (partition, rev, outcome)) in [(1, 0, "failure"), (2, 1, "success"), (1, 0, "other")].into_iter().enumerate() {
            let seq = i64::try_from(seq).expect("few");
            let mut rows = Rows::new(table);
            let value = |name: &str, kind, nullable| match (name, kind, nullable) {
                ("run_id", ..) => Value::text(if outcome == "other" { "2" } else { "1" }),
                ("outcome", ..) => Value::text(outcome),
                ("_rev", ..) => Value::Int(rev),
                (_, _, true) => Value::Null,
                (_, Kind::Text, _) => Value::text("-"),
                (_, Kind::Time, _) => Value::Time(Micros(0)),
                _ => Value::Int(0),
            };
            rows.push(&table.columns.iter().map(|c| value(c.name, c.kind, c.nullable)).collect::<Vec<_>>()).expect("a row");
            let at = TopicPartition::new("events", partition);
            let needs = [(TopicPartition::new("events", 1), seq + 1)].into_iter().collect();
            let batch = TailBatch { at, start: seq, next: seq + 1, rows: rows.finish().expect("rows") };
            state.push(u64::try_from(seq).expect("few"), batch, Some(std::sync::Arc::new(needs)));
        }
        state.committed.set(TopicPartition::new("events", 1), 2);
        let entries = std::mem::take(&mut state.entries);
        state.entries = entries.into_iter().filter(|entry| !state.has(entry)).collect();
        let left = versions(&state);
        let (old, new) = (left.iter().any(|(_, o)| o == "failure"), left.iter().any(|(_, o)| o == "success"));
        assert!(new || !old, "the older version stays without the newer one: {left:?}");
        assert!(left.iter().any(|(_, o)| o == "other"), "{left:?}");
    }

    #[test]
    fn a_reader_of_two_shards_sees_where_the_slower_and_the_faster_one_stand() {
        let fold = FoldPart { version: 1, shard: 0, shards: 2, epoch: 0 };
        let config = EngineConfig { fold, ..EngineConfig::new(vec!["events".to_owned()], "c", std::path::Path::new("q")) };
        let mut state = TableState::new(Table::find("pipeline_runs").expect("a table"), Side::Derived, false, &config);
        let app = |shard, next: i64| (format!("{}events/0", FoldPart { shard, ..fold }.prefix("c")), next);
        let at = TopicPartition::new("events", 0);
        for (offsets, stands) in [(vec![app(0, 5)], (0, 5)), (vec![app(0, 5), app(1, 9)], (5, 9))] {
            state.stands(&offsets.into_iter().collect::<Offsets>());
            assert_eq!((state.committed.next(&at), state.reached.next(&at)), stands);
        }
    }
}
