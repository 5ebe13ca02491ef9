//! A table's Delta log as the committer needs it: versions and transactions, no files.
//!
//! # Source
//! Delta transaction log protocol: file names, action reconciliation of `txn`, checkpoints (version 1, one file).

use std::sync::Arc;
use std::time::Duration;

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use futures::TryStreamExt as _;
use kiro_ports::Offsets;
use kiro_tables::Table;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::meta::Meta;
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
    /// Its columns; `None` before the log has told.
    pub(crate) meta: Option<Arc<Meta>>,
}

/// What one commit says.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) batch: Option<String>,
    transactions: Vec<(String, i64)>,
    writer: Option<i64>,
    meta: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
    txn: Option<Txn>,
    protocol: Option<Protocol>,
    meta_data: Option<Value>,
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

/// What `_last_checkpoint` tells.
#[derive(Deserialize)]
pub(crate) struct Hint {
    pub(crate) version: i64,
}

impl Head {
    /// Takes in the next commit.
    pub(crate) fn apply(&mut self, table: &'static Table, entry: Entry) -> Result<()> {
        self.take(table, entry)?;
        self.version += 1;
        Ok(())
    }

    fn take(&mut self, table: &'static Table, entry: Entry) -> Result<()> {
        if let Some(writer) = entry.writer.filter(|w| *w > WRITER_VERSION) {
            return Err(Error::Protocol { table: table.name, writer });
        }
        if let Some(action) = entry.meta {
            self.meta = Some(Arc::new(Meta::of(table, action)?));
        }
        self.offsets.extend(entry.transactions);
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
            head.apply(self.table, entry)?;
        }
        Ok(())
    }

    /// Where the table stands; `None` when it is not there.
    pub(crate) async fn load(&self) -> Result<Option<Head>> {
        let (newest, checkpoint) = self.list().await?;
        let mut head = Head { version: -1, checkpoint, ..Head::default() };
        if checkpoint >= 0 {
            head = self.at_checkpoint(checkpoint).await?;
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

    /// Where the table stands by a checkpoint.
    pub(crate) async fn at_checkpoint(&self, version: i64) -> Result<Head> {
        let mut head = Head { version, checkpoint: version, ..Head::default() };
        let lines = self.read_checkpoint(version, &["txn", "metaData", "protocol"]).await?;
        head.take(self.table, parse_entry(&self.checkpoint_path(version), &lines)?)?;
        Ok(head)
    }

    /// The file of a checkpoint.
    pub(crate) fn checkpoint_path(&self, version: i64) -> Path {
        self.dir.clone().join(format!("{version:020}.checkpoint.parquet"))
    }

    /// Some actions of a checkpoint, as the lines of a commit that says the same.
    pub(crate) async fn read_checkpoint(&self, version: i64, actions: &[&str]) -> Result<Vec<u8>> {
        let path = self.checkpoint_path(version);
        let Some(bytes) = self.get(&path).await? else {
            return Err(Error::Corrupt { path: path.to_string(), reason: "it was listed and is gone".into() });
        };
        lines_of_checkpoint(self.table, bytes, actions)
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
        }
        if let Some(txn) = line.txn {
            entry.transactions.push((txn.app_id, txn.version));
        }
        entry.meta = line.meta_data.or(entry.meta);
        if let Some(protocol) = line.protocol {
            entry.writer = Some(protocol.min_writer_version);
        }
    }
    if lines == 0 { Err(damaged("it is empty".into())) } else { Ok(entry) }
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
