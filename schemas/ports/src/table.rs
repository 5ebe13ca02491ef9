//! The lake's tables: who writes, who reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::TryStreamExt as _;
use kiro_tables::{Table, TableName};

use crate::{PortError, RowStream, Snapshot};

/// The transactions of a table: application id to the next offset.
pub type Offsets = BTreeMap<String, i64>;

/// One partition's part of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The application id, such as `kiro/{cluster}/{topic}/{partition}`.
    pub app: String,
    /// Where the table must stand before.
    pub start: i64,
    /// Where it stands afterwards.
    pub next: i64,
}

/// Rows and the offsets that they came from, to be committed together.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The rows; none for a transaction-only commit.
    pub rows: Vec<RecordBatch>,
    /// One per partition.
    pub transactions: Vec<Transaction>,
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is in the table, at this version.
    Done(i64),
    /// Nothing of it is in the table: these applications were moved by someone else and stand there now.
    Fenced(Vec<(String, i64)>),
}

/// Writes one table. There is one committer a table and process.
#[async_trait]
pub trait TableSink: Send + Sync + std::fmt::Debug {
    /// Where the table stands; creates it if it is not there.
    async fn offsets(&self, table: &'static Table) -> Result<Offsets, PortError>;
    /// Commits rows and offsets together, exactly once.
    async fn commit(&self, table: &'static Table, commit: Commit) -> Result<Committed, PortError>;
    /// The tables that came with a newer program than those that wrote here so far.
    async fn newcomers(&self) -> Result<Vec<TableName>, PortError> {
        Ok(Vec::new())
    }
    /// From now on there are no newcomers: all tables of this program have their place.
    async fn settle(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Reads one table, for folds and training.
#[async_trait]
pub trait TableSource: Send + Sync + std::fmt::Debug {
    /// The newest version of a table; `None` when it is not there yet.
    async fn snapshot(&self, table: &'static Table) -> Result<Option<Arc<dyn Snapshot>>, PortError>;
    /// All rows of that version of a table, batch by batch as they are read; `columns` empty means all.
    async fn stream(&self, table: &'static Table, version: &dyn Snapshot, columns: &[&str]) -> Result<RowStream, PortError>;
    /// All rows of the newest version at once; none when the table is not there.
    async fn scan(&self, table: &'static Table, columns: &[&str]) -> Result<Vec<RecordBatch>, PortError> {
        let Some(newest) = self.snapshot(table).await? else { return Ok(Vec::new()) };
        self.stream(table, newest.as_ref(), columns).await?.try_collect().await
    }
    /// The rows whose text columns each have one of their values.
    async fn lookup(&self, table: &'static Table, among: &[(&str, &[String])]) -> Result<Vec<RecordBatch>, PortError>;
}
