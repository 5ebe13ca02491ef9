//! `information_schema`, with the names of types that PostgreSQL prints: tools choose time columns by them.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use kiro_schemas::Kind;
use kiro_tables::{Table, TableColumn};

use crate::catalog::{CATALOG, SCHEMA};
use crate::revisions::REV;

/// The schema's name.
pub(crate) const INFORMATION: &str = "information_schema";

type Batches = [(&'static str, RecordBatch); 4];

static TABLES: LazyLock<Option<Batches>> =
    LazyLock::new(|| Some([("tables", tables()?), ("columns", columns()?), ("schemata", schemata()?), ("views", views()?)]));

/// Tables, columns and schemas as data.
#[derive(Debug)]
pub(crate) struct Information;

#[async_trait]
impl SchemaProvider for Information {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().flatten().map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some((_, batch)) = TABLES.iter().flatten().find(|(known, _)| *known == name) else { return Ok(None) };
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch.clone()]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.iter().flatten().any(|(known, _)| *known == name)
    }
}

/// The columns of a table that users see.
fn shown(table: &Table) -> impl Iterator<Item = &TableColumn> {
    table.columns.iter().filter(|c| c.name != REV)
}

/// What PostgreSQL calls a type, in `data_type` and in `udt_name`.
const fn names(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Int => ("bigint", "int8"),
        Kind::Float => ("double precision", "float8"),
        Kind::Bool => ("boolean", "bool"),
        Kind::Time => ("timestamp with time zone", "timestamptz"),
        Kind::Text | Kind::Map => ("text", "text"),
    }
}

fn tables() -> Option<RecordBatch> {
    let names: Vec<&str> = Table::all().iter().map(|t| t.name).collect();
    let all = |value: &'static str| text(names.iter().map(|_| Some(value)));
    batch(vec![
        ("table_catalog", all(CATALOG)),
        ("table_schema", all(SCHEMA)),
        ("table_name", text(names.iter().copied().map(Some))),
        ("table_type", all("BASE TABLE")),
        ("is_insertable_into", all("NO")),
    ])
}

fn columns() -> Option<RecordBatch> {
    let rows: Vec<(&Table, usize, &TableColumn)> =
        Table::all().iter().flat_map(|t| shown(t).enumerate().map(move |(at, column)| (t, at + 1, column))).collect();
    let of = |value: fn(&TableColumn) -> Option<&'static str>| text(rows.iter().map(|(_, _, c)| value(c)));
    let nothing = |kind: &DataType| new_null_array(kind, rows.len());
    let positions: Int32Array = rows.iter().map(|(_, at, _)| i32::try_from(*at).ok()).collect();
    let bits: Int32Array =
        rows.iter().map(|(_, _, c)| matches!(c.kind, Kind::Int).then_some(64).or(matches!(c.kind, Kind::Float).then_some(53))).collect();
    let scales: Int32Array = rows.iter().map(|(_, _, c)| matches!(c.kind, Kind::Int).then_some(0)).collect();
    let fractions: Int32Array = rows.iter().map(|(_, _, c)| matches!(c.kind, Kind::Time).then_some(6)).collect();
    batch(vec![
        ("table_catalog", of(|_| Some(CATALOG))),
        ("table_schema", of(|_| Some(SCHEMA))),
        ("table_name", text(rows.iter().map(|(t, _, _)| Some(t.name)))),
        ("column_name", text(rows.iter().map(|(_, _, c)| Some(c.name)))),
        ("ordinal_position", Arc::new(positions)),
        ("column_default", nothing(&DataType::Utf8)),
        ("is_nullable", of(|c| Some(if c.nullable { "YES" } else { "NO" }))),
        ("data_type", of(|c| Some(names(c.kind).0))),
        ("character_maximum_length", nothing(&DataType::Int32)),
        ("numeric_precision", Arc::new(bits)),
        ("numeric_scale", Arc::new(scales)),
        ("datetime_precision", Arc::new(fractions)),
        ("udt_schema", of(|_| Some("pg_catalog"))),
        ("udt_name", of(|c| Some(names(c.kind).1))),
        ("is_updatable", of(|_| Some("NO"))),
    ])
}

fn schemata() -> Option<RecordBatch> {
    let names = [SCHEMA, INFORMATION, "pg_catalog"];
    batch(vec![
        ("catalog_name", text(names.map(|_| Some(CATALOG)))),
        ("schema_name", text(names.map(Some))),
        ("schema_owner", text(names.map(|_| Some(CATALOG)))),
    ])
}

fn views() -> Option<RecordBatch> {
    batch(["table_catalog", "table_schema", "table_name", "view_definition"].map(|name| (name, text([]))).into())
}

fn text<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Option<RecordBatch> {
    let fields: Vec<Field> = columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, values)| values).collect()).ok()
}
