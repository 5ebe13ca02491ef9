//! A table's Delta log as the committer needs it: versions and transactions, no files.
//!
//! # Source
//! Delta transaction log protocol: file names, action reconciliation of `txn`, checkpoints (version 1, one file).

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use futures::TryStreamExt as _;
use kiro_ports::Offsets;
use kiro_tables::Table;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use crate::{Error, Result};

const READ_ATTEMPTS: u32 = 6;
/// The newest writer version whose rules we keep.
const WRITER_VERSION: i64 = 2;

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
}

/// What one commit says.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) batch: Option<String>,
    transactions: Vec<(String, i64)>,
    writer: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
    txn: Option<Txn>,
    protocol: Option<Protocol>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitInfo {
    kiro_batch: Option<String>,
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
    min_writer_version: i64,
}

#[derive(Deserialize)]
struct Hint {
    version: i64,
}

impl Head {
    /// Takes in the next commit.
    pub(crate) fn apply(&mut self, table: &'static Table, entry: &Entry) -> Result<()> {
        if let Some(writer) = entry.writer.filter(|w| *w > WRITER_VERSION) {
            return Err(Error::Protocol { table: table.name, writer });
        }
        self.version += 1;
        for (app, next) in &entry.transactions {
            self.offsets.insert(app.clone(), *next);
        }
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
}

impl TableLog {
    /// The log of a table that lies in `folder`.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, table: &'static Table, folder: &str, backoff: Backoff) -> Self {
        let root = Path::from_iter(["tables", folder]);
        Self { store, table, dir: root.clone().join("_delta_log"), root, backoff }
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

    /// Reads on from where `head` stands to the newest commit.
    pub(crate) async fn advance(&self, head: &mut Head) -> Result<()> {
        while let Some(entry) = self.read(head.version + 1).await? {
            head.apply(self.table, &entry)?;
        }
        Ok(())
    }

    /// Where the table stands; `None` when it is not there.
    pub(crate) async fn load(&self) -> Result<Option<Head>> {
        let (newest, checkpoint) = self.list().await?;
        let mut head = Head { version: checkpoint, checkpoint, ..Head::default() };
        if checkpoint >= 0 {
            head.offsets = self.read_checkpoint(checkpoint).await?;
        }
        self.advance(&mut head).await?;
        if head.version < newest {
            let reason = format!("commit {} is missing, {newest} is there", head.version + 1);
            return Err(Error::Corrupt { path: self.dir.to_string(), reason });
        }
        Ok((head.version >= 0).then_some(head))
    }

    /// The newest commit and the newest checkpoint that a listing shows; -1 for none.
    async fn list(&self) -> Result<(i64, i64)> {
        let mut attempt = 0;
        let files: Vec<_> = loop {
            match self.store.list(Some(&self.dir)).try_collect().await {
                Ok(files) => break files,
                Err(object_store::Error::NotFound { .. }) => break Vec::new(),
                Err(source) if attempt + 1 >= READ_ATTEMPTS => return Err(Error::store("list", &self.dir, source)),
                Err(_) => self.backoff.wait(attempt).await,
            }
            attempt += 1;
        };
        let (mut newest, mut checkpoint) = (-1, -1);
        for file in files {
            let Some((version, rest)) = file.location.filename().and_then(|name| name.split_once('.')) else { continue };
            let Some(version) = Some(version).filter(|v| v.len() == 20).and_then(|v| v.parse::<i64>().ok()) else { continue };
            match rest {
                "json" => newest = newest.max(version),
                "checkpoint.parquet" => checkpoint = checkpoint.max(version),
                _ => {}
            }
        }
        Ok((newest, checkpoint))
    }

    async fn read_checkpoint(&self, version: i64) -> Result<Offsets> {
        let path = self.dir.clone().join(format!("{version:020}.checkpoint.parquet"));
        let Some(bytes) = self.get(&path).await? else {
            return Err(Error::Corrupt { path: path.to_string(), reason: "it was listed and is gone".into() });
        };
        transactions_of_checkpoint(self.table, &path, bytes)
    }

    /// The bytes of an object; `None` when it is not there.
    async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
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
        }
        if let Some(txn) = line.txn {
            entry.transactions.push((txn.app_id, txn.version));
        }
        if let Some(protocol) = line.protocol {
            entry.writer = Some(protocol.min_writer_version);
        }
    }
    if lines == 0 { Err(damaged("it is empty".into())) } else { Ok(entry) }
}

fn transactions_of_checkpoint(table: &'static Table, path: &Path, bytes: Bytes) -> Result<Offsets> {
    let parquet = |source| Error::Parquet { table: table.name, source: Box::new(source) };
    let arrow = |source| Error::Arrow { table: table.name, source: Box::new(source) };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn.appId", "txn.version"]);
    let reader = builder.with_projection(mask).build().map_err(parquet)?;
    let mut offsets = Offsets::new();
    for batch in reader {
        let batch = batch.map_err(arrow)?;
        // A table that never had a transaction has no such column.
        let Some(txn) = batch.column_by_name("txn") else { continue };
        let Some(txn) = txn.as_any().downcast_ref::<StructArray>() else {
            return Err(Error::Corrupt { path: path.to_string(), reason: "txn is not a struct".into() });
        };
        let (Some(apps), Some(versions)) = (txn.column_by_name("appId"), txn.column_by_name("version")) else { continue };
        let apps = cast(apps, &DataType::Utf8).map_err(arrow)?;
        let versions = cast(versions, &DataType::Int64).map_err(arrow)?;
        let (apps, versions) = (apps.as_string::<i32>(), versions.as_primitive::<Int64Type>());
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && apps.is_valid(*row)) {
            offsets.insert(apps.value(row).to_owned(), versions.value(row));
        }
    }
    Ok(offsets)
}
