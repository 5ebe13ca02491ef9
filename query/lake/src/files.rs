//! Rows to Parquet files, schemas and actions to the JSON of the Delta log.

use arrow::array::RecordBatch;
use kiro_ports::Transaction;
use kiro_schemas::{Kind, Micros};
use kiro_tables::Table;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use crate::{Error, Result, statistics};

/// Larger row groups make `ORDER BY … LIMIT` slow.
const ROW_GROUP_ROWS: usize = 131_072;
const ENGINE: &str = concat!("kirolinter/", env!("CARGO_PKG_VERSION"));

/// A Parquet file that is not written yet.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) statistics: String,
}

/// Encodes rows as one file.
pub(crate) fn encode(table: &'static Table, rows: &[RecordBatch]) -> Result<NewFile> {
    let failed = |source| Error::Parquet { table: table.name, source: Box::new(source) };
    let level = ZstdLevel::try_new(1).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(ENGINE.to_owned())
        .build();
    // Without Arrow's own schema in the file all readers see plain Parquet types.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), table.schema(), options).map_err(failed)?;
    for batch in rows {
        writer.write(batch).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(failed)?;
    Ok(NewFile { bytes, statistics: statistics::of_rows(table, rows) })
}

/// A file that lies in the table's folder.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) path: String,
    pub(crate) size: usize,
    pub(crate) statistics: String,
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
    for transaction in transactions {
        lines.push(json!({"txn": {"appId": transaction.app, "version": transaction.next, "lastUpdated": now}}));
    }
    if let Some(file) = added {
        lines.push(json!({"add": {
            "path": file.path,
            "partitionValues": {},
            "size": file.size,
            "modificationTime": now,
            "dataChange": true,
            "stats": file.statistics,
        }}));
    }
    join(&lines)
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

fn join(lines: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.to_string().as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

fn delta_schema(table: &Table) -> Value {
    let fields: Vec<Value> = table
        .columns
        .iter()
        .map(|c| json!({"name": c.name, "type": delta_type(c.kind), "nullable": c.nullable, "metadata": {"comment": c.doc}}))
        .collect();
    json!({"type": "struct", "fields": fields})
}

fn delta_type(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!("string"),
        Kind::Int => json!("long"),
        Kind::Float => json!("double"),
        Kind::Bool => json!("boolean"),
        Kind::Time => json!("timestamp"),
        Kind::Map => json!({"type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true}),
    }
}
