//! Rows to Parquet files, schemas and actions to the JSON of the Delta log.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use kiro_ports::Transaction;
use kiro_schemas::{Kind, Micros};
use kiro_tables::Table;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::meta::delta_schema;
use crate::replay::DataFile;
use crate::statistics::Statistics;
use crate::{Error, Result};

/// Larger row groups make `ORDER BY … LIMIT` slow.
pub(crate) const ROW_GROUP_ROWS: usize = 131_072;
/// How long a table's log tells of files that were taken out; upkeep changes it to what it was told.
pub(crate) const FILE_RETENTION: &str = "delta.deletedFileRetentionDuration";
const ENGINE: &str = concat!("kirolinter/", env!("CARGO_PKG_VERSION"));

/// A Parquet file that is not written yet.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) statistics: String,
    pub(crate) digest: String,
}

/// The tag of a file's digest in its `add` action.
pub(crate) const DIGEST: &str = "kiro.sha256";

/// The digest of a file.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A Parquet file as it is written.
pub(crate) struct FileWriter {
    table: &'static Table,
    writer: ArrowWriter<Vec<u8>>,
    statistics: Statistics,
}

impl FileWriter {
    /// A file for about `count` rows.
    pub(crate) fn new(table: &'static Table, count: usize) -> Result<Self> {
        let failed = |source| Error::Parquet { table: table.name, source: Box::new(source) };
        // Without Arrow's own schema in the file all readers see plain Parquet types.
        let properties = properties(table, count).map_err(failed)?;
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), table.schema(), options).map_err(failed)?;
        Ok(Self { table, writer, statistics: Statistics::new(table) })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.statistics.add(batch);
        self.writer.write(batch).map_err(|source| self.failed(source))
    }

    /// What comes next gets row groups of its own.
    pub(crate) fn end_group(&mut self) -> Result<()> {
        self.writer.flush().map_err(|source| self.failed(source))
    }

    pub(crate) fn finish(self) -> Result<NewFile> {
        let table = self.table;
        let bytes = self.writer.into_inner().map_err(|source| Error::Parquet { table: table.name, source: Box::new(source) })?;
        Ok(NewFile { digest: digest(&bytes), bytes, statistics: self.statistics.finish() })
    }

    fn failed(&self, source: ParquetError) -> Error {
        Error::Parquet { table: self.table.name, source: Box::new(source) }
    }
}

/// Encodes rows as one file.
pub(crate) fn encode(table: &'static Table, rows: &[RecordBatch]) -> Result<NewFile> {
    let mut file = FileWriter::new(table, rows.iter().map(RecordBatch::num_rows).sum())?;
    // Corrections have row groups of their own: questions want either them or the rest, and leave the other unread.
    for part in [false, true] {
        for batch in rows {
            let batch = corrections(table, batch, part).map_err(|source| Error::Arrow { table: table.name, source: Box::new(source) })?;
            file.write(&batch)?;
        }
        file.end_group()?;
    }
    file.finish()
}

fn properties(table: &Table, count: usize) -> parquet::errors::Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(ENGINE.to_owned());
    for column in table.columns.iter().filter(|c| c.kind == Kind::Text && is_looked_up(table, c.name)) {
        let values = u64::try_from(count.min(ROW_GROUP_ROWS)).unwrap_or(u64::MAX).max(1);
        let path = ColumnPath::from(column.name);
        properties = properties.set_column_bloom_filter_enabled(path.clone(), true).set_column_bloom_filter_max_ndv(path, values);
    }
    Ok(properties.build())
}

/// Whether a column holds ids that are asked for one by one: where they have no order, only a Bloom filter tells which files to read.
fn is_looked_up(table: &Table, column: &str) -> bool {
    column == "commit_sha" || (table.key.contains(&column) && !matches!(column, "tenant" | "source"))
}

/// The rows of a batch that are corrections, or those that are not.
fn corrections(table: &Table, batch: &RecordBatch, wanted: bool) -> Result<RecordBatch, ArrowError> {
    let revisions = table.position("_rev").and_then(|at| batch.column(at).as_primitive_opt::<Int64Type>());
    let Some(revisions) = revisions else { return Ok(batch.slice(0, if wanted { 0 } else { batch.num_rows() })) };
    let mask: BooleanArray = revisions.iter().map(|rev| Some((rev > Some(0)) == wanted)).collect();
    filter_record_batch(batch, &mask)
}

/// A file that lies in the table's folder.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) path: String,
    pub(crate) size: usize,
    pub(crate) statistics: String,
    pub(crate) digest: String,
}

/// The bytes of a commit.
pub(crate) fn commit_bytes(batch: &str, transactions: &[Transaction], added: Option<&Added>, now: Micros) -> Vec<u8> {
    let now = now.0.div_euclid(1000);
    let mut lines = vec![json!({"commitInfo": {
        "timestamp": now,
        "operation": "WRITE",
        "operationParameters": {"mode": "Append"},
        "isBlindAppend": true,
        "engineInfo": ENGINE,
        "kiroBatch": batch,
    }})];
    lines.extend(transactions.iter().map(|transaction| transaction_line(transaction, now)));
    lines.extend(added.map(|file| add_line(file, true, now)));
    join(&lines)
}

/// What upkeep changes: files for others that hold the same, and properties.
#[derive(Debug, Default)]
pub(crate) struct Rewrite<'r> {
    pub(crate) removed: &'r [DataFile],
    pub(crate) added: Option<&'r Added>,
    pub(crate) metadata: Option<Value>,
}

/// The bytes of a commit of upkeep: no row of the table is another one after it.
pub(crate) fn rewrite_bytes(batch: &str, transaction: &Transaction, rewrite: &Rewrite<'_>, now: Micros) -> Vec<u8> {
    let now = now.0.div_euclid(1000);
    let operation = if rewrite.metadata.is_some() { "SET TBLPROPERTIES" } else { "OPTIMIZE" };
    let mut lines = vec![json!({"commitInfo": {
        "timestamp": now,
        "operation": operation,
        "operationParameters": {},
        "isBlindAppend": false,
        "engineInfo": ENGINE,
        "kiroBatch": batch,
    }})];
    lines.push(transaction_line(transaction, now));
    lines.extend(rewrite.metadata.iter().map(|metadata| json!({"metaData": metadata})));
    for file in rewrite.removed {
        lines.push(json!({"remove": {
            "path": file.path,
            "deletionTimestamp": now,
            "dataChange": false,
            "extendedFileMetadata": true,
            "partitionValues": {},
            "size": file.size,
        }}));
    }
    lines.extend(rewrite.added.map(|file| add_line(file, false, now)));
    join(&lines)
}

fn transaction_line(transaction: &Transaction, now: i64) -> Value {
    json!({"txn": {"appId": transaction.app, "version": transaction.next, "lastUpdated": now}})
}

fn add_line(file: &Added, is_change: bool, now: i64) -> Value {
    json!({"add": {
        "path": file.path,
        "partitionValues": {},
        "size": file.size,
        "modificationTime": now,
        "dataChange": is_change,
        "stats": file.statistics,
        "tags": {DIGEST: file.digest},
    }})
}

/// The bytes of version 0.
pub(crate) fn creation_bytes(table: &Table, id: &str, now: Micros) -> Vec<u8> {
    let now = now.0.div_euclid(1000);
    let schema = delta_schema(table).to_string();
    join(&[
        json!({"commitInfo": {"timestamp": now, "operation": "CREATE TABLE", "operationParameters": {}, "engineInfo": ENGINE, "kiroBatch": id}}),
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": id,
            "name": table.name,
            "description": table.doc,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema,
            "partitionColumns": [],
            "configuration": {"delta.enableExpiredLogCleanup": "false"},
            "createdTime": now,
        }}),
    ])
}

/// The bytes of a commit that adds columns.
pub(crate) fn widening_bytes(batch: &str, action: &Value, now: Micros) -> Vec<u8> {
    let info = json!({
        "timestamp": now.0.div_euclid(1000),
        "operation": "ADD COLUMN",
        "operationParameters": {},
        "engineInfo": ENGINE,
        "kiroBatch": batch,
    });
    join(&[json!({ "commitInfo": info }), json!({ "metaData": action })])
}

fn join(lines: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.to_string().as_bytes());
        bytes.push(b'\n');
    }
    bytes
}
