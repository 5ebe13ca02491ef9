//! Many small files to few large ones: which, and how. The rows stay what they are, but for old versions that are thinned.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use kiro_schemas::{Kind, Micros};
use kiro_tables::{Table, TableShape};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use crate::files::{FileWriter, NewFile, ROW_GROUP_ROWS};
use crate::replay::{Content, DataFile, Files};
use crate::thin::{self, Level};
use crate::{Error, Result};

/// What a file holds at most. All rows of a piece of work are in memory at once, so this bounds what upkeep takes.
const MOST_ROWS: u64 = 4 * ROW_GROUP_ROWS as u64;
const MOST_BYTES: u64 = 64 << 20;
/// What the rows of one piece of work may take in memory.
const MOST_MEMORY: u64 = 192 << 20;
/// So many files of about the same size become one while their day lasts, and so many closed days become one file.
const FAN: usize = 8;
const DAYS: usize = 16;
/// Rows of a day come in for so long after its end.
const GRACE: i64 = 5 * 60 * 1_000_000;
const DAY: i64 = 86_400 * 1_000_000;
/// Files up to this size are of one kind; beyond it each kind is four times as large as the one before.
const SMALLEST: u64 = 64 << 10;

/// A file, and what it holds.
type Known<'f> = (&'f DataFile, Content);

/// The files of a table, in order of time, as compaction looks at them.
struct Sorted<'f> {
    /// Small ones of days that are over.
    closed: Vec<Known<'f>>,
    /// Small ones of the day that lasts.
    open: Vec<Known<'f>>,
    large: Vec<Known<'f>>,
}

impl<'f> Sorted<'f> {
    /// `full` are files that have no room left.
    fn of(files: &'f Files, full: &HashSet<String>, now: Micros) -> Self {
        let mut known: Vec<Known<'f>> = files.live.values().filter_map(|file| Some((file, file.content?))).collect();
        known.sort_by_key(|(_, content)| (content.to, content.from));
        let has_room = |(file, content): &Known<'_>| is_small(file, content) && !full.contains(&file.path);
        let (small, large): (Vec<Known<'f>>, Vec<_>) = known.into_iter().partition(has_room);
        let (closed, open) = small.into_iter().partition(|(_, content)| is_over(content, now));
        Self { closed, open, large }
    }
}

/// The next files that are to become one, the oldest first; none when all is well. `full` are files that have no room left.
pub(crate) fn choose(table: &Table, files: &Files, full: &HashSet<String>, now: Micros) -> Vec<DataFile> {
    let Sorted { closed, open, large } = Sorted::of(files, full, now);
    let is_due = |(file, content): &&Known<'_>| table.shape == TableShape::Versions && Level::of(&file.path) < Level::due(content.to, now);
    let days = closed.chunk_by(is_same_day).map(fitting).find(|files| files.len() > 1);
    let chosen = days
        .or_else(|| Some(fitting(&closed)).filter(|_| closed.len() >= DAYS))
        .or_else(|| alike(&open))
        .or_else(|| closed.iter().chain(&large).find(is_due).map(|found| vec![*found]));
    chosen.unwrap_or_default().into_iter().map(|(file, _)| file.clone()).collect()
}

/// How many small files wait to become large ones, and how many files the day has that has most, among the days that are over.
pub(crate) fn count(files: &Files, full: &HashSet<String>, now: Micros) -> (usize, usize) {
    let Sorted { closed, open, large } = Sorted::of(files, full, now);
    let over = closed.iter().chain(&large).filter(|(_, content)| is_over(content, now));
    let mut by_day = BTreeMap::<i64, usize>::new();
    over.for_each(|(_, content)| *by_day.entry(day(content.to)).or_default() += 1);
    let waiting =
        if closed.len() >= DAYS { closed.len() } else { closed.chunk_by(is_same_day).map(<[_]>::len).filter(|files| *files > 1).sum() };
    (waiting + groups(&open).iter().map(Vec::len).sum::<usize>(), by_day.into_values().max().unwrap_or(0))
}

fn is_over(content: &Content, now: Micros) -> bool {
    day(content.to) < day(Micros(now.0 - GRACE))
}

fn is_same_day(a: &Known<'_>, b: &Known<'_>) -> bool {
    day(a.1.to) == day(b.1.to)
}

fn is_small(file: &DataFile, content: &Content) -> bool {
    content.rows < MOST_ROWS / 2 && file.size < MOST_BYTES / 2
}

fn day(at: Micros) -> i64 {
    at.0.div_euclid(DAY)
}

/// The first of these files that fit into one.
fn fitting<'f>(files: &[Known<'f>]) -> Vec<Known<'f>> {
    let (mut rows, mut bytes) = (0, 0);
    let fits = |(file, content): &&Known<'f>| {
        (rows, bytes) = (rows + content.rows, bytes + file.size);
        rows <= MOST_ROWS && bytes <= MOST_BYTES
    };
    files.iter().take_while(fits).copied().collect()
}

/// The first files of about the same size that become one.
fn alike<'f>(files: &[Known<'f>]) -> Option<Vec<Known<'f>>> {
    groups(files).iter().map(|group| fitting(group)).find(|files| files.len() > 1)
}

/// Files of about the same size, where there are enough of them on a day.
fn groups<'f>(files: &[Known<'f>]) -> Vec<Vec<Known<'f>>> {
    let kind = |file: &DataFile| (file.size / SMALLEST).checked_ilog(4).map_or(0, |kind| kind + 1);
    let mut sorted = files.to_vec();
    sorted.sort_by_key(|(file, content)| (day(content.to), kind(file), content.to));
    let groups = sorted.chunk_by(|a, b| (day(a.1.to), kind(a.0)) == (day(b.1.to), kind(b.0)));
    groups.filter(|group| group.len() >= FAN).map(<[_]>::to_vec).collect()
}

/// The rows of a file, and what they take in memory.
pub(crate) struct Input {
    reader: ParquetRecordBatchReaderBuilder<Bytes>,
    pub(crate) memory: u64,
}

impl Input {
    /// Opens a file without decoding it.
    pub(crate) fn open(table: &'static Table, bytes: Bytes) -> Result<Self> {
        let failed = |source| Error::Parquet { table: table.name, source: Box::new(source) };
        let plain = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).map_err(failed)?;
        // Views share what the file repeats.
        let schema = Arc::new(with_views(plain.schema()));
        let options = ArrowReaderOptions::new().with_schema(schema);
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options).map_err(failed)?;
        let width = 16 * i64::try_from(table.columns.len()).unwrap_or(i64::MAX);
        let decoded: i64 = metadata.metadata().row_groups().iter().map(|group| group.total_byte_size() + group.num_rows() * width).sum();
        let memory = u64::try_from(decoded).unwrap_or(0);
        Ok(Self { reader: ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata), memory })
    }

    fn read(self, table: &'static Table) -> Result<Vec<RecordBatch>> {
        let (parquet, arrow) = (failed_parquet(table), failed_arrow(table));
        let reader = self.reader.with_batch_size(ROW_GROUP_ROWS).build().map_err(parquet)?;
        reader.map(|batch| batch.and_then(|batch| fit(&table.schema(), &batch)).map_err(&arrow)).collect()
    }
}

/// Whether rows that take so much memory can be worked on together.
pub(crate) const fn is_bounded(memory: u64) -> bool {
    memory <= MOST_MEMORY
}

fn failed_parquet(table: &'static Table) -> impl Fn(ParquetError) -> Error {
    move |source| Error::Parquet { table: table.name, source: Box::new(source) }
}

fn failed_arrow(table: &'static Table) -> impl Fn(ArrowError) -> Error {
    move |source| Error::Arrow { table: table.name, source: Box::new(source) }
}

fn with_views(schema: &Schema) -> Schema {
    let view = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>())
}

/// The columns that the table has now; nulls where the file is older than a column.
fn fit(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect::<Result<_, _>>()?)
}

/// The rows of the files as one file, sorted by time, corrections in row groups of their own.
pub(crate) fn merge(table: &'static Table, inputs: Vec<Input>, now: Micros) -> Result<NewFile> {
    let mut batches = Vec::new();
    for input in inputs {
        batches.extend(input.read(table)?);
    }
    let revisions = match table.shape {
        TableShape::Events => None,
        TableShape::Versions => Some(thin::thin(table, &batches, now).map_err(failed_arrow(table))?),
    };
    let order = order(table, &batches);
    let mut file = FileWriter::new(table, order.len())?;
    for part in [false, true] {
        let revision = |row: u32| revisions.as_ref().map_or(Some(0), |all| all.get(row as usize).copied().flatten());
        let rows: Vec<u32> = order.iter().copied().filter(|row| revision(*row).is_some_and(|rev| (rev > 0) == part)).collect();
        for rows in rows.chunks(ROW_GROUP_ROWS) {
            let revs = revisions.is_some().then(|| rows.iter().filter_map(|row| revision(*row)).collect());
            file.write(&gather(table, &batches, rows, revs).map_err(failed_arrow(table))?)?;
        }
        file.end_group()?;
    }
    file.finish()
}

/// The rows by time; those of one time stay as they were.
fn order(table: &Table, batches: &[RecordBatch]) -> Vec<u32> {
    let column = table.columns.iter().position(|c| c.kind == Kind::Time && !c.nullable);
    let mut times = Vec::new();
    for batch in batches {
        match column.and_then(|at| batch.column(at).as_primitive_opt::<TimestampMicrosecondType>()) {
            Some(column) => times.extend_from_slice(column.values()),
            None => times.resize(times.len() + batch.num_rows(), 0),
        }
    }
    let mut order: Vec<u32> = (0..u32::try_from(times.len()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|row| times.get(*row as usize));
    order
}

/// Rows by their number over all batches, with other revisions if there are any.
fn gather(table: &Table, batches: &[RecordBatch], rows: &[u32], revs: Option<Vec<i64>>) -> Result<RecordBatch, ArrowError> {
    let mut ends = Vec::with_capacity(batches.len());
    for batch in batches {
        ends.push(ends.last().copied().unwrap_or(0) + batch.num_rows());
    }
    let place = |row: &u32| {
        let row = *row as usize;
        let at = ends.partition_point(|end| *end <= row);
        (at, row - at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0))
    };
    let batch = interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &rows.iter().map(place).collect::<Vec<_>>())?;
    let (Some(at), Some(revs)) = (table.position("_rev"), revs) else { return Ok(batch) };
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(Int64Array::from(revs)) as ArrayRef;
    RecordBatch::try_new(batch.schema(), columns)
}

/// The revisions of rows of a versioned table.
pub(crate) fn revisions(table: &Table, batch: &RecordBatch) -> Option<Int64Array> {
    batch.column(table.position("_rev")?).as_primitive_opt::<Int64Type>().cloned()
}

#[cfg(test)]
mod tests;
