//! Looks at a table without loading it: its log, commit by commit, and whether each live file is there and is what was written.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::TryStreamExt as _;
use kiro_ports::Offsets;
use object_store::ObjectStore as _;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use crate::files::{self, DIGEST};
use crate::log::{Head, TableLog, parse_entry};
use crate::{Error, Result};

/// A file that the newest version of a table names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    /// Its path in the table's folder.
    pub path: String,
    /// Its size, as its commit tells.
    pub size: u64,
    /// Its SHA-256, hexadecimal, where its commit tells one.
    pub digest: Option<String>,
}

/// Something that is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// A commit is missing between others.
    MissingCommit {
        /// Its path.
        path: String,
    },
    /// A commit cannot be read: what follows is not looked at.
    DamagedCommit {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The newest checkpoint, or the file that names it, cannot be read.
    DamagedCheckpoint {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The table does not fit this program.
    Misfit {
        /// Why.
        reason: String,
    },
    /// A live file is not there.
    MissingFile {
        /// Its path.
        path: String,
    },
    /// A live file has another size than was written.
    WrongSize {
        /// Its path.
        path: String,
        /// The size that was written.
        written: u64,
        /// The size that it has.
        found: u64,
    },
}

/// A table as it lies there.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Its folder.
    pub folder: String,
    /// Its newest version; `None` when the table is not there.
    pub version: Option<i64>,
    /// Where it stands.
    pub offsets: Offsets,
    /// The files of its newest version.
    pub live: Vec<LiveFile>,
    /// Data files that the newest version does not name: of commits that failed, or of older versions.
    pub unnamed: usize,
    /// What is wrong with it.
    pub flaws: Vec<Flaw>,
}

#[derive(Deserialize)]
struct Line {
    add: Option<Add>,
    remove: Option<Remove>,
}

#[derive(Deserialize)]
struct Add {
    path: String,
    size: u64,
    #[serde(default)]
    tags: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

/// What a listing of the folder shows.
#[derive(Default)]
struct Listing {
    commits: BTreeSet<i64>,
    checkpoints: BTreeSet<i64>,
    files: BTreeMap<String, u64>,
}

/// Looks at a table.
pub(crate) async fn table(log: &TableLog) -> Result<Inspection> {
    let listing = list(log).await?;
    let mut found = Inspection { folder: log.root.to_string(), ..Inspection::default() };
    if listing.commits.is_empty() && listing.checkpoints.is_empty() {
        return Ok(found);
    }
    let mut live = BTreeMap::new();
    let mut head = begin(log, &listing, &mut live, &mut found.flaws).await?;
    let newest = listing.commits.last().copied().unwrap_or(-1);
    while head.version < newest {
        let path = log.commit_path(head.version + 1);
        let bytes = log.get(&path).await?;
        let Some(bytes) = bytes else {
            found.flaws.push(Flaw::MissingCommit { path: path.to_string() });
            break;
        };
        match parse_entry(&path, &bytes).and_then(|entry| head.apply(log.table, &entry)).and_then(|()| reconcile(&path, &bytes, &mut live))
        {
            Ok(()) => {}
            Err(error @ (Error::Schema { .. } | Error::Protocol { .. })) => {
                found.flaws.push(Flaw::Misfit { reason: error.to_string() });
                break;
            }
            Err(error) => {
                found.flaws.push(Flaw::DamagedCommit { path: path.to_string(), reason: error.to_string() });
                break;
            }
        }
    }
    for file in live.values() {
        match listing.files.get(&file.path) {
            None => found.flaws.push(Flaw::MissingFile { path: full(log, &file.path) }),
            Some(size) if *size != file.size => {
                found.flaws.push(Flaw::WrongSize { path: full(log, &file.path), written: file.size, found: *size });
            }
            Some(_) => {}
        }
    }
    found.unnamed = listing.files.keys().filter(|path| !live.contains_key(*path)).count();
    found.version = Some(head.version.max(newest));
    found.offsets = head.offsets;
    found.live = live.into_values().collect();
    Ok(found)
}

fn full(log: &TableLog, path: &str) -> String {
    format!("{}/{path}", log.root)
}

async fn list(log: &TableLog) -> Result<Listing> {
    let mut listing = Listing::default();
    let objects: Vec<_> = match log.store.list(Some(&log.root)).try_collect().await {
        Ok(objects) => objects,
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        Err(source) => return Err(Error::store("list", &log.root, source)),
    };
    for object in objects {
        let Some(path) = object.location.prefix_match(&log.root).map(|parts| parts.collect::<Path>().to_string()) else { continue };
        let Some(name) = path.strip_prefix("_delta_log/") else {
            listing.files.insert(path, object.size);
            continue;
        };
        let Some((version, rest)) = name.split_once('.') else { continue };
        match (version.parse::<i64>(), rest) {
            (Ok(version), "json") => drop(listing.commits.insert(version)),
            (Ok(version), "checkpoint.parquet") => drop(listing.checkpoints.insert(version)),
            _ => {}
        }
    }
    Ok(listing)
}

/// The newest checkpoint that can be read, else the beginning.
async fn begin(log: &TableLog, listing: &Listing, live: &mut BTreeMap<String, LiveFile>, flaws: &mut Vec<Flaw>) -> Result<Head> {
    let hint = log.dir.clone().join("_last_checkpoint");
    match log.get(&hint).await?.map(|bytes| serde_json::from_slice::<crate::log::Hint>(&bytes)) {
        Some(Ok(named)) if !listing.checkpoints.contains(&named.version) => {
            let reason = format!("it names the checkpoint of version {}, which is not there", named.version);
            flaws.push(Flaw::DamagedCheckpoint { path: hint.to_string(), reason });
        }
        Some(Err(error)) => flaws.push(Flaw::DamagedCheckpoint { path: hint.to_string(), reason: error.to_string() }),
        _ => {}
    }
    for version in listing.checkpoints.iter().rev().copied() {
        let path = log.checkpoint_path(version);
        let mut files = BTreeMap::new();
        match from_checkpoint(log, version, &mut files).await {
            Ok(head) => {
                *live = files;
                return Ok(head);
            }
            Err(error @ Error::Store { .. }) => return Err(error),
            Err(error) => flaws.push(Flaw::DamagedCheckpoint { path: path.to_string(), reason: error.to_string() }),
        }
    }
    Ok(Head { version: -1, checkpoint: -1, ..Head::default() })
}

async fn from_checkpoint(log: &TableLog, version: i64, live: &mut BTreeMap<String, LiveFile>) -> Result<Head> {
    let head = log.at_checkpoint(version).await?;
    let lines = log.read_checkpoint(version, &["add.path", "add.size", "add.tags"]).await?;
    reconcile(&log.checkpoint_path(version), &lines, live)?;
    Ok(head)
}

/// Takes in the files that a commit adds and removes.
fn reconcile(path: &Path, bytes: &[u8], live: &mut BTreeMap<String, LiveFile>) -> Result<()> {
    let damaged = |reason: String| Error::Corrupt { path: path.to_string(), reason };
    let plain = |url: &str| Path::from_url_path(url).map(String::from).map_err(|error| damaged(error.to_string()));
    for line in bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let action: Line = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        if let Some(remove) = action.remove {
            live.remove(&plain(&remove.path)?);
        }
        if let Some(add) = action.add {
            let path = plain(&add.path)?;
            let digest = add.tags.and_then(|mut tags| tags.remove(DIGEST)).flatten();
            live.insert(path.clone(), LiveFile { path, size: add.size, digest });
        }
    }
    Ok(())
}

/// The bytes of a live file, if they are those that were written.
pub(crate) async fn read_file(log: &TableLog, file: &LiveFile) -> Result<Bytes> {
    let path = log.root.parts().chain(Path::from(file.path.as_str()).parts()).collect::<Path>();
    let damaged = |reason: String| Err(Error::Corrupt { path: path.to_string(), reason });
    let Some(bytes) = log.get(&path).await? else { return damaged("it is not there".into()) };
    let found = files::digest(&bytes);
    match &file.digest {
        Some(written) if *written != found => damaged(format!("its SHA-256 is {found}, {written} was written")),
        None if bytes.len() as u64 != file.size => damaged(format!("it has {} bytes, {} were written", bytes.len(), file.size)),
        _ => Ok(bytes),
    }
}

/// The rows of a live file.
pub(crate) async fn file_rows(log: &TableLog, file: &LiveFile) -> Result<Vec<RecordBatch>> {
    let (table, bytes) = (log.table, read_file(log, file).await?);
    let parquet = move |source| Error::Parquet { table: table.name, source: Box::new(source) };
    let read = move || -> Result<Vec<RecordBatch>> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet)?.build().map_err(parquet)?;
        reader.map(|batch| batch.map_err(|source| Error::Arrow { table: table.name, source: Box::new(source) })).collect()
    };
    // The bytes of a file without a digest may be anything, and the decoder may not survive them.
    tokio::task::spawn_blocking(read).await.map_err(|e| Error::Worker { table: table.name, reason: e.to_string() })?
}
