//! Folds: facts to insights.

use arrow::array::RecordBatch;
use kiro_schemas::Micros;
use kiro_tables::{Table, TableName};

use crate::PortError;

/// Rows for a derived table.
pub type Derived = (&'static Table, RecordBatch);

/// Subjects that were final before and are touched again: all their events are needed to fold them anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The table of their events.
    pub table: TableName,
    /// The id column of the subject in that table.
    pub column: &'static str,
    /// Their tenants, each once.
    pub tenants: Vec<String>,
    /// Their sources, each once: many sources count their runs from 1.
    pub sources: Vec<String>,
    /// Their ids, each once.
    pub ids: Vec<String>,
}

impl Missing {
    /// What a row must have to be of one of the subjects: a column, and the values among which it is. It lets through
    /// the other source's subject of the same id only where that source misses one, too.
    #[must_use]
    pub fn among(&self) -> [(&'static str, &[String]); 3] {
        [("tenant", &self.tenants), ("source", &self.sources), (self.column, &self.ids)]
    }
}

/// The folds of a process, as the engine sees them: one object that takes batches of events in and gives rows out.
///
/// The state is a function of the *set* of events: neither order nor repetition changes it. Rows that are already in a
/// derived table are made known by [`Folding::restore`]; [`Folding::emit`] gives only what differs from them.
///
/// # Errors
/// Each call fails when a batch is not of the shape of its table.
#[expect(clippy::missing_errors_doc, reason = "told once, above")]
pub trait Folding: Send {
    /// The derived tables that it writes.
    fn outputs(&self) -> Vec<&'static Table>;
    /// Makes known what a derived table holds already. Called before the first batch.
    fn restore(&mut self, table: &'static Table, rows: &RecordBatch) -> Result<(), PortError>;
    /// Folds a batch of an `_events` table.
    fn apply(&mut self, table: &'static Table, events: &RecordBatch) -> Result<(), PortError>;
    /// What is needed before [`Folding::emit`]; empty most of the time.
    fn missing(&mut self) -> Vec<Missing>;
    /// Answers [`Folding::missing`]: all events of those subjects.
    fn supply(&mut self, table: &'static Table, events: &RecordBatch) -> Result<(), PortError>;
    /// The rows that changed since the last call, stamped with `recorded_at`.
    fn emit(&mut self, recorded_at: Micros) -> Result<Vec<Derived>, PortError>;
    /// The subjects that are open: rows of [`TableShape::Versions`](kiro_tables::TableShape) tables that are in no file. Each
    /// was recorded when the newest of its events was, whoever asks and how often.
    fn open(&mut self) -> Result<Vec<Derived>, PortError>;
}
