//! A table's Delta log: versions and transactions for committers, and what each commit says.
//!
//! # Source
//! Delta transaction log protocol: file names, action reconciliation of `txn`, checkpoints (version 1, one file).

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kiro_ports::{Clock, Offsets};
use kiro_schemas::Micros;
use kiro_tables::Table;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::meta::Meta;
use crate::replay::DataFile;
use crate::{Error, Result};

const READ_ATTEMPTS: u32 = 6;
/// Commits of one log that are asked for at a time where a listing says that they are there.
const READ_AT_ONCE: usize = 16;
/// Who has not looked for so long does not know any more what was cleaned away: half of the shortest time that a log is kept.
const LATE: Duration = Duration::from_mins(30);
/// For so long what was read of a log is believed to be its end. Then it is asked whether the log goes on elsewhere.
pub(crate) const TRUST: Duration = Duration::from_mins(1);
/// The newest versions of readers and writers whose rules we keep.
pub(crate) const PROTOCOL: (i64, i64) = (1, 2);

/// Waits longer after each failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff(pub(crate) Duration);

impl Backoff {
    pub(crate) async fn wait(self, attempt: u32) {
        if self.0.is_zero() {
            return tokio::task::yield_now().await;
        }
        let factor = 1_u32 << attempt.min(7);
        tokio::time::sleep(self.0.saturating_mul(factor)).await;
    }
}

/// Where a table stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) version: i64,
    pub(crate) offsets: Offsets,
    /// Version of the newest checkpoint that was seen.
    pub(crate) checkpoint: i64,
    /// When it was known for certain that nothing from here on had been cleaned away.
    pub(crate) looked_at: Micros,
    /// Its columns; `None` before the log has told.
    pub(crate) meta: Option<Arc<Meta>>,
    /// See [`TableLog::is_foreign`].
    pub(crate) is_foreign: bool,
}

/// What one commit says.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) batch: Option<String>,
    /// When its committer says that it was made.
    pub(crate) committed_at: Option<Micros>,
    transactions: Vec<(String, i64)>,
    /// The versions that readers and writers need.
    protocol: Option<(i64, i64)>,
    pub(crate) added: Vec<DataFile>,
    /// Files that are no longer of the table, and when they were taken out, in milliseconds.
    pub(crate) removed: Vec<(String, i64)>,
    /// What the table is, where the commit changes it.
    pub(crate) metadata: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
    txn: Option<Txn>,
    protocol: Option<Protocol>,
    add: Option<Add>,
    remove: Option<Remove>,
    meta_data: Option<Value>,
}

#[derive(Deserialize)]
struct Add {
    path: String,
    size: u64,
    stats: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remove {
    path: String,
    deletion_timestamp: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitInfo {
    kiro_batch: Option<String>,
    /// Milliseconds; others may write something else.
    timestamp: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protocol {
    #[serde(default)]
    min_reader_version: i64,
    min_writer_version: i64,
}

/// What `_last_checkpoint` tells.
#[derive(Deserialize)]
pub(crate) struct Hint {
    pub(crate) version: i64,
}

impl Head {
    /// Takes in the next commit.
    pub(crate) fn apply(&mut self, table: &'static Table, entry: &Entry) -> Result<()> {
        self.take(table, entry)?;
        self.version += 1;
        Ok(())
    }

    fn take(&mut self, table: &'static Table, entry: &Entry) -> Result<()> {
        if let Some((reader, writer)) = entry.protocol.filter(|(reader, writer)| *reader > PROTOCOL.0 || *writer > PROTOCOL.1) {
            return Err(Error::Protocol { table: table.name, reader, writer });
        }
        if let Some(action) = entry.metadata.as_ref().filter(|_| !self.is_foreign) {
            self.meta = Some(Arc::new(Meta::of(table, action.clone())?));
        }
        self.offsets.extend(entry.transactions.iter().cloned());
        Ok(())
    }
}

/// Reads the log of one table.
#[derive(Debug, Clone)]
pub(crate) struct TableLog {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) table: &'static Table,
    /// Where the table is, and where its log.
    pub(crate) root: Path,
    pub(crate) dir: Path,
    pub(crate) backoff: Backoff,
    pub(crate) clock: Arc<dyn Clock>,
    /// See [`TRUST`].
    pub(crate) trust: Duration,
    /// It is of another version of the folds, whose columns may be others: its rows are not read.
    pub(crate) is_foreign: bool,
}

/// Where reading begins: what the newest checkpoint says, and which commit is the newest.
struct Base {
    head: Head,
    checkpoint: Option<(Path, Bytes)>,
    newest: i64,
}

/// What a log is made of.
pub(crate) enum Part<'p> {
    Checkpoint(&'p Path, Bytes),
    Commit(&'p Entry),
}

impl TableLog {
    /// Where a table lies that has its own `folder`, and where its log.
    pub(crate) fn paths(folder: &str) -> (Path, Path) {
        let root = Path::from_iter(["tables", folder]);
        (root.clone(), root.join("_delta_log"))
    }

    /// The file of a commit.
    pub(crate) fn commit_path(&self, version: i64) -> Path {
        self.dir.clone().join(format!("{version:020}.json"))
    }

    /// One commit; `None` when it is not there.
    pub(crate) async fn read(&self, version: i64) -> Result<Option<Entry>> {
        let path = self.commit_path(version);
        match self.get(&path).await? {
            Some(bytes) => parse_entry(&path, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Version of the newest checkpoint by `_last_checkpoint`; -1 when there is none.
    pub(crate) async fn checkpoint_hint(&self) -> Result<i64> {
        let bytes = self.get(&self.dir.clone().join("_last_checkpoint")).await?;
        Ok(bytes.and_then(|b| serde_json::from_slice::<Hint>(&b).ok()).map_or(-1, |hint| hint.version))
    }

    /// Brings `head` to the newest commit.
    pub(crate) async fn advance(&self, head: &mut Head) -> Result<()> {
        if self.is_left_behind(head).await? {
            let Some(loaded) = self.load().await? else { return Err(self.gone()) };
            *head = loaded;
            return Ok(());
        }
        self.read_on(head, |_| Ok(())).await
    }

    /// Whether a checkpoint lies above `head`, so that what comes next may have been cleaned away; asked now and then.
    pub(crate) async fn is_left_behind(&self, head: &mut Head) -> Result<bool> {
        let now = self.clock.now();
        if since(head.looked_at, now).is_some_and(|since| since < self.trust) {
            return Ok(false);
        }
        let hint = self.checkpoint_hint().await?;
        (head.looked_at, head.checkpoint) = (now, head.checkpoint.max(hint));
        Ok(hint > head.version)
    }

    /// Whether so much time has passed since that what came next may have been cleaned away, or taken for left behind.
    pub(crate) fn is_late(&self, looked_at: Micros) -> bool {
        since(looked_at, self.clock.now()).is_none_or(|since| since >= LATE)
    }

    /// Reads on to the newest commit; `each` sees every commit on the way.
    pub(crate) async fn read_on(&self, head: &mut Head, mut each: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
        while let Some(entry) = self.read(head.version + 1).await? {
            head.apply(self.table, &entry)?;
            each(&entry)?;
        }
        Ok(())
    }

    /// Where the table stands; `None` when it is not there.
    pub(crate) async fn load(&self) -> Result<Option<Head>> {
        self.load_with(|_| Ok(())).await
    }

    /// The same; `each` sees all that it is made of.
    pub(crate) async fn load_with(&self, mut each: impl FnMut(Part<'_>) -> Result<()>) -> Result<Option<Head>> {
        let Base { mut head, checkpoint, newest } = self.base().await?;
        if let Some((path, bytes)) = checkpoint {
            head.take(self.table, &state_of_checkpoint(self.table, &path, bytes.clone())?)?;
            each(Part::Checkpoint(&path, bytes))?;
        }
        let listed = head.version + 1..=newest;
        let mut commits = stream::iter(listed).map(|version| self.read(version)).buffered(READ_AT_ONCE);
        while let Some(Some(entry)) = commits.try_next().await? {
            head.apply(self.table, &entry)?;
            each(Part::Commit(&entry))?;
        }
        drop(commits);
        self.read_on(&mut head, |entry| each(Part::Commit(entry))).await?;
        if head.version < newest {
            let reason = format!("commit {} is missing, {newest} is there", head.version + 1);
            return Err(Error::Corrupt { path: self.dir.to_string(), reason });
        }
        Ok((head.version >= 0).then_some(head))
    }

    async fn base(&self) -> Result<Base> {
        let looked_at = self.clock.now();
        let (newest, checkpoint) = self.list().await?;
        let head = Head { version: checkpoint, checkpoint, looked_at, is_foreign: self.is_foreign, ..Head::default() };
        if checkpoint < 0 {
            return Ok(Base { head, checkpoint: None, newest });
        }
        let checkpoint = Some(self.checkpoint(checkpoint).await?);
        Ok(Base { head, checkpoint, newest })
    }

    pub(crate) fn checkpoint_path(&self, version: i64) -> Path {
        self.dir.clone().join(format!("{version:020}.checkpoint.parquet"))
    }

    pub(crate) fn gone(&self) -> Error {
        Error::Corrupt { path: self.dir.to_string(), reason: "the table is gone".into() }
    }

    /// The newest commit and the newest checkpoint that a listing shows; -1 for none.
    async fn list(&self) -> Result<(i64, i64)> {
        // What lies below the last checkpoint is not needed, and can be much.
        let hint = self.checkpoint_hint().await?;
        let (mut newest, mut checkpoint) = (-1, -1);
        for file in self.files_from(hint).await? {
            match version_of(&file.location) {
                Some((version, "json")) => newest = newest.max(version),
                Some((version, "checkpoint.parquet")) => checkpoint = checkpoint.max(version),
                _ => {}
            }
        }
        Ok((newest, checkpoint))
    }

    /// The files of the log from a version on.
    pub(crate) async fn files_from(&self, version: i64) -> Result<Vec<ObjectMeta>> {
        let offset = self.dir.clone().join(format!("{:020}", version.max(0)));
        let mut attempt = 0;
        loop {
            match self.store.list_with_offset(Some(&self.dir), &offset).try_collect().await {
                Ok(files) => return Ok(files),
                Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
                Err(source) if attempt + 1 >= READ_ATTEMPTS => return Err(Error::store("list", &self.dir, source)),
                Err(_) => self.backoff.wait(attempt).await,
            }
            attempt += 1;
        }
    }

    /// Where the table stands by a checkpoint.
    pub(crate) async fn at_checkpoint(&self, version: i64) -> Result<Head> {
        let (path, bytes) = self.checkpoint(version).await?;
        let mut head = Head { version, checkpoint: version, looked_at: self.clock.now(), ..Head::default() };
        head.take(self.table, &state_of_checkpoint(self.table, &path, bytes)?)?;
        Ok(head)
    }

    /// Some actions of a checkpoint, as the lines of a commit that says the same.
    pub(crate) async fn read_checkpoint(&self, version: i64, actions: &[&str]) -> Result<Vec<u8>> {
        let (_, bytes) = self.checkpoint(version).await?;
        lines_of_checkpoint(self.table, bytes, actions)
    }

    async fn checkpoint(&self, version: i64) -> Result<(Path, Bytes)> {
        let path = self.checkpoint_path(version);
        match self.get(&path).await? {
            Some(bytes) => Ok((path, bytes)),
            None => Err(Error::Corrupt { path: path.to_string(), reason: "it was listed and is gone".into() }),
        }
    }

    /// The bytes of an object; `None` when it is not there.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let mut attempt = 0;
        loop {
            let read = match self.store.get(path).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match read {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(source) if attempt + 1 >= READ_ATTEMPTS => return Err(Error::store("read", path, source)),
                Err(_) => self.backoff.wait(attempt).await,
            }
            attempt += 1;
        }
    }
}

/// Reads a commit. An empty file is damage: a power cut leaves it, and readers would take it as "nothing happened".
pub(crate) fn parse_entry(path: &Path, bytes: &[u8]) -> Result<Entry> {
    let damaged = |reason: String| Error::Corrupt { path: path.to_string(), reason };
    let mut entry = Entry::default();
    let mut lines = 0;
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|e| damaged(e.to_string()))?;
        lines += 1;
        if let Some(info) = line.commit_info {
            entry.batch = info.kiro_batch;
            let millis = info.timestamp.as_ref().and_then(Value::as_i64);
            entry.committed_at = millis.and_then(|millis| millis.checked_mul(1_000)).map(Micros);
        }
        if let Some(txn) = line.txn {
            entry.transactions.push((txn.app_id, txn.version));
        }
        if let Some(protocol) = line.protocol {
            entry.protocol = Some((protocol.min_reader_version, protocol.min_writer_version));
        }
        if let Some(add) = line.add {
            entry.added.push(DataFile::new(add.path, add.size, add.stats.as_deref()));
        }
        if let Some(remove) = line.remove {
            entry.removed.push((remove.path, remove.deletion_timestamp.unwrap_or(0)));
        }
        entry.metadata = line.meta_data.or(entry.metadata);
    }
    if lines == 0 { Err(damaged("it is empty".into())) } else { Ok(entry) }
}

/// `None` when the clock was set back.
fn since(then: Micros, now: Micros) -> Option<Duration> {
    u64::try_from(now.0.saturating_sub(then.0)).ok().map(Duration::from_micros)
}

/// The version of a file of the log, and what comes after it in its name.
pub(crate) fn version_of(path: &Path) -> Option<(i64, &str)> {
    let (version, rest) = path.filename()?.split_once('.')?;
    Some((Some(version).filter(|v| v.len() == 20)?.parse().ok()?, rest))
}

/// What a checkpoint says of the table but for its files.
fn state_of_checkpoint(table: &'static Table, path: &Path, bytes: Bytes) -> Result<Entry> {
    parse_entry(path, &lines_of_checkpoint(table, bytes, &["txn", "metaData", "protocol"])?)
}

fn lines_of_checkpoint(table: &'static Table, bytes: Bytes, actions: &[&str]) -> Result<Vec<u8>> {
    let parquet = |source| Error::Parquet { table: table.name, source: Box::new(source) };
    let arrow = |source| Error::Arrow { table: table.name, source: Box::new(source) };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).map_err(parquet)?;
    // A table that never had a transaction has no such column.
    let mask = ProjectionMask::columns(builder.parquet_schema(), actions.iter().copied());
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in builder.with_projection(mask).build().map_err(parquet)? {
        writer.write(&batch.map_err(arrow)?).map_err(arrow)?;
    }
    writer.finish().map_err(arrow)?;
    Ok(writer.into_inner())
}

/// Some columns of a checkpoint.
pub(crate) fn checkpoint_columns(table: &'static Table, bytes: Bytes, columns: &[&str]) -> Result<Vec<RecordBatch>> {
    let parquet = |source| Error::Parquet { table: table.name, source: Box::new(source) };
    let arrow = |source| Error::Arrow { table: table.name, source: Box::new(source) };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask).build().map_err(parquet)?.map(|batch| batch.map_err(arrow)).collect()
}

/// A struct and some of its fields.
type Fields<'b, const N: usize> = Option<(&'b StructArray, [&'b ArrayRef; N])>;

/// A struct of a checkpoint with some of its fields; `None` where it is not there.
pub(crate) fn struct_of<'b, const N: usize>(batch: &'b RecordBatch, name: &str, fields: [&str; N], path: &Path) -> Result<Fields<'b, N>> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    let Some(found) = column.as_any().downcast_ref::<StructArray>() else {
        return Err(Error::Corrupt { path: path.to_string(), reason: format!("{name} is not a struct") });
    };
    let columns: Option<Vec<_>> = fields.iter().map(|field| found.column_by_name(field)).collect();
    Ok(columns.and_then(|columns| columns.try_into().ok()).map(|columns| (found, columns)))
}
