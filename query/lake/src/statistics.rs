//! Minima and maxima of a file, so that readers can leave it out.
//!
//! # Source
//! Delta transaction log protocol, "Per-file Statistics".

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use kiro_schemas::{Kind, Micros};
use kiro_tables::Table;
use serde_json::{Map, Value, json};

/// Longer texts are cut in a minimum; a maximum has none then.
const TEXT_LIMIT: usize = 128;

/// The statistics of a file with these rows, as the JSON text that an `add` action carries.
pub(crate) fn of_rows(table: &Table, batches: &[RecordBatch]) -> String {
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (at, column) in table.columns.iter().enumerate() {
        let arrays = || batches.iter().map(|batch| batch.column(at).as_ref());
        if column.kind != Kind::Map {
            nulls.insert(column.name.into(), json!(arrays().map(arrow::array::Array::null_count).sum::<usize>()));
        }
        let range = match column.kind {
            Kind::Int => integers(arrays()).map(|(a, b)| (Some(json!(a)), Some(json!(b)))),
            Kind::Time => times(arrays()).map(|(a, b)| (Some(json!(micros(a))), Some(json!(micros(b))))),
            // Identifying columns may not be null; the others are not worth their bytes.
            Kind::Text if !column.nullable => texts(arrays()),
            _ => None,
        };
        if let Some((low, high)) = range {
            min.extend(low.map(|v| (column.name.to_owned(), v)));
            max.extend(high.map(|v| (column.name.to_owned(), v)));
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    json!({"numRecords": rows, "minValues": min, "maxValues": max, "nullCount": nulls}).to_string()
}

fn micros(at: i64) -> String {
    Micros(at).to_string()
}

fn integers<'a>(arrays: impl Iterator<Item = &'a dyn Array>) -> Option<(i64, i64)> {
    range(arrays.filter_map(|a| {
        let array = a.as_primitive_opt::<Int64Type>()?;
        Some((compute::min(array)?, compute::max(array)?))
    }))
}

fn times<'a>(arrays: impl Iterator<Item = &'a dyn Array>) -> Option<(i64, i64)> {
    range(arrays.filter_map(|a| {
        let array = a.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some((compute::min(array)?, compute::max(array)?))
    }))
}

fn range(pairs: impl Iterator<Item = (i64, i64)>) -> Option<(i64, i64)> {
    pairs.reduce(|(low, high), (a, b)| (low.min(a), high.max(b)))
}

fn texts<'a>(arrays: impl Iterator<Item = &'a dyn Array>) -> Option<(Option<Value>, Option<Value>)> {
    let pairs = arrays.filter_map(|a| {
        let array = a.as_string_view_opt()?;
        Some((compute::min_string_view(array)?, compute::max_string_view(array)?))
    });
    let (low, high) = pairs.reduce(|(low, high), (a, b)| (low.min(a), high.max(b)))?;
    // A prefix is never greater than the text, so it stays a lower bound.
    let low = if low.len() > TEXT_LIMIT { low.chars().take(TEXT_LIMIT / 4).collect() } else { low.to_owned() };
    Some((Some(json!(low)), (high.len() <= TEXT_LIMIT).then(|| json!(high))))
}
