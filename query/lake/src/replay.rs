//! A table's log as upkeep needs it: which files there are, and which there were.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use kiro_schemas::Micros;
use kiro_tables::Table;
use object_store::path::Path;
use serde::Deserialize;
use serde_json::Value;

use crate::log::{Entry, Head, Part, TableLog, checkpoint_columns, struct_of};
use crate::{Error, Result};

/// What stands at the beginning and the end of the names of our files; others are left alone.
const OURS: (&str, &str) = ("part-", ".zstd.parquet");

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    /// `None` where the log does not say it, or the file is not ours.
    pub(crate) content: Option<Content>,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    /// The first and the last `recorded_at`.
    pub(crate) from: Micros,
    pub(crate) to: Micros,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: u64,
    min_values: Recorded,
    max_values: Recorded,
}

#[derive(Deserialize)]
struct Recorded {
    recorded_at: Micros,
}

impl DataFile {
    pub(crate) fn new(path: String, size: u64, stats: Option<&str>) -> Self {
        let stats = stats.filter(|_| is_ours(&path)).and_then(|s| serde_json::from_str::<Stats>(s).ok());
        let content = stats.map(|s| Content { rows: s.num_records, from: s.min_values.recorded_at, to: s.max_values.recorded_at });
        Self { path, size, content }
    }
}

/// Whether a file has a name of ours and lies in the table's own folder.
pub(crate) fn is_ours(path: &str) -> bool {
    path.starts_with(OURS.0) && path.ends_with(OURS.1) && !path.contains('/')
}

/// The files of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) live: BTreeMap<String, DataFile>,
    /// Those that were taken out, and when, in milliseconds; in the log for as long as the table's properties say.
    pub(crate) removed: BTreeMap<String, i64>,
    /// What the log says of the table itself, in its own words.
    pub(crate) metadata: Value,
    /// When the newest commit was made, where it was read.
    pub(crate) committed_at: Option<Micros>,
}

impl Files {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.committed_at = entry.committed_at;
        if let Some(metadata) = &entry.metadata {
            self.metadata.clone_from(metadata);
        }
        for (path, at) in &entry.removed {
            self.live.remove(path);
            self.removed.insert(path.clone(), *at);
        }
        for file in &entry.added {
            self.removed.remove(&file.path);
            self.live.insert(file.path.clone(), file.clone());
        }
    }

    fn of_checkpoint(table: &'static Table, path: &Path, bytes: Bytes) -> Result<Self> {
        const COLUMNS: [&str; 5] = ["add.path", "add.size", "add.stats", "remove.path", "remove.deletionTimestamp"];
        let failed = |source| Error::Arrow { table: table.name, source: Box::new(source) };
        let mut files = Self { metadata: metadata_of(table, path, bytes.clone())?, ..Self::default() };
        for batch in checkpoint_columns(table, bytes, &COLUMNS)? {
            let Some((add, [paths, sizes])) = struct_of(&batch, "add", ["path", "size"], path)? else {
                return Err(Error::Corrupt { path: path.to_string(), reason: "it does not name files".into() });
            };
            let stats = struct_of(&batch, "add", ["stats"], path)?.map(|(_, [stats])| cast(stats, &DataType::Utf8)).transpose();
            let (paths, stats) = (cast(paths, &DataType::Utf8).map_err(failed)?, stats.map_err(failed)?);
            let (paths, sizes) = (paths.as_string::<i32>(), sizes.as_primitive::<Int64Type>());
            let stats = stats.as_ref().map(AsArray::as_string::<i32>);
            for row in (0..add.len()).filter(|row| add.is_valid(*row)) {
                let (name, size) = (paths.value(row).to_owned(), u64::try_from(sizes.value(row)).unwrap_or(0));
                let stats = stats.filter(|stats| stats.is_valid(row)).map(|stats| stats.value(row));
                files.live.insert(name.clone(), DataFile::new(name, size, stats));
            }
            if let Some((remove, [paths, times])) = struct_of(&batch, "remove", ["path", "deletionTimestamp"], path)? {
                let (paths, times) = (cast(paths, &DataType::Utf8).map_err(failed)?, cast(times, &DataType::Int64).map_err(failed)?);
                let (paths, times) = (paths.as_string::<i32>(), times.as_primitive::<Int64Type>());
                for row in (0..remove.len()).filter(|row| remove.is_valid(*row)) {
                    let at = if times.is_valid(row) { times.value(row) } else { 0 };
                    files.removed.insert(paths.value(row).to_owned(), at);
                }
            }
        }
        Ok(files)
    }
}

/// The metadata in a checkpoint.
fn metadata_of(table: &'static Table, path: &Path, bytes: Bytes) -> Result<Value> {
    let failed = |source| Error::Arrow { table: table.name, source: Box::new(source) };
    let damaged = |reason: String| Error::Corrupt { path: path.to_string(), reason };
    let mut lines = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut lines);
    for batch in checkpoint_columns(table, bytes, &["metaData"])? {
        writer.write(&batch).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let mut line: Value = serde_json::from_slice(line).map_err(|e| damaged(e.to_string()))?;
        if line["metaData"].is_object() {
            return Ok(line["metaData"].take());
        }
    }
    Err(damaged("it does not say what the table is".into()))
}

/// Where a table stands, with its files.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) files: Files,
}

impl State {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.live.values().map(|file| file.size).sum()
    }
}

impl TableLog {
    /// The newest state, from one that is known if there is one; `None` when the table is not there.
    pub(crate) async fn state(&self, known: Option<State>) -> Result<Option<State>> {
        if let Some(State { mut head, mut files }) = known
            && !self.is_left_behind(&mut head).await?
        {
            self.read_on(&mut head, |entry| {
                files.apply(entry);
                Ok(())
            })
            .await?;
            return Ok(Some(State { head, files }));
        }
        let mut files = Files::default();
        let head = self
            .load_with(|part| {
                match part {
                    Part::Checkpoint(path, bytes) => files = Files::of_checkpoint(self.table, path, bytes)?,
                    Part::Commit(entry) => files.apply(entry),
                }
                Ok(())
            })
            .await?;
        Ok(head.map(|head| State { head, files }))
    }
}
