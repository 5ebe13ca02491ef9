//! What a query sees: snapshots of the lake and the tail beyond them, cut at one offset vector.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_schemas::{OffsetVector, TopicPartition};
use kiro_tables::TableName;

use crate::Offsets;

/// A version of a table in the lake, opaque to all but the lake and the query engine.
pub trait Snapshot: Any + Send + Sync + std::fmt::Debug {
    /// Its version.
    fn version(&self) -> i64;
    /// The transactions that it contains.
    fn offsets(&self) -> &Offsets;
    /// For the owner of the type.
    fn as_any(&self) -> &dyn Any;
}

/// Rows of one table that came from one range of the log.
#[derive(Debug, Clone)]
pub struct TailBatch {
    /// The partition.
    pub at: TopicPartition,
    /// The first offset of the range.
    pub start: i64,
    /// The offset after the range.
    pub next: i64,
    /// The rows.
    pub rows: RecordBatch,
}

/// One table: what is in files, what is newer, what is open.
#[derive(Debug, Clone, Default)]
pub struct TableView {
    /// The files; `None` before the first commit.
    pub snapshot: Option<Arc<dyn Snapshot>>,
    /// Rows that are not in the snapshot.
    pub tail: Vec<Arc<TailBatch>>,
    /// Open subjects, in no file.
    pub open: Vec<RecordBatch>,
    /// The files have rows that were derived from events beyond the vector: until those are read too, what the table would
    /// answer is of another vector than the other tables.
    pub is_ahead: bool,
}

/// All tables at one vector. Immutable; the publisher swaps it as a whole.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Everything below is contained, nothing beyond.
    pub vector: OffsetVector,
    /// The tables by name.
    pub tables: HashMap<TableName, TableView>,
}

/// Where the newest view is.
pub trait Views: Send + Sync + std::fmt::Debug {
    /// The newest view.
    fn view(&self) -> Arc<View>;
}
