//! Labelled runs: what was known when a run began, and how it ended.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use kiro_ports::FeatureRow;
use kiro_schemas::{Micros, Outcome, SourceUrl, Tenant};
use kiro_tables::feature_names;

use crate::{Error, Result};

/// One pipeline of one repository of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineKey {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its repository.
    pub source: SourceUrl,
    /// Its name.
    pub pipeline: String,
}

/// A run with its features as of its start and its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The pipeline that ran.
    pub key: PipelineKey,
    /// The moment of prediction.
    pub as_of: Micros,
    /// When the outcome could be known; nothing may learn from it before.
    pub known_at: Micros,
    /// What was known at `as_of`.
    pub features: FeatureRow,
    /// The outcome.
    pub failed: bool,
}

type RunKey = (String, String, String, i64);

struct Label {
    rev: i64,
    known_at: Micros,
    outcome: Option<Outcome>,
}

struct Candidate {
    rev: i64,
    pipeline: String,
    as_of: Micros,
    features: FeatureRow,
}

/// Joins the current rows of `features` with the current rows of `pipeline_runs` that failed or succeeded, in time order.
///
/// # Shapes
/// Batches of the two tables, any columns more; several versions of a row may be there, the highest `_rev` counts.
///
/// # Errors
/// [`Error::Column`] and [`Error::Type`] when a batch is not of its table.
pub fn examples_from(features: &[RecordBatch], runs: &[RecordBatch]) -> Result<Vec<Example>> {
    let mut labels = HashMap::new();
    for batch in runs {
        read_labels(batch, &mut labels)?;
    }
    let mut rows = HashMap::new();
    for batch in features {
        read_features(batch, &mut rows)?;
    }
    let mut joined: Vec<(RunKey, Example)> = rows.into_iter().filter_map(|(key, row)| join(key, row, &labels)).collect();
    joined.sort_by(|(a_key, a), (b_key, b)| a.as_of.cmp(&b.as_of).then_with(|| a_key.cmp(b_key)));
    Ok(joined.into_iter().map(|(_, example)| example).collect())
}

fn join(key: RunKey, row: Candidate, labels: &HashMap<RunKey, Label>) -> Option<(RunKey, Example)> {
    let label = labels.get(&key)?;
    let outcome = label.outcome.filter(|o| o.is_label())?;
    let pipeline = PipelineKey { tenant: Tenant::new(key.0.as_str()), source: SourceUrl::new(key.1.as_str()), pipeline: row.pipeline };
    let failed = outcome == Outcome::Failure;
    Some((key, Example { key: pipeline, as_of: row.as_of, known_at: label.known_at, features: row.features, failed }))
}

fn read_labels(batch: &RecordBatch, labels: &mut HashMap<RunKey, Label>) -> Result<()> {
    let reader = Reader { table: "pipeline_runs", batch };
    let keys = reader.keys()?;
    let (outcomes, known, revs) = (reader.text("outcome")?, reader.time("known_at")?, reader.column("_rev", &DataType::Int64)?);
    let (outcomes, known, revs) =
        (outcomes.as_string::<i32>(), known.as_primitive::<TimestampMicrosecondType>(), revs.as_primitive::<Int64Type>());
    for (row, key) in keys.into_iter().enumerate() {
        let outcome = outcomes.is_valid(row).then(|| Outcome::parse(outcomes.value(row))).flatten();
        let label = Label { rev: revs.value(row), known_at: Micros(known.value(row)), outcome };
        if labels.get(&key).is_none_or(|other| other.rev < label.rev) {
            labels.insert(key, label);
        }
    }
    Ok(())
}

fn read_features(batch: &RecordBatch, rows: &mut HashMap<RunKey, Candidate>) -> Result<()> {
    let reader = Reader { table: "features", batch };
    let keys = reader.keys()?;
    let (pipelines, as_of) = (reader.text("pipeline")?, reader.time("as_of")?);
    let (pipelines, as_of) = (pipelines.as_string::<i32>(), as_of.as_primitive::<TimestampMicrosecondType>());
    let (revs, known) = (reader.column("_rev", &DataType::Int64)?, reader.column("known_runs", &DataType::Int64)?);
    let (revs, known) = (revs.as_primitive::<Int64Type>(), known.as_primitive::<Int64Type>());
    let history: Vec<ArrayRef> = feature_names().iter().map(|name| reader.column(name, &DataType::Float64)).collect::<Result<_>>()?;
    let declared = reader.declared()?;
    for ((row, key), declared) in keys.into_iter().enumerate().zip(declared) {
        if rows.get(&key).is_some_and(|other| other.rev >= revs.value(row)) {
            continue;
        }
        let values = history.iter().map(|c| c.as_primitive::<Float64Type>().value(row)).collect();
        let features = FeatureRow { history: values, declared, known_runs: u64::try_from(known.value(row)).unwrap_or(0) };
        let pipeline = pipelines.value(row).to_owned();
        rows.insert(key, Candidate { rev: revs.value(row), pipeline, as_of: Micros(as_of.value(row)), features });
    }
    Ok(())
}

struct Reader<'a> {
    table: &'static str,
    batch: &'a RecordBatch,
}

impl Reader<'_> {
    fn column(&self, name: &str, kind: &DataType) -> Result<ArrayRef> {
        let table = self.table;
        let array = self.batch.column_by_name(name).ok_or_else(|| Error::Column { table, column: name.to_owned() })?;
        cast(array, kind).map_err(|source| Error::Type { table, column: name.to_owned(), source })
    }

    fn text(&self, name: &str) -> Result<ArrayRef> {
        self.column(name, &DataType::Utf8)
    }

    fn time(&self, name: &str) -> Result<ArrayRef> {
        self.column(name, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn keys(&self) -> Result<Vec<RunKey>> {
        let (tenants, sources) = (self.text("tenant")?, self.text("source")?);
        let (runs, attempts) = (self.text("run_id")?, self.column("attempt", &DataType::Int64)?);
        let text = |array: &ArrayRef, row: usize| array.as_string::<i32>().value(row).to_owned();
        let attempts = attempts.as_primitive::<Int64Type>();
        Ok((0..self.batch.num_rows())
            .map(|row| (text(&tenants, row), text(&sources, row), text(&runs, row), attempts.value(row)))
            .collect())
    }

    /// The declared attributes of each row that are finite numbers.
    fn declared(&self) -> Result<Vec<BTreeMap<String, f64>>> {
        let (table, name) = (self.table, "declared");
        let column = || name.to_owned();
        let array = self.batch.column_by_name(name).ok_or_else(|| Error::Column { table, column: column() })?;
        let Some(maps) = array.as_map_opt() else {
            return Err(Error::Column { table, column: column() });
        };
        let texts = |array: &ArrayRef| cast(array, &DataType::Utf8).map_err(|source| Error::Type { table, column: column(), source });
        let (keys, values) = (texts(maps.keys())?, texts(maps.values())?);
        let (keys, values, offsets) = (keys.as_string::<i32>(), values.as_string::<i32>(), maps.value_offsets());
        let entry = |at: usize| {
            let value: f64 = values.is_valid(at).then(|| values.value(at).parse().ok()).flatten()?;
            value.is_finite().then(|| (keys.value(at).to_owned(), value))
        };
        let bound = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
        Ok((0..maps.len())
            .map(|row| if maps.is_null(row) { BTreeMap::new() } else { (bound(row)..bound(row + 1)).filter_map(entry).collect() })
            .collect())
    }
}
