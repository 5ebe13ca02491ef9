//! Questions in SQL.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;
use kiro_schemas::{Micros, OffsetVector, Tenant};

use crate::PortError;

/// Only rows that the log had taken by then.
pub type AsOf = Micros;

/// A question.
#[derive(Debug, Clone)]
pub struct SqlRequest {
    /// Whose rows are visible.
    pub tenant: Tenant,
    /// Who asks, as the statement can ask for it; it decides nothing.
    pub user: String,
    /// One read-only statement.
    pub sql: String,
    /// See [`AsOf`].
    pub as_of: Option<AsOf>,
    /// Values of `$1`, `$2`, … as text.
    pub parameters: Vec<Option<String>>,
    /// Cancelled beyond.
    pub timeout: Duration,
    /// Cancelled beyond.
    pub max_rows: usize,
}

impl SqlRequest {
    /// A question with the default limits: 30 s, 1 million rows.
    pub fn new(tenant: Tenant, sql: impl Into<String>) -> Self {
        let (sql, timeout) = (sql.into(), Duration::from_secs(30));
        Self { tenant, user: String::new(), sql, as_of: None, parameters: Vec::new(), timeout, max_rows: 1_000_000 }
    }
}

/// The rows of an answer, as they come.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, PortError>> + Send>>;

/// An answer.
pub struct SqlAnswer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Which part of the log it includes.
    pub offsets: OffsetVector,
    /// Its rows.
    pub rows: RowStream,
}

impl std::fmt::Debug for SqlAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlAnswer").field("schema", &self.schema).field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

/// Answers questions in SQL over the newest view, read-only and bounded.
#[async_trait]
pub trait SqlEngine: Send + Sync + std::fmt::Debug {
    /// Plans a question and begins to answer it.
    async fn query(self: Arc<Self>, request: SqlRequest) -> Result<SqlAnswer, PortError>;
}
