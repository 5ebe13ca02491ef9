//! Versions of a table, to be read.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use deltalake::delta_datafusion::DeltaScanNext;
use deltalake::kernel::EagerSnapshot;
use deltalake::logstore::LogStoreRef;
use futures::future::BoxFuture;
use kiro_ports::{Offsets, PortError, Snapshot};
use kiro_tables::Table;
use tokio::sync::{Mutex, OnceCell};

use crate::log::{Backoff, Head, TableLog};
use crate::{Error, Result};

/// A version of a table in the lake.
pub struct LakeSnapshot {
    table: &'static Table,
    head: Head,
    eager: OnceCell<Arc<EagerSnapshot>>,
    /// Whether a question was about it.
    is_asked: AtomicBool,
    logs: LogStoreRef,
    backoff: Backoff,
}

impl std::fmt::Debug for LakeSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeSnapshot").field("table", &self.table.name).field("head", &self.head).finish_non_exhaustive()
    }
}

impl Snapshot for LakeSnapshot {
    fn version(&self) -> i64 {
        self.head.version
    }

    fn offsets(&self) -> &Offsets {
        &self.head.offsets
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl LakeSnapshot {
    /// The provider of a version that came through a port; see [`LakeSnapshot::provider`].
    ///
    /// # Errors
    /// As there, and [`Error::Foreign`] when the version is of another adapter.
    pub fn open(snapshot: Arc<dyn Snapshot>) -> BoxFuture<'static, Result<Arc<dyn TableProvider>, PortError>> {
        Box::pin(async move {
            let version = Self::of(snapshot.as_ref()).map_err(PortError::of)?;
            version.provider().await.map_err(PortError::of)
        })
    }

    /// A version that came through a port.
    pub(crate) fn of(snapshot: &dyn Snapshot) -> Result<&Self> {
        snapshot.as_any().downcast_ref().ok_or_else(|| Error::Foreign { version: snapshot.version() })
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &'static Table {
        self.table
    }

    /// How many files it has.
    ///
    /// # Errors
    /// [`Error::Delta`] when the version cannot be read.
    pub async fn files(&self) -> Result<usize> {
        Ok(self.eager().await?.log_data().num_files())
    }

    /// How many rows its files say that they have.
    ///
    /// # Errors
    /// As [`LakeSnapshot::files`].
    pub async fn rows(&self) -> Result<u64> {
        Ok(self.eager().await?.log_data().iter().filter_map(|file| file.num_records()).map(|rows| rows as u64).sum())
    }

    /// Its files, read when they are asked for first: most versions of a busy table are followed before anybody asks.
    /// Loaded afresh: a snapshot that is carried from version to version grows slower with each.
    async fn eager(&self) -> Result<&Arc<EagerSnapshot>> {
        let version = u64::try_from(self.head.version).unwrap_or_default();
        let load = || async {
            let mut attempt = 0;
            loop {
                match EagerSnapshot::try_new(self.logs.as_ref(), Some(version)).await {
                    Ok(eager) => return Ok(Arc::new(eager)),
                    Err(source) if attempt >= 5 => {
                        return Err(Error::Delta { what: "load", table: self.table.name, source: Box::new(source) });
                    }
                    Err(_) => self.backoff.wait(attempt).await,
                }
                attempt += 1;
            }
        };
        self.eager.get_or_try_init(load).await
    }

    /// Read access for the query engine: filters are pushed down to files and into Parquet; nothing can be written.
    /// It registers its store in the session by itself when it is scanned.
    ///
    /// # Shapes
    /// The columns of [`Table::schema`] in order, without those that no committer has added to the table yet; texts as `Utf8View`. Maps have the inner names of the Delta reader and
    /// texts inside them may be `Utf8View` too: cast before a union with batches of the tail, as `scan` does.
    ///
    /// # Errors
    /// As [`LakeSnapshot::files`]; [`Error::Query`] when the version cannot be scanned.
    pub async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        self.is_asked.store(true, Ordering::Relaxed);
        let eager = Arc::clone(self.eager().await?);
        let inner = DeltaScanNext::builder()
            .with_log_store(Arc::clone(&self.logs))
            .with_eager_snapshot(eager)
            .await
            .map_err(|source| Error::Query { table: self.table.name, source: Box::new(source) })?;
        Ok(Arc::new(ReadOnly { inner }))
    }
}

/// A provider without the ways to write: the trait's defaults refuse them.
#[derive(Debug)]
struct ReadOnly {
    inner: Arc<dyn TableProvider>,
}

#[async_trait]
impl TableProvider for ReadOnly {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        self.inner.scan(session, projection, filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        self.inner.supports_filters_pushdown(filters)
    }
}

/// Follows one table's newest version.
#[derive(Debug)]
pub(crate) struct Reader {
    log: TableLog,
    logs: LogStoreRef,
    newest: Mutex<Newest>,
}

/// The newest version that was read; before that, where the table was seen to stand.
#[derive(Debug)]
enum Newest {
    Seen(Option<Head>),
    Read(Arc<LakeSnapshot>),
}

impl Reader {
    pub(crate) fn new(log: TableLog, logs: LogStoreRef, seen: Option<Head>) -> Self {
        Self { log, logs, newest: Mutex::new(Newest::Seen(seen)) }
    }

    /// The newest version; `None` when the table is not there.
    pub(crate) async fn newest(&self) -> Result<Option<Arc<LakeSnapshot>>> {
        let mut slot = self.newest.lock().await;
        let mut is_asked = false;
        let head = match &*slot {
            Newest::Read(known) => {
                is_asked = known.is_asked.load(Ordering::Relaxed);
                let mut head = known.head.clone();
                self.log.advance(&mut head).await?;
                if head.version == known.head.version {
                    return Ok(Some(Arc::clone(known)));
                }
                head
            }
            Newest::Seen(Some(seen)) => {
                let mut head = seen.clone();
                self.log.advance(&mut head).await?;
                head
            }
            Newest::Seen(None) => match self.log.load().await? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let (table, logs, backoff) = (self.log.table, Arc::clone(&self.logs), self.log.backoff);
        let snapshot = Arc::new(LakeSnapshot { table, head, eager: OnceCell::new(), is_asked: AtomicBool::default(), logs, backoff });
        // Questions that come often must not wait for the store to learn which files they have to look at.
        if is_asked {
            snapshot.eager().await?;
        }
        *slot = Newest::Read(Arc::clone(&snapshot));
        Ok(Some(snapshot))
    }

    /// The log that it follows.
    pub(crate) const fn log(&self) -> &TableLog {
        &self.log
    }
}

/// Brings columns to the exact types of the table; a column that the files do not have yet is null.
pub(crate) fn conform(table: &'static Table, names: &[&str], batch: &RecordBatch) -> Result<RecordBatch> {
    let failed = |source| Error::Arrow { table: table.name, source: Box::new(source) };
    let schema = table.schema();
    let mut fields = Vec::with_capacity(names.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(names.len());
    for name in names {
        let field = schema.field_with_name(name).map_err(failed)?;
        arrays.push(match batch.column_by_name(name) {
            Some(array) => cast(array, field.data_type()).map_err(failed)?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
        fields.push(field.clone());
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
}
