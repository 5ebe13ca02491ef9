//! The start of the folds: what they derived before, then all events of the lake.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kiro_ports::{PortError, RowStream};
use kiro_schemas::{Micros, TopicPartition};
use kiro_tables::{Table, TableShape};

use super::batches;
use super::letters::Letters;
use super::window::Key;
use super::worker::Worker;
use super::{EngineError, EngineResult};

/// Tables of events that are about ingest itself; folds do not see them.
pub(super) const OWN: [&str; 2] = ["dead_letters", "ingest_gaps"];

/// What the window and the marks are made of.
const SEEDED: [&str; 7] = ["tenant", "source", "event_id", "recorded_at", "_topic", "_partition", "_offset"];

/// Seeds of the window: when recorded, what, where.
type Seeds = Vec<(i64, Key, TopicPartition, i64)>;

impl Worker {
    /// Restores the folds and replays the lake into them.
    pub(super) async fn load(&mut self) -> EngineResult<()> {
        let outputs = self.folding.outputs();
        for table in &outputs {
            let rows: Vec<RecordBatch> = self.stream(table, &[]).await?.try_collect().await.map_err(EngineError::port("read a table"))?;
            for batch in batches::current(table, &rows).map_err(EngineError::rows(table.name))? {
                if batch.num_rows() > 0 {
                    self.folding.restore(table, &batch).map_err(EngineError::port("restore a fold"))?;
                }
            }
        }
        // Who derives nothing wants to know which events there are, and no more of them.
        let columns: &[&str] = if outputs.is_empty() { &SEEDED } else { &[] };
        let mut seeds = Seeds::new();
        for table in Table::all().iter().filter(|t| t.shape == TableShape::Events && !OWN.contains(&t.name)) {
            let mut rows = self.stream(table, columns).await?;
            while let Some(batch) = rows.try_next().await.map_err(EngineError::port("read a table"))? {
                self.seed(&mut seeds, &batch);
                self.mark(&batch);
                if columns.is_empty() {
                    self.fold(table, batch)?;
                }
            }
        }
        if let Some(letters) = Table::find(OWN[0]) {
            let letters: Vec<RecordBatch> =
                self.stream(letters, &[]).await?.try_collect().await.map_err(EngineError::port("read a table"))?;
            for batch in &letters {
                self.mark(batch);
            }
            self.letters = Letters::of(&letters);
        }
        seeds.sort_unstable_by_key(|(recorded_at, ..)| *recorded_at);
        let old = seeds.len().saturating_sub(self.config.dedupe_window);
        for (_, key, at, offset) in seeds.drain(old..) {
            let place = self.window.place(&at, offset, None);
            self.window.is_repeat(key, place);
        }
        self.load_gaps().await
    }

    /// The rows of a table as they are read, so that a start holds no table in memory: those of the version that is shown. What
    /// came since is read from the log; a newer version would put into the folds what the view does not have yet.
    async fn stream(&self, table: &'static Table, columns: &[&str]) -> EngineResult<RowStream> {
        let Some(version) = self.shared.shown(table) else { return Ok(Box::pin(stream::empty())) };
        let rows = self.source.stream(table, version.as_ref(), columns).await.map_err(EngineError::port("read a table"))?;
        if !columns.is_empty() {
            return Ok(rows);
        }
        let conformed = move |batch| batches::conform(table, &batch).map_err(|error| PortError::of(EngineError::rows(table.name)(error)));
        Ok(Box::pin(rows.map(move |batch| batch.and_then(conformed))))
    }

    fn seed(&self, seeds: &mut Seeds, batch: &RecordBatch) {
        let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_view_opt());
        let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let recorded = batch.column_by_name("recorded_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(tenant), Some(source), Some(id), Some(topic)) = (text("tenant"), text("source"), text("event_id"), text("_topic")) else {
            return;
        };
        let (Some(recorded), Some(partition), Some(offset)) = (recorded, int("_partition"), int("_offset")) else { return };
        for row in 0..batch.num_rows() {
            let key = Key::of(tenant.value(row), source.value(row), id.value(row));
            let at = TopicPartition::new(topic.value(row), i32::try_from(partition.value(row)).unwrap_or(-1));
            seeds.push((recorded.value(row), key, at, offset.value(row)));
        }
        let limit = self.config.dedupe_window.saturating_mul(2);
        if seeds.len() > limit.max(1 << 16) {
            seeds.sort_unstable_by_key(|(recorded_at, ..)| std::cmp::Reverse(*recorded_at));
            seeds.truncate(self.config.dedupe_window);
        }
    }

    /// Keeps the last record of each partition.
    fn mark(&mut self, batch: &RecordBatch) {
        let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let topic = batch.column_by_name("_topic").and_then(|c| c.as_string_view_opt());
        let recorded = batch.column_by_name("recorded_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(topic), Some(partition), Some(offset), Some(recorded)) = (topic, int("_partition"), int("_offset"), recorded) else {
            return;
        };
        for row in 0..batch.num_rows() {
            let mark = (offset.value(row), Micros(recorded.value(row)));
            let at = TopicPartition::new(topic.value(row), i32::try_from(partition.value(row)).unwrap_or(-1));
            self.marks.entry(at).and_modify(|last| *last = (*last).max(mark)).or_insert(mark);
        }
    }

    async fn load_gaps(&mut self) -> EngineResult<()> {
        let Some(table) = Table::find("ingest_gaps") else { return Ok(()) };
        let mut rows = self.stream(table, &[]).await?;
        while let Some(batch) = rows.try_next().await.map_err(EngineError::port("read a table"))? {
            let topic = batch.column_by_name("_topic").and_then(|c| c.as_string_view_opt());
            let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
            let (Some(topic), Some(partition), Some(expected)) = (topic, int("_partition"), int("expected_offset")) else { continue };
            for row in 0..batch.num_rows() {
                let at = TopicPartition::new(topic.value(row), i32::try_from(partition.value(row)).unwrap_or(-1));
                self.known_gaps.insert((at, expected.value(row)));
            }
        }
        Ok(())
    }

    /// Answers what the folds miss from the lake and from rows that are not in it yet.
    pub(super) async fn supply(&mut self) -> EngineResult<()> {
        for missing in self.folding.missing() {
            let Some(table) = Table::find(missing.table) else { continue };
            // The tail first: what is committed meanwhile is then found in both, and folds do not mind.
            let mut found: Vec<RecordBatch> = {
                let inner = self.shared.lock();
                let tail = inner.tables.iter().filter(|s| s.table.name == missing.table).flat_map(|s| &s.entries);
                tail.map(|entry| entry.batch.rows.clone()).collect()
            };
            let staged = self.staged.rows.iter().filter(|(name, ..)| *name == missing.table);
            found.extend(staged.map(|(_, _, batch)| batch.rows.clone()));
            let mut matches = Vec::new();
            for batch in found {
                matches.extend(batches::matching(batch, &missing.among()).map_err(EngineError::rows(table.name))?);
            }
            let among = missing.among();
            for batch in self.source.lookup(table, &among).await.map_err(EngineError::port("look up events"))? {
                matches.push(batches::conform(table, &batch).map_err(EngineError::rows(table.name))?);
            }
            for batch in matches {
                let (due, _) = batches::split_due(batch, self.horizon()).map_err(EngineError::rows(table.name))?;
                if let Some(due) = due {
                    self.folding.supply(table, &due).map_err(EngineError::port("fold events"))?;
                }
            }
        }
        Ok(())
    }
}
