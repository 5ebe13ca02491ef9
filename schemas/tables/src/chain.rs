//! The chain of the audit log: each row holds a hash over itself and the row before it in its partition, so that no row can be
//! changed, removed, added or moved unseen.
//!
//! ```text
//! digest(row)   = SHA-256(ROW  ‖ its columns that are not null, by name, each with its type and length)
//! chain(row, n) = SHA-256(LINK ‖ chain(row, n - 1) ‖ digest(row, n))        chain(row, -1) = 32 zeros
//! _chain        = "1:" and chain(row, n) in hexadecimal
//! ```
//! Rows are ordered by offset, and by digest where one record gave several. A column that is added later is null in older rows
//! and changes no digest. Rows that were written before there was a chain have none: they are chained all the same, so that the
//! first row that has one vouches for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use kiro_schemas::{Kind, TopicPartition};
use sha2::{Digest as _, Sha256};

use crate::table::data_type;

/// The column of the chain.
pub const CHAIN: &str = "_chain";
/// The version of digest and chain; it never changes for rows that are written.
const VERSION: &str = "1:";
const ROW: &[u8] = b"kirolinter audit row 1\n";
const LINK: &[u8] = b"kirolinter audit link 1\n";

/// A SHA-256.
type Hash = [u8; 32];

/// Where the chain of a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// The offset of the last row.
    pub offset: i64,
    hash: Hash,
}

impl ChainHead {
    /// Where a chain stands by an offset and its text.
    #[must_use]
    pub fn read(offset: i64, chain: &str) -> Option<Self> {
        Some(Self { offset, hash: read(chain)? })
    }

    /// Its text, as in the column.
    #[must_use]
    pub fn chain(&self) -> String {
        text(&self.hash)
    }
}

/// The heads of all partitions.
pub type ChainHeads = BTreeMap<TopicPartition, ChainHead>;

/// What is wrong with a row, or with what should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainBreak {
    /// The row does not follow the one before it: one of them was changed, or one between them was removed or added.
    DoesNotFollow,
    /// The row has no chain although one before it has: a program without the chain wrote it, or it was changed.
    Unchained,
    /// What was anchored is not there, or is not what it was: the end of the table is gone, or the table was written anew.
    NotAsAnchored,
}

/// How the chain of one partition was found.
#[derive(Debug, Clone)]
pub struct ChainReport {
    /// The partition.
    pub at: TopicPartition,
    /// Its rows.
    pub rows: usize,
    /// Rows before the first that has a chain.
    pub unchained: usize,
    /// Where it ends.
    pub head: Option<ChainHead>,
    /// The first breaks: the offset, the number of the batch that the row came in where there is a row, and what is wrong.
    pub breaks: Vec<(i64, Option<usize>, ChainBreak)>,
}

/// Breaks of one partition that are told.
const MOST_BREAKS: usize = 100;

#[derive(Debug, Clone)]
struct Step {
    offset: i64,
    digest: Hash,
    stored: Option<String>,
    /// Batch and row.
    place: (usize, usize),
}

/// Rows of the audit log, in any order.
#[derive(Debug, Default)]
pub struct Trail {
    partitions: BTreeMap<TopicPartition, Vec<Step>>,
    batches: usize,
}

impl Trail {
    /// Takes the rows of a batch; batches are numbered from 0.
    ///
    /// # Errors
    /// The batch lacks the columns of a place in the log, or has a column of a type that no table has.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let lacking = |name: &str| ArrowError::SchemaError(format!("the audit log has no column {name}"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacking(name));
        let topics = cast(column("_topic")?, &DataType::Utf8View)?;
        let (topics, partitions) = (topics.as_string_view(), cast(column("_partition")?, &DataType::Int64)?);
        let (partitions, offsets) = (partitions.as_primitive::<Int64Type>(), cast(column("_offset")?, &DataType::Int64)?);
        let offsets = offsets.as_primitive::<Int64Type>();
        let stored = batch.column_by_name(CHAIN).map(|c| cast(c, &DataType::Utf8View)).transpose()?;
        let stored = stored.as_ref().map(AsArray::as_string_view);
        let columns = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            let at = TopicPartition::new(topics.value(row), i32::try_from(partitions.value(row)).unwrap_or(-1));
            let stored = stored.filter(|c| c.is_valid(row)).map(|c| c.value(row).to_owned());
            let step = Step { offset: offsets.value(row), digest: columns.digest(row), stored, place: (self.batches, row) };
            self.partitions.entry(at).or_default().push(step);
        }
        self.batches += 1;
        Ok(())
    }

    /// The rows of each partition in the order of the chain.
    fn ordered(mut self) -> BTreeMap<TopicPartition, Vec<Step>> {
        for steps in self.partitions.values_mut() {
            steps.sort_unstable_by_key(|step| (step.offset, step.digest));
        }
        self.partitions
    }

    /// Checks every row, and that what was anchored, as offset and chain, is there.
    #[must_use]
    pub fn verify(self, anchors: &BTreeMap<TopicPartition, (i64, String)>) -> Vec<ChainReport> {
        let mut partitions = self.ordered();
        for at in anchors.keys() {
            partitions.entry(at.clone()).or_default();
        }
        partitions.into_iter().map(|(at, steps)| verify(at, &steps, anchors)).collect()
    }
}

fn verify(at: TopicPartition, steps: &[Step], anchors: &BTreeMap<TopicPartition, (i64, String)>) -> ChainReport {
    let (mut hash, mut breaks) = (Hash::default(), Vec::new());
    let anchor = anchors.get(&at);
    let mut is_anchored = anchor.is_none();
    let unchained = steps.iter().take_while(|step| step.stored.is_none()).count();
    for (number, step) in steps.iter().enumerate() {
        hash = link(&hash, &step.digest);
        let chain = text(&hash);
        is_anchored |= anchor.is_some_and(|(offset, anchored)| *offset == step.offset && *anchored == chain);
        match &step.stored {
            None if number >= unchained => breaks.push((step.offset, Some(step.place.0), ChainBreak::Unchained)),
            Some(stored) if *stored != chain => {
                breaks.push((step.offset, Some(step.place.0), ChainBreak::DoesNotFollow));
                // From here on it is compared with what was written, so that each break is told once.
                hash = read(stored).unwrap_or(hash);
                is_anchored |= anchor.is_some_and(|(offset, anchored)| *offset == step.offset && anchored == stored);
            }
            _ => {}
        }
    }
    breaks.truncate(MOST_BREAKS);
    if let (false, Some((offset, _))) = (is_anchored, anchor) {
        breaks.push((*offset, None, ChainBreak::NotAsAnchored));
    }
    let head = steps.last().map(|last| ChainHead { offset: last.offset, hash });
    ChainReport { at, rows: steps.len(), unchained, head, breaks }
}

/// Fills in the chain of rows that follow where the partitions stand, and moves these on. A partition that is absent begins.
///
/// # Errors
/// As [`Trail::add`]; the batches are of one table that has the column.
pub fn seal(batches: &[RecordBatch], heads: &mut ChainHeads) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut trail = Trail::default();
    batches.iter().try_for_each(|batch| trail.add(batch))?;
    let mut chains: Vec<Vec<Option<String>>> = batches.iter().map(|batch| vec![None; batch.num_rows()]).collect();
    for (at, steps) in trail.ordered() {
        let mut hash = heads.get(&at).map_or_else(Hash::default, |head| head.hash);
        for step in &steps {
            hash = link(&hash, &step.digest);
            chains[step.place.0][step.place.1] = Some(text(&hash));
        }
        heads.extend(steps.last().map(|last| (at, ChainHead { offset: last.offset, hash })));
    }
    let filled = |(batch, chains): (&RecordBatch, Vec<Option<String>>)| {
        let at = batch.schema().index_of(CHAIN)?;
        let mut columns = batch.columns().to_vec();
        columns[at] = Arc::new(StringViewArray::from_iter(chains));
        RecordBatch::try_new(batch.schema(), columns)
    };
    batches.iter().zip(chains).map(filled).collect()
}

fn link(before: &Hash, digest: &Hash) -> Hash {
    Sha256::new().chain_update(LINK).chain_update(before).chain_update(digest).finalize().into()
}

fn text(hash: &Hash) -> String {
    format!("{VERSION}{}", hex::encode(hash))
}

fn read(text: &str) -> Option<Hash> {
    hex::decode(text.strip_prefix(VERSION)?).ok()?.try_into().ok()
}

/// The columns of a batch by name, without the chain's own.
struct Columns {
    columns: Vec<(String, ArrayRef)>,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let mut columns = Vec::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != CHAIN) {
            let plain = match field.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast(column, &DataType::Utf8View)?,
                DataType::Timestamp(..) => cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?,
                DataType::Map(..) => cast(column, &data_type(Kind::Map))?,
                DataType::Int64 | DataType::Float64 | DataType::Boolean => Arc::clone(column),
                other => return Err(ArrowError::SchemaError(format!("column {} has the type {other}", field.name()))),
            };
            columns.push((field.name().clone(), plain));
        }
        columns.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { columns })
    }

    fn digest(&self, row: usize) -> Hash {
        let mut hasher = Sha256::new_with_prefix(ROW);
        for (name, column) in self.columns.iter().filter(|(_, column)| column.is_valid(row)) {
            put(&mut hasher, name.as_bytes());
            value(&mut hasher, column, row);
        }
        hasher.finalize().into()
    }
}

fn put(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// A value with the mark of its type.
fn value(hasher: &mut Sha256, column: &ArrayRef, row: usize) {
    match column.data_type() {
        DataType::Int64 => mark(hasher, b'i', &column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Float64 => mark(hasher, b'f', &column.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::Boolean => mark(hasher, b'b', &[u8::from(column.as_boolean().value(row))]),
        DataType::Timestamp(..) => mark(hasher, b'd', &column.as_primitive::<TimestampMicrosecondType>().value(row).to_le_bytes()),
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            let mut pairs: Vec<(&str, Option<&str>)> = keys.iter().map(Option::unwrap_or_default).zip(values.iter()).collect();
            pairs.sort_unstable();
            mark(hasher, b'm', &(pairs.len() as u64).to_le_bytes());
            for (key, value) in pairs {
                put(hasher, key.as_bytes());
                mark(hasher, if value.is_some() { b't' } else { b'n' }, value.unwrap_or_default().as_bytes());
            }
        }
        _ => mark(hasher, b't', column.as_string_view().value(row).as_bytes()),
    }
}

fn mark(hasher: &mut Sha256, kind: u8, bytes: &[u8]) {
    hasher.update([kind]);
    put(hasher, bytes);
}

#[cfg(test)]
mod tests;
