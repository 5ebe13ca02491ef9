//! Small helpers on batches of tables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use kiro_schemas::Micros;
use kiro_tables::Table;

/// Batches with fewer rows are copied into exact buffers: builders reserve room for about a thousand rows.
const SMALL_ROWS: usize = 512;

/// The batch with the table's columns and types; files may hold `Utf8`, and lack columns that were added later.
pub(super) fn conform(table: &'static Table, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = table.schema();
    if batch.schema() == schema {
        return Ok(batch.clone());
    }
    let columns: Result<Vec<ArrayRef>, ArrowError> = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
            None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect();
    RecordBatch::try_new(schema, columns?)
}

/// One batch of several, in exact buffers when it is small.
pub(super) fn compact(batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let Some(first) = batches.first() else { return Err(ArrowError::InvalidArgumentError("no batches".to_owned())) };
    let mut batch = if batches.len() == 1 { first.clone() } else { concat_batches(&first.schema(), batches)? };
    let rows = batch.num_rows();
    if batches.len() == 1 {
        if rows >= SMALL_ROWS {
            return Ok(batch);
        }
        batch = take_record_batch(&batch, &UInt32Array::from_iter_values(0..u32::try_from(rows).unwrap_or(u32::MAX)))?;
    }
    let columns = batch.columns().iter().map(|column| match column.as_string_view_opt() {
        Some(text) => Arc::new(text.gc()) as ArrayRef,
        None => Arc::clone(column),
    });
    RecordBatch::try_new(batch.schema(), columns.collect())
}

/// Rows up to a horizon, and those beyond it with the earliest of their times.
pub(super) type Split = (Option<RecordBatch>, Option<(Micros, RecordBatch)>);

/// Splits by the column `time`.
pub(super) fn split_due(batch: RecordBatch, horizon: Micros) -> Result<Split, ArrowError> {
    let earliest = {
        let Some(times) = batch.column_by_name("time").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()) else {
            return Ok((Some(batch), None));
        };
        times.iter().flatten().filter(|time| *time > horizon.0).min()
    };
    let Some(earliest) = earliest else { return Ok((Some(batch), None)) };
    let is_due = |batch: &RecordBatch, wanted: bool| -> Option<BooleanArray> {
        let times = batch.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(times.iter().map(|time| Some(time.is_none_or(|t| t <= horizon.0) == wanted)).collect())
    };
    let part = |wanted: bool| match is_due(&batch, wanted) {
        Some(mask) => filter_record_batch(&batch, &mask).map(Some),
        None => Ok(None),
    };
    let due = part(true)?.filter(|b| b.num_rows() > 0);
    Ok((due, part(false)?.map(|held| (Micros(earliest), held))))
}

/// The rows whose text columns each have one of their values.
pub(super) fn matching(mut batch: RecordBatch, among: &[(&str, &[String])]) -> Result<Option<RecordBatch>, ArrowError> {
    for (column, values) in among {
        let values: HashSet<&str> = values.iter().map(String::as_str).collect();
        let Some(texts) = batch.column_by_name(column).and_then(|c| c.as_string_view_opt()) else { return Ok(None) };
        let mask: BooleanArray = texts.iter().map(|text| Some(text.is_some_and(|t| values.contains(t)))).collect();
        if mask.true_count() == 0 {
            return Ok(None);
        }
        batch = filter_record_batch(&batch, &mask)?;
    }
    Ok(Some(batch))
}

/// The rows of an events table whose offset is `from` or larger.
pub(super) fn rows_from(batch: &RecordBatch, from: i64) -> Result<RecordBatch, ArrowError> {
    let Some(offsets) = batch.column_by_name("_offset").and_then(|c| c.as_primitive_opt::<Int64Type>()) else { return Ok(batch.clone()) };
    let mask: BooleanArray = offsets.iter().map(|offset| Some(offset.is_none_or(|o| o >= from))).collect();
    filter_record_batch(batch, &mask)
}

/// Above every revision that is in files.
const LIFTED: i64 = 1 << 40;

/// Versioned rows that come before any row of the files with the same key.
pub(super) fn lift(table: &'static Table, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some(rev) = table.position("_rev") else { return Ok(batch.clone()) };
    let mut columns = batch.columns().to_vec();
    let lifted = columns[rev].as_primitive::<Int64Type>().unary::<_, Int64Type>(|rev| rev.saturating_add(LIFTED));
    columns[rev] = Arc::new(lifted);
    RecordBatch::try_new(batch.schema(), columns)
}

/// Of versioned rows, those with the highest `_rev` of each key.
pub(super) fn current(table: &'static Table, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    let (Some(rev), false) = (table.position("_rev"), table.key.is_empty()) else { return Ok(batches.to_vec()) };
    let key: Vec<usize> = table.key.iter().filter_map(|name| table.position(name)).collect();
    let schema = table.schema();
    let converter = RowConverter::new(key.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect())?;
    let mut best: HashMap<Box<[u8]>, (i64, usize, usize)> = HashMap::new();
    for (number, batch) in batches.iter().enumerate() {
        let columns: Vec<ArrayRef> = key.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let rows = converter.convert_columns(&columns)?;
        let revs = batch.column(rev).as_primitive::<Int64Type>();
        for (at, row) in rows.iter().enumerate() {
            let found = (revs.value(at), number, at);
            best.entry(row.as_ref().into()).and_modify(|b| *b = (*b).max(found)).or_insert(found);
        }
    }
    let mut masks: Vec<Vec<bool>> = batches.iter().map(|b| vec![false; b.num_rows()]).collect();
    for (_, number, at) in best.into_values() {
        masks[number][at] = true;
    }
    batches.iter().zip(masks).map(|(batch, mask)| filter_record_batch(batch, &BooleanArray::from(mask))).collect()
}
