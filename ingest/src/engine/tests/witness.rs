//! Reads the lake without its code: replays the Delta logs line by line and reads the Parquet files.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::FutureExt as _;
use kiro_ports::{Offsets, Snapshot};
use kiro_tables::{Table, TableName};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::super::batches;

/// A row's place in the log, and its event: partition, offset, id.
pub(super) type Row = (i32, i64, String);

/// A table at a version.
#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    number: i64,
    offsets: Offsets,
    files: Vec<(String, Vec<RecordBatch>)>,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) rows: Arc<Vec<Row>>,
}

impl Snapshot for Version {
    fn version(&self) -> i64 {
        self.number
    }

    fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Reads tables, each commit once.
#[derive(Debug)]
pub(super) struct Witness {
    store: Arc<InMemory>,
    known: Mutex<BTreeMap<TableName, Arc<Version>>>,
}

impl Witness {
    pub(super) fn new(store: Arc<InMemory>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// The newest version of a table; `None` when it is not there.
    pub(super) fn read(&self, table: &'static Table) -> Option<Arc<Version>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = known.get(table.name).map_or(-1, |v| v.number);
        while let Some(commit) = self.get(&format!("tables/{}/_delta_log/{:020}.json", table.name, number + 1)) {
            number += 1;
            let version = Arc::make_mut(known.entry(table.name).or_default());
            version.number = number;
            self.apply(table, version, &commit);
        }
        known.get(table.name).cloned()
    }

    /// Where the table stands in a partition.
    pub(super) fn stands(&self, table: &'static Table, app: &str) -> Option<i64> {
        self.read(table)?.offsets.get(app).copied()
    }

    fn apply(&self, table: &'static Table, version: &mut Version, commit: &Bytes) {
        let mut is_rewritten = false;
        for line in commit.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let line: Value = serde_json::from_slice(line).expect("a line of JSON");
            if let Some(txn) = line.get("txn") {
                let next = txn["version"].as_i64().expect("a version");
                let before = version.offsets.insert(txn["appId"].as_str().expect("an id").to_owned(), next);
                assert!(before.is_none_or(|b| b <= next), "{}: a transaction moves back from {before:?} to {next}", table.name);
            }
            if let Some(path) = line.get("remove").map(|remove| remove["path"].as_str().expect("a path")) {
                let place = version.files.iter().position(|(known, _)| known == path);
                version.files.remove(place.expect("a file is taken out once"));
                is_rewritten = true;
            }
            if let Some(path) = line.get("add").and_then(|add| add["path"].as_str()) {
                let file = self.get(&format!("tables/{}/{path}", table.name)).expect("a file that a commit names");
                let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
                let found: Vec<_> =
                    reader.map(|batch| batches::conform(table, &batch.expect("rows")).expect("rows of the table")).collect();
                Arc::make_mut(&mut version.rows).extend(found.iter().flat_map(rows));
                version.batches.extend(found.iter().cloned());
                version.files.push((path.to_owned(), found));
            }
        }
        if is_rewritten {
            version.batches = version.files.iter().flat_map(|(_, batches)| batches.clone()).collect();
            version.rows = Arc::new(version.batches.iter().flat_map(rows).collect());
        }
    }

    fn get(&self, path: &str) -> Option<Bytes> {
        let found = self.store.get_opts(&Path::from(path), GetOptions::default()).now_or_never().expect("memory answers at once");
        Some(found.ok()?.bytes().now_or_never().expect("memory answers at once").expect("bytes"))
    }
}

/// The places of rows; empty for tables whose rows have none.
pub(super) fn rows(batch: &RecordBatch) -> Vec<Row> {
    let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let (Some(partition), Some(offset)) = (int("_partition"), int("_offset").or_else(|| int("expected_offset"))) else {
        return Vec::new();
    };
    let id = batch.column_by_name("event_id").and_then(|c| c.as_string_view_opt());
    let row = |at| (i32::try_from(partition.value(at)).expect("small"), offset.value(at), id.map_or("", |id| id.value(at)).to_owned());
    (0..batch.num_rows()).map(row).collect()
}
