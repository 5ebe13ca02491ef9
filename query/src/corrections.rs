//! The corrections of versioned tables: few rows, which are read once for each version of the files and then kept in memory.
//!
//! With them at hand, a table as it stands is a filter over its first versions and a small table beside: whatever prunes files
//! (filters, the bounds of a top-k) goes through both.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, col, lit};
use datafusion::prelude::SessionContext;
use kiro_ports::Snapshot;
use kiro_schemas::Tenant;
use kiro_tables::{Table, TableName};
use tokio::sync::OnceCell;

use crate::provider::fit;
use crate::revisions::REV;

/// Most corrections that are kept of one table; with more of them the files are asked each time.
const MOST: usize = 200_000;
/// The function that tells whether a first version was not corrected.
const CONDITION: &str = "_is_first_and_last";

/// The corrections in the files of a table.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// All of them.
    Few(Arc<Few>),
    /// Too many to keep.
    Many,
}

/// Corrections that are kept, and what was chosen among them.
#[derive(Debug)]
pub(crate) struct Few {
    pub(crate) rows: RecordBatch,
    chosen: Mutex<HashMap<Tenant, Arc<Last>>>,
}

impl Few {
    pub(crate) fn new(rows: RecordBatch) -> Self {
        Self { rows, chosen: Mutex::default() }
    }

    /// The last ones of a tenant, which `choose` chooses when they are asked for first.
    pub(crate) fn last_of(&self, tenant: &Tenant, choose: impl FnOnce(&RecordBatch) -> Result<Last>) -> Result<Arc<Last>> {
        let chosen = || self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = chosen().get(tenant) {
            return Ok(Arc::clone(last));
        }
        let last = Arc::new(choose(&self.rows)?);
        chosen().insert(tenant.clone(), Arc::clone(&last));
        Ok(last)
    }
}

/// What is kept: of each table, for the newest version that was asked.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<HashMap<TableName, Entry>>);

#[derive(Debug)]
struct Entry {
    of: Arc<dyn Snapshot>,
    found: Arc<OnceCell<Found>>,
}

impl Kept {
    /// The corrections in the files of a version; questions that come together wait for one reading.
    pub(crate) async fn of(
        &self,
        table: &'static Table,
        snapshot: &Arc<dyn Snapshot>,
        files: &Arc<dyn TableProvider>,
        state: &SessionState,
    ) -> Result<Found> {
        let cell = self.entry(table.name, snapshot);
        cell.get_or_try_init(|| read(table, files, state)).await.cloned()
    }

    fn entry(&self, name: TableName, snapshot: &Arc<dyn Snapshot>) -> Arc<OnceCell<Found>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Entry { of: Arc::clone(snapshot), found: Arc::default() };
        let entry = entries.entry(name).or_insert_with(fresh);
        if !Arc::ptr_eq(&entry.of, snapshot) {
            *entry = fresh();
        }
        Arc::clone(&entry.found)
    }
}

async fn read(table: &'static Table, files: &Arc<dyn TableProvider>, state: &SessionState) -> Result<Found> {
    let mut batches = Vec::new();
    if files.schema().index_of(REV).is_ok() {
        let context = SessionContext::new_with_state(state.clone());
        let frame = context.read_table(Arc::clone(files))?.filter(col(REV).gt(lit(0_i64)))?.limit(0, Some(MOST + 1))?;
        batches = frame.collect().await?;
    }
    if batches.iter().map(RecordBatch::num_rows).sum::<usize>() > MOST {
        return Ok(Found::Many);
    }
    let fitted = batches.iter().map(|batch| fit_all(table, batch)).collect::<Result<Vec<_>>>()?;
    let all = concat_batches(&table.schema(), &fitted)?;
    // Views of texts would keep the pages that they were read from.
    let columns = all.columns().iter().map(|c| c.as_string_view_opt().map_or_else(|| Arc::clone(c), |v| Arc::new(v.gc()) as ArrayRef));
    Ok(Found::Few(Arc::new(Few::new(RecordBatch::try_new(table.schema(), columns.collect())?))))
}

/// The columns of a batch as the table has them.
fn fit_all(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = table.schema();
    let columns = schema.fields().iter().map(|field| fit(batch, field)).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The last correction of each row that has one.
#[derive(Debug)]
pub(crate) struct Last {
    /// These corrections.
    pub(crate) rows: RecordBatch,
    keys: HashSet<OwnedRow>,
    hashes: HashSet<u64>,
    random: RandomState,
    types: Vec<DataType>,
}

impl Last {
    /// Chooses among corrections of a table: per key the one with the highest revision, and of these the one recorded last.
    pub(crate) fn among(table: &Table, corrections: &RecordBatch) -> Result<Self> {
        let columns: Vec<ArrayRef> = table.key.iter().filter_map(|k| corrections.column_by_name(k)).map(Arc::clone).collect();
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let mut best: HashMap<OwnedRow, usize> = HashMap::new();
        let places = Places::of(corrections);
        for (row, key) in convert(&types, &columns)?.into_iter().enumerate() {
            best.entry(key).and_modify(|at| *at = places.later(*at, row)).or_insert(row);
        }
        let chosen: UInt32Array = best.values().filter_map(|at| u32::try_from(*at).ok()).collect();
        let rows = take_record_batch(corrections, &chosen)?;
        let random = RandomState::default();
        let columns: Vec<ArrayRef> = table.key.iter().filter_map(|k| rows.column_by_name(k)).map(Arc::clone).collect();
        let hashes = hash(&columns, &random, rows.num_rows())?.into_iter().collect();
        Ok(Self { rows, keys: best.into_keys().collect(), hashes, random, types })
    }

    /// Parts the rows into those that another choice has no correction of, and the others.
    pub(crate) fn part(&self, table: &Table, other: &Self) -> Result<(RecordBatch, RecordBatch)> {
        let columns: Vec<ArrayRef> = table.key.iter().filter_map(|k| self.rows.column_by_name(k)).map(Arc::clone).collect();
        let untouched = other.untouched(&columns, self.rows.num_rows())?;
        Ok((filter_record_batch(&self.rows, &untouched)?, filter_record_batch(&self.rows, &not(&untouched)?)?))
    }

    /// The condition that a first version was not corrected.
    pub(crate) fn condition(self: &Arc<Self>, table: &Table) -> Expr {
        let signature = Signature::any(table.key.len(), Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(Condition { signature, last: Arc::clone(self) });
        function.call(table.key.iter().map(|k| col(*k)).collect())
    }

    fn untouched(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanArray> {
        let hashes = hash(columns, &self.random, rows)?;
        let suspects: BooleanArray = hashes.iter().map(|h| Some(self.hashes.contains(h))).collect();
        if !suspects.has_true() {
            return Ok(BooleanArray::from(vec![true; rows]));
        }
        let few = columns.iter().map(|c| filter(c, &suspects)).collect::<Result<Vec<_>, _>>()?;
        let mut corrected = convert(&self.types, &few)?.into_iter().map(|key| self.keys.contains(&key));
        Ok(suspects.values().iter().map(|is_suspect| Some(!(is_suspect && corrected.next() == Some(true)))).collect())
    }
}

/// Whether a filter has to be left where it is: the files cannot use it.
pub(crate) fn is_condition(filter: &Expr) -> bool {
    matches!(filter, Expr::ScalarFunction(call) if call.func.name() == CONDITION)
}

/// What orders the versions of a row.
struct Places<'a>(Option<&'a [i64]>, Option<&'a [i64]>);

impl<'a> Places<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let revisions = batch.column_by_name(REV).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let times = batch.column_by_name("recorded_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        Self(revisions.map(|r| r.values().as_ref()), times.map(|t| t.values().as_ref()))
    }

    fn later(&self, a: usize, b: usize) -> usize {
        let place = |row: usize| (self.0.and_then(|r| r.get(row)), self.1.and_then(|t| t.get(row)));
        if place(b) > place(a) { b } else { a }
    }
}

fn convert(types: &[DataType], columns: &[ArrayRef]) -> Result<Vec<OwnedRow>> {
    let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
    Ok(converter.convert_columns(columns)?.iter().map(|row| row.owned()).collect())
}

fn hash(columns: &[ArrayRef], random: &RandomState, rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(columns, random, &mut hashes)?;
    Ok(hashes)
}

#[derive(Debug)]
struct Condition {
    signature: Signature,
    last: Arc<Last>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.last, &other.last)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.last).hash(state);
    }
}

impl ScalarUDFImpl for Condition {
    fn name(&self) -> &'static str {
        CONDITION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|a| a.into_array(rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(self.last.untouched(&columns, rows)?)))
    }
}
