//! The lake: one Delta table for each [`Table`], committed to and read from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::prelude::{SessionContext, col, lit};
use deltalake::checkpoints;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use kiro_ports::{Clock, Commit, Committed, Offsets, PortError, RowStream, Snapshot, TableSink, TableSource};
use kiro_tables::{Table, TableName};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use url::Url;
use uuid::Uuid;

use crate::commit::Committer;
use crate::inspect::{self, Inspection, LiveFile};
use crate::log::{Backoff, Head, TRUST, TableLog};
use crate::snapshot::{Reader, conform};
use crate::upkeep::Survey;
use crate::{Error, LakeSnapshot, Result};

/// The version of the lake's layout, in `lake.json`.
pub const FORMAT_VERSION: u64 = 1;
/// Commits from one checkpoint to the next.
const CHECKPOINT_EVERY: i64 = 50;
/// Logs of tables that are read at a time.
const LOADED_AT_ONCE: usize = 8;
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// Tables of events that came before `lake.json` told the names of those that have a place in the lake.
const UNTOLD: [&str; 1] = ["metrics"];

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    #[serde(rename = "format")]
    version: u64,
    /// The version of the program that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    /// The tables of the programs that wrote here.
    #[serde(default)]
    tables: Option<Vec<String>>,
}

impl Format {
    /// As this program writes it.
    fn of_today() -> Self {
        Self {
            version: FORMAT_VERSION,
            program: Some(env!("CARGO_PKG_VERSION").to_owned()),
            tables: Some(Table::all().iter().map(|table| table.name.to_owned()).collect()),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = |e: serde_json::Error| Error::Corrupt { path: "lake.json".into(), reason: e.to_string() };
        let format: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        if format.version > FORMAT_VERSION {
            let program =
                format.program.map_or_else(|| "a newer program".to_owned(), |version| format!("version {version} of the program"));
            return Err(Error::Newer { found: format.version, known: FORMAT_VERSION, program });
        }
        Ok(format)
    }

    fn knows(&self, table: &Table) -> bool {
        self.tables.as_ref().map_or(!UNTOLD.contains(&table.name), |tables| tables.iter().any(|name| name == table.name))
    }
}

/// One table of the lake in this process.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) log: TableLog,
    pub(crate) committer: Committer,
    pub(crate) survey: tokio::sync::Mutex<Survey>,
    reader: Reader,
    logs: LogStoreRef,
    checkpointing: AtomicBool,
}

/// The lake.
#[derive(Debug)]
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    root: Url,
    /// Where the store is registered in a query session: unique, so that two lakes in one process do not meet.
    address: String,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
    trust: Duration,
    /// Whether commits make checkpoints by themselves.
    checkpoints: bool,
    /// The version of the folds, and the tables that they derive.
    version: u32,
    derived: BTreeSet<TableName>,
    /// Where tables were seen to stand that are not open yet: they are read on from there.
    seen: Mutex<BTreeMap<TableName, Head>>,
    open: Mutex<BTreeMap<TableName, Arc<Open>>>,
}

impl Lake {
    /// Opens a lake, and founds it where there is none. The root of `store` is the root of the lake; `root` names it in messages.
    ///
    /// # Errors
    /// [`Error::Newer`] when a newer program wrote it; [`Error::Store`] when the store does not answer or cannot be written.
    pub async fn open(store: Arc<dyn ObjectStore>, root: Url, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(store, root, clock, FIRST_WAIT).await
    }

    /// The same with another wait after a first failure; it is doubled each time. Zero waits for nothing.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn open_with(store: Arc<dyn ObjectStore>, root: Url, clock: Arc<dyn Clock>, first_wait: Duration) -> Result<Self> {
        let backoff = Backoff(first_wait);
        found(store.as_ref(), backoff).await?;
        info!(%root, "lake is open");
        let address = format!("kirolake://{}", Uuid::now_v7().simple());
        Ok(Self {
            store,
            root,
            address,
            clock,
            backoff,
            trust: TRUST,
            checkpoints: true,
            version: 1,
            derived: BTreeSet::new(),
            seen: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// Opens a lake only to look at it: nothing is written. `None` when there is none.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn look(store: Arc<dyn ObjectStore>, root: Url, clock: Arc<dyn Clock>) -> Result<Option<Self>> {
        let path = Path::from("lake.json");
        let bytes = match store.get(&path).await {
            Ok(object) => object.bytes().await.map_err(|source| Error::store("read", &path, source))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(Error::store("read", &path, source)),
        };
        Format::read(&bytes)?;
        let address = format!("kirolake://{}", Uuid::now_v7().simple());
        let backoff = Backoff(FIRST_WAIT);
        Ok(Some(Self {
            store,
            root,
            address,
            clock,
            backoff,
            trust: TRUST,
            checkpoints: false,
            version: 1,
            derived: BTreeSet::new(),
            seen: Mutex::default(),
            open: Mutex::default(),
        }))
    }

    /// Whether each table is one that this program can read and write; nothing is changed. What is read of their logs is not
    /// read again when they are opened.
    ///
    /// # Errors
    /// [`Error::Protocol`], [`Error::Schema`] of the first one that is not, and [`Error::Store`], [`Error::Corrupt`].
    pub async fn check_tables(&self) -> Result<()> {
        let load = |table: &'static Table| async move {
            let head = self.table_log(table, self.version).load().await?;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.extend(head.map(|head| (table.name, head)));
            Ok(())
        };
        stream::iter(Table::all()).map(load).buffer_unordered(LOADED_AT_ONCE).try_collect().await
    }

    /// Where it is.
    #[must_use]
    pub const fn root(&self) -> &Url {
        &self.root
    }

    /// The newest version of a table for the query engine; `None` when the table is not there.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Corrupt`].
    pub async fn lake_snapshot(&self, table: &'static Table) -> Result<Option<Arc<LakeSnapshot>>> {
        self.table(table)?.reader.newest().await
    }

    /// How many files a table's newest version has.
    ///
    /// # Errors
    /// As [`Lake::lake_snapshot`] and [`LakeSnapshot::files`].
    pub async fn live_files(&self, table: &'static Table) -> Result<usize> {
        match self.lake_snapshot(table).await? {
            Some(snapshot) => snapshot.files().await,
            None => Ok(0),
        }
    }

    /// Keeps tables of a version above 1 beside the older ones, in folders of their own: `pipeline_runs.v2`.
    #[must_use]
    pub fn with_version(mut self, version: u32, tables: &[&'static Table]) -> Self {
        (self.version, self.derived) = (version, tables.iter().map(|table| table.name).collect());
        // They stand elsewhere.
        self.seen = Mutex::default();
        self
    }

    pub(crate) const fn version(&self) -> u32 {
        self.version
    }

    /// Whether the table is of the folds, so that older versions of it may lie here.
    pub(crate) fn has_versions(&self, table: &Table) -> bool {
        self.derived.contains(table.name)
    }

    fn folder(&self, table: &Table, version: u32) -> String {
        let is_plain = version <= 1 || !self.has_versions(table);
        if is_plain { table.name.to_owned() } else { format!("{}.v{version}", table.name) }
    }

    /// The log of a table as a version of the folds has it.
    pub(crate) fn table_log(&self, table: &'static Table, version: u32) -> TableLog {
        let (root, dir) = TableLog::paths(&self.folder(table, version));
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        TableLog { store, table, root, dir, backoff: self.backoff, clock, trust: self.trust, is_foreign: version != self.version }
    }

    /// Leaves checkpoints to somebody who calls [`Lake::checkpoint_when_due`], such as the role `maintain`.
    #[must_use]
    pub fn without_checkpoints(mut self) -> Self {
        self.checkpoints = false;
        self
    }

    /// Writes a checkpoint of a table's newest version if `every` commits or more came since the last one, whoever made
    /// them; its version, or `None` when none was due.
    ///
    /// # Errors
    /// As [`Lake::checkpoint`].
    pub async fn checkpoint_when_due(&self, table: &'static Table, every: i64) -> Result<Option<i64>> {
        let open = self.table(table)?;
        let Some(head) = open.survey().await?.map(|state| state.head) else { return Ok(None) };
        if head.version - head.checkpoint.max(0) < every { Ok(None) } else { checkpoint(table, open.as_ref()).await }
    }

    /// Writes a checkpoint of a table's newest version; its version, or `None` when the table is not there.
    ///
    /// # Errors
    /// As [`Lake::lake_snapshot`], and [`Error::Delta`] when it cannot be written.
    pub async fn checkpoint(&self, table: &'static Table) -> Result<Option<i64>> {
        checkpoint(table, self.table(table)?.as_ref()).await
    }

    /// Believes for so long that a log ends where it ended: for tests, in which logs are cleaned at once.
    #[cfg(any(test, feature = "faults"))]
    #[must_use]
    pub fn trusting(mut self, trust: Duration) -> Self {
        self.trust = trust;
        self
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    /// Looks at a table's log and files, each by itself.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer: all that is wrong with the table is told.
    pub async fn inspect(&self, table: &'static Table) -> Result<Inspection> {
        inspect::table(self.table(table)?.reader.log()).await
    }

    /// Reads a file that [`Lake::inspect`] found, and compares it with the digest that its commit tells.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Corrupt`] when it is gone, or has other bytes than were written.
    pub async fn check_file(&self, table: &'static Table, file: &LiveFile) -> Result<()> {
        inspect::read_file(self.table(table)?.reader.log(), file).await.map(drop)
    }

    /// The same with its rows, as they stand in the file.
    ///
    /// # Errors
    /// As [`Lake::check_file`], and [`Error::Parquet`], [`Error::Worker`] when they cannot be decoded.
    pub async fn file_rows(&self, table: &'static Table, file: &LiveFile) -> Result<Vec<RecordBatch>> {
        inspect::file_rows(self.table(table)?.reader.log(), file).await
    }

    pub(crate) fn table(&self, table: &'static Table) -> Result<Arc<Open>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = open.get(table.name) {
            return Ok(Arc::clone(found));
        }
        let (log, folder) = (self.table_log(table, self.version), self.folder(table, self.version));
        let address = format!("{}/tables/{folder}/", self.address);
        let location = Url::parse(&address).map_err(|e| Error::Invalid { table: table.name, reason: format!("{address}: {e}") })?;
        let prefixed = PrefixStore::new(Arc::clone(&self.store), log.root.clone());
        let logs = default_logstore(Arc::new(prefixed), Arc::clone(&self.store), &location, &StorageConfig::default());
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(table.name);
        let made = Arc::new(Open {
            committer: Committer::new(log.clone(), seen.clone()),
            reader: Reader::new(log.clone(), Arc::clone(&logs), seen),
            survey: tokio::sync::Mutex::default(),
            log,
            logs,
            checkpointing: AtomicBool::new(false),
        });
        open.insert(table.name, Arc::clone(&made));
        Ok(made)
    }

    /// Rows as they are read, without empty batches.
    async fn select(table: &'static Table, version: &LakeSnapshot, columns: &[&str], among: &[(&str, &[String])]) -> Result<RowStream> {
        let failed = |source| Error::Query { table: table.name, source: Box::new(source) };
        let own = |asked: &str| table.columns.iter().map(|c| c.name).find(|name| *name == asked);
        let names: Vec<&'static str> = if columns.is_empty() {
            table.columns.iter().map(|c| c.name).collect()
        } else {
            columns.iter().filter_map(|c| own(c)).collect()
        };
        if let Some(unknown) = columns.iter().chain(among.iter().map(|(c, _)| c)).find(|c| table.position(c).is_none()) {
            return Err(Error::Invalid { table: table.name, reason: format!("no column {unknown}") });
        }
        let provider = version.provider().await?;
        // A column that no committer has added yet is null in every row.
        let is_there = |name: &str| provider.schema().index_of(name).is_ok();
        if among.iter().any(|(column, _)| !is_there(column)) {
            return Ok(Box::pin(stream::empty()));
        }
        let mut there: Vec<&str> = names.iter().copied().filter(|name| is_there(name)).collect();
        if there.is_empty() {
            there.extend(table.columns.first().map(|column| column.name));
        }
        let mut frame = SessionContext::new().read_table(provider).map_err(failed)?;
        for (column, values) in among {
            let values = values.iter().map(|v| lit(v.as_str())).collect();
            frame = frame.filter(col(*column).in_list(values, false)).map_err(failed)?;
        }
        let rows = frame.select_columns(&there).map_err(failed)?.execute_stream().await.map_err(failed)?;
        let rows = rows.map(move |batch| conform(table, &names, &batch.map_err(failed)?)).map_err(PortError::of);
        Ok(Box::pin(rows.try_filter(|batch| future::ready(batch.num_rows() > 0))))
    }
}

/// Reads `lake.json`, and writes it where there is none.
async fn found(store: &dyn ObjectStore, backoff: Backoff) -> Result<()> {
    let path = Path::from("lake.json");
    let mut attempt = 0;
    loop {
        let error = match store.get(&path).await {
            Ok(object) => match object.bytes().await {
                Ok(bytes) => return Format::read(&bytes).map(drop),
                Err(source) => Error::store("read", &path, source),
            },
            Err(object_store::Error::NotFound { .. }) => {
                let text = serde_json::json!(Format::of_today()).to_string();
                match store.put_opts(&path, text.into(), PutOptions::from(PutMode::Create)).await {
                    Ok(_) => return Ok(()),
                    Err(source) => Error::store("write", &path, source),
                }
            }
            Err(source) => Error::store("read", &path, source),
        };
        attempt += 1;
        if error.is_full() || attempt > 5 {
            return Err(error);
        }
        backoff.wait(attempt).await;
    }
}

async fn checkpoint(table: &'static Table, open: &Open) -> Result<Option<i64>> {
    let failed = |source| Error::Delta { what: "checkpoint", table: table.name, source: Box::new(source) };
    if open.reader.newest().await?.is_none() {
        return Ok(None);
    }
    let mut delta = deltalake::DeltaTable::new(Arc::clone(&open.logs));
    delta.load().await.map_err(failed)?;
    let version = delta.version().and_then(|v| i64::try_from(v).ok()).unwrap_or(0);
    if version > 0 {
        checkpoints::create_checkpoint(&delta, None).await.map_err(failed)?;
        open.committer.note_checkpoint(version).await;
        open.survey_checkpoint(version).await;
    }
    Ok(Some(version))
}

/// Makes a checkpoint beside the commits when one is due; at most one at a time.
async fn checkpoint_in_background(table: &'static Table, open: &Arc<Open>) {
    let (version, last) = open.committer.progress().await;
    if version - last.max(0) < CHECKPOINT_EVERY || open.checkpointing.swap(true, Ordering::AcqRel) {
        return;
    }
    let open = Arc::clone(open);
    drop(tokio::spawn(async move {
        if let Err(error) = checkpoint(table, open.as_ref()).await {
            warn!(table = table.name, %error, "no checkpoint could be made, it is tried again after the next commit");
        }
        open.checkpointing.store(false, Ordering::Release);
    }));
}

#[async_trait]
impl TableSink for Lake {
    async fn offsets(&self, table: &'static Table) -> Result<Offsets, PortError> {
        self.table(table).map_err(PortError::of)?.committer.offsets().await.map_err(PortError::of)
    }

    async fn commit(&self, table: &'static Table, commit: Commit) -> Result<Committed, PortError> {
        let open = self.table(table).map_err(PortError::of)?;
        let outcome = open.committer.commit(commit).await.map_err(PortError::of)?;
        if self.checkpoints {
            checkpoint_in_background(table, &open).await;
        }
        Ok(outcome)
    }

    async fn newcomers(&self) -> Result<Vec<TableName>, PortError> {
        let path = Path::from("lake.json");
        let failed = |source| PortError::of(Error::store("read", &path, source));
        let bytes = self.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let format = Format::read(&bytes).map_err(PortError::of)?;
        Ok(Table::all().iter().filter(|table| !format.knows(table)).map(|table| table.name).collect())
    }

    async fn settle(&self) -> Result<(), PortError> {
        let (path, text) = (Path::from("lake.json"), serde_json::json!(Format::of_today()).to_string());
        let written = self.store.put(&path, text.into()).await;
        written.map(drop).map_err(|source| PortError::of(Error::store("write", &path, source)))
    }
}

#[async_trait]
impl TableSource for Lake {
    async fn snapshot(&self, table: &'static Table) -> Result<Option<Arc<dyn Snapshot>>, PortError> {
        let newest = self.lake_snapshot(table).await.map_err(PortError::of)?;
        Ok(newest.map(|snapshot| snapshot as Arc<dyn Snapshot>))
    }

    async fn stream(&self, table: &'static Table, version: &dyn Snapshot, columns: &[&str]) -> Result<RowStream, PortError> {
        let version = LakeSnapshot::of(version).map_err(PortError::of)?;
        Self::select(table, version, columns, &[]).await.map_err(PortError::of)
    }

    async fn lookup(&self, table: &'static Table, among: &[(&str, &[String])]) -> Result<Vec<RecordBatch>, PortError> {
        if among.iter().any(|(_, values)| values.is_empty()) {
            return Ok(Vec::new());
        }
        let Some(newest) = self.lake_snapshot(table).await.map_err(PortError::of)? else { return Ok(Vec::new()) };
        Self::select(table, &newest, &[], among).await.map_err(PortError::of)?.try_collect().await
    }
}
