//! Minima and maxima of a file, so that readers can leave it out.
//!
//! # Source
//! Delta transaction log protocol, "Per-file Statistics".

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use kiro_schemas::{Kind, Micros};
use kiro_tables::Table;
use serde_json::{Map, Value, json};

/// Longer texts are cut in a minimum; a maximum has none then.
const TEXT_LIMIT: usize = 128;

/// The bounds of a column.
#[derive(Debug)]
enum Bounds {
    Ints(i64, i64),
    Times(i64, i64),
    Texts(String, String),
}

/// The statistics of a file, batch by batch.
#[derive(Debug)]
pub(crate) struct Statistics {
    table: &'static Table,
    rows: usize,
    nulls: Vec<usize>,
    bounds: Vec<Option<Bounds>>,
}

impl Statistics {
    pub(crate) fn new(table: &'static Table) -> Self {
        let columns = table.columns.len();
        Self { table, rows: 0, nulls: vec![0; columns], bounds: std::iter::repeat_with(|| None).take(columns).collect() }
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows();
        for (at, column) in self.table.columns.iter().enumerate() {
            let array = batch.column(at);
            self.nulls[at] += array.null_count();
            let found = match column.kind {
                Kind::Int => integers(array).map(|(low, high)| Bounds::Ints(low, high)),
                Kind::Time => times(array).map(|(low, high)| Bounds::Times(low, high)),
                // Identifying columns may not be null; the others are not worth their bytes.
                Kind::Text if !column.nullable => texts(array).map(|(low, high)| Bounds::Texts(low.to_owned(), high.to_owned())),
                _ => None,
            };
            let known = self.bounds[at].take();
            self.bounds[at] = match (known, found) {
                (Some(a), Some(b)) => a.with(b),
                (a, b) => a.or(b),
            };
        }
    }

    /// The JSON text that an `add` action carries.
    pub(crate) fn finish(self) -> String {
        let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
        let columns = self.table.columns.iter().zip(self.nulls).zip(self.bounds);
        for ((column, empty), bounds) in columns.filter(|((column, _), _)| column.kind != Kind::Map) {
            nulls.insert(column.name.into(), json!(empty));
            if let Some((low, high)) = bounds.map(Bounds::told) {
                min.extend(low.map(|v| (column.name.to_owned(), v)));
                max.extend(high.map(|v| (column.name.to_owned(), v)));
            }
        }
        json!({"numRecords": self.rows, "minValues": min, "maxValues": max, "nullCount": nulls}).to_string()
    }
}

impl Bounds {
    fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Ints(a, b), Self::Ints(c, d)) => Some(Self::Ints(a.min(c), b.max(d))),
            (Self::Times(a, b), Self::Times(c, d)) => Some(Self::Times(a.min(c), b.max(d))),
            (Self::Texts(a, b), Self::Texts(c, d)) => Some(Self::Texts(a.min(c), b.max(d))),
            _ => None,
        }
    }

    /// What is told of them: the lowest and the highest.
    fn told(self) -> (Option<Value>, Option<Value>) {
        match self {
            Self::Ints(low, high) => (Some(json!(low)), Some(json!(high))),
            Self::Times(low, high) => (Some(json!(micros(low))), Some(json!(micros(high)))),
            Self::Texts(low, high) => {
                // A prefix is never greater than the text, so it stays a lower bound.
                let low = if low.len() > TEXT_LIMIT { low.chars().take(TEXT_LIMIT / 4).collect() } else { low };
                (Some(json!(low)), (high.len() <= TEXT_LIMIT).then(|| json!(high)))
            }
        }
    }
}

fn micros(at: i64) -> String {
    Micros(at).to_string()
}

fn integers(array: &ArrayRef) -> Option<(i64, i64)> {
    let array = array.as_primitive_opt::<Int64Type>()?;
    Some((compute::min(array)?, compute::max(array)?))
}

fn times(array: &ArrayRef) -> Option<(i64, i64)> {
    let array = array.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((compute::min(array)?, compute::max(array)?))
}

fn texts(array: &ArrayRef) -> Option<(&str, &str)> {
    let array = array.as_string_view_opt()?;
    Some((compute::min_string_view(array)?, compute::max_string_view(array)?))
}
