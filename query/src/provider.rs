//! One table as a question sees it: files, tail and open rows, cut to a tenant and a time.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{and, cast, concat_batches, filter, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DFSchema, ScalarValue, plan_datafusion_err};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, lit};
use datafusion::physical_expr::expressions;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use kiro_ports::{AsOf, TableView};
use kiro_schemas::Tenant;
use kiro_tables::Table;

use crate::corrections::{Few, Last, is_condition};
use crate::revisions::REV;

/// Whose rows are seen, and as of when. Part of the provider: no statement can remove it.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// Whose rows.
    pub(crate) tenant: Tenant,
    /// Only rows that the log had taken by then.
    pub(crate) as_of: Option<AsOf>,
}

/// All rows of a table that a cut lets through, every version of them.
#[derive(Debug)]
pub(crate) struct CutTable {
    pub(crate) table: &'static Table,
    pub(crate) rows: TableView,
    pub(crate) files: Option<Arc<dyn TableProvider>>,
    pub(crate) cut: Cut,
}

impl CutTable {
    /// The corrections in memory, cut.
    pub(crate) fn corrections(&self) -> Result<RecordBatch> {
        self.corrected(self.rows.tail.iter().map(|b| &b.rows).chain(&self.rows.open))
    }

    /// The last of the corrections in the files, cut. They stay the same for as long as the files do.
    pub(crate) fn last_in(&self, found: &Few) -> Result<Arc<Last>> {
        let choose = |rows: &RecordBatch| Last::among(self.table, &self.corrected([rows])?);
        if self.cut.as_of.is_some() { Ok(Arc::new(choose(&found.rows)?)) } else { found.last_of(&self.cut.tenant, choose) }
    }

    fn corrected<'b>(&self, batches: impl IntoIterator<Item = &'b RecordBatch>) -> Result<RecordBatch> {
        let mut kept = Vec::new();
        for batch in batches {
            let revisions = fit(batch, &Field::new(REV, DataType::Int64, false))?;
            let corrected = cmp::gt(revisions.as_primitive::<Int64Type>(), &Int64Array::new_scalar(0))?;
            if corrected.has_true() {
                kept.push(filter_record_batch(batch, &and(&corrected, &self.mask(batch)?)?)?);
            }
        }
        let schema = self.table.schema();
        let fitted = kept.iter().map(|batch| {
            let columns = schema.fields().iter().map(|field| fit(batch, field)).collect::<Result<_>>()?;
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
        });
        Ok(concat_batches(&schema, &fitted.collect::<Result<Vec<_>>>()?)?)
    }

    /// The rows in memory, cut and reduced to the wanted columns.
    fn memory(&self, wanted: &[usize]) -> Result<Vec<RecordBatch>> {
        let schema: SchemaRef = Arc::new(self.table.schema().project(wanted)?);
        let batches = self.rows.tail.iter().map(|b| &b.rows).chain(&self.rows.open);
        let mut kept = Vec::new();
        for batch in batches {
            let mask = self.mask(batch)?;
            let count = mask.true_count();
            if count == 0 {
                continue;
            }
            let all = count == batch.num_rows();
            let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
                let column = fit(batch, field)?;
                Ok(if all { column } else { filter(&column, &mask)? })
            });
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            kept.push(RecordBatch::try_new_with_options(Arc::clone(&schema), columns.collect::<Result<_>>()?, &options)?);
        }
        Ok(kept)
    }

    fn mask(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let tenants = fit(batch, &Field::new("tenant", DataType::Utf8View, false))?;
        let tenant = StringViewArray::new_scalar(self.cut.tenant.as_str());
        let mut mask = cmp::eq(&tenants.as_string_view(), &tenant)?;
        if let Some(as_of) = self.cut.as_of {
            let times = fit(batch, &Field::new("recorded_at", micros(), false))?;
            let limit = TimestampMicrosecondArray::new_scalar(as_of.0).into_inner().with_timezone("UTC");
            let limit = arrow::array::Scalar::new(limit);
            mask = and(&mask, &cmp::lt_eq(times.as_primitive::<TimestampMicrosecondType>(), &limit)?)?;
        }
        Ok(if arrow::array::Array::nulls(&mask).is_some() { prep_null_mask_filter(&mask) } else { mask })
    }

    /// The rows in files, cut and cast to the wanted columns.
    async fn scan_files(
        &self,
        state: &dyn Session,
        files: &dyn TableProvider,
        wanted: &[usize],
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (ours, theirs) = (self.table.schema(), files.schema());
        let guards = self.guards(&theirs)?;
        let mut names: Vec<&str> = wanted.iter().map(|i| ours.field(*i).name().as_str()).collect();
        names.push("tenant");
        names.extend(self.cut.as_of.map(|_| "recorded_at"));
        let mut columns: Vec<usize> = names.iter().filter_map(|n| theirs.index_of(n).ok()).collect();
        columns.sort_unstable();
        columns.dedup();
        let usable = filters.iter().filter(|f| speaks_the_same(f, &ours, &theirs)).chain(&guards);
        let usable: Vec<Expr> = usable.cloned().collect();
        let support = files.supports_filters_pushdown(&usable.iter().collect::<Vec<_>>())?;
        let pushed = usable.into_iter().zip(support).filter(|(_, s)| *s != TableProviderFilterPushDown::Unsupported);
        let pushed: Vec<Expr> = pushed.map(|(f, _)| f).collect();
        let mut plan = files.scan(state, Some(&columns), &pushed, None).await?;
        for guard in guards {
            let schema = DFSchema::try_from(plan.schema())?;
            let predicate = state.create_physical_expr(guard, &schema)?;
            plan = Arc::new(FilterExec::try_new(predicate, plan)?);
        }
        project_to(plan, &ours.project(wanted)?)
    }

    /// The conditions that every row of the files has to meet.
    fn guards(&self, theirs: &Schema) -> Result<Vec<Expr>> {
        let of = |name: &str, value: ScalarValue| -> Result<(Expr, Expr)> {
            let field = theirs
                .field_with_name(name)
                .map_err(|e| plan_datafusion_err!("the files of {} cannot be cut to a tenant and a time: {e}", self.table.name))?;
            Ok((Expr::Column(Column::from_name(name)), lit(value.cast_to(field.data_type())?)))
        };
        let (column, tenant) = of("tenant", ScalarValue::Utf8View(Some(self.cut.tenant.to_string())))?;
        let mut guards = vec![column.eq(tenant)];
        if let Some(as_of) = self.cut.as_of {
            let (column, limit) = of("recorded_at", ScalarValue::TimestampMicrosecond(Some(as_of.0), Some("UTC".into())))?;
            guards.push(column.lt_eq(limit));
        }
        Ok(guards)
    }
}

#[async_trait]
impl TableProvider for CutTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| {
            if is_condition(filter) { TableProviderFilterPushDown::Unsupported } else { TableProviderFilterPushDown::Inexact }
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.table.columns.len()).collect());
        let schema: SchemaRef = Arc::new(self.table.schema().project(&wanted)?);
        let memory = self.memory(&wanted)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if let Some(files) = &self.files {
            inputs.push(self.scan_files(state, files.as_ref(), &wanted, filters).await?);
        }
        if inputs.is_empty() || !memory.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(&[memory], schema, None)?);
        }
        UnionExec::try_new(inputs)
    }
}

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A column of a batch in the wanted type; nulls where the batch is older than the column.
pub(crate) fn fit(batch: &RecordBatch, field: &Field) -> Result<ArrayRef> {
    match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => Ok(cast(column, field.data_type())?),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    }
}

/// Whether all columns of a filter have the same type in the files as in the table.
fn speaks_the_same(filter: &Expr, ours: &Schema, theirs: &Schema) -> bool {
    let same = |c: &&Column| match (ours.field_with_name(&c.name), theirs.field_with_name(&c.name)) {
        (Ok(a), Ok(b)) => a.data_type() == b.data_type(),
        _ => false,
    };
    let columns = filter.column_refs();
    columns.iter().all(same)
}

/// Puts the columns of a plan into the order, names and types of a schema.
fn project_to(plan: Arc<dyn ExecutionPlan>, schema: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let input = plan.schema();
    let mut columns: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let expr: Arc<dyn PhysicalExpr> = match input.index_of(field.name()) {
            Ok(at) => {
                let column: Arc<dyn PhysicalExpr> = Arc::new(expressions::Column::new(field.name(), at));
                expressions::cast(column, &input, field.data_type().clone())?
            }
            Err(_) => expressions::lit(ScalarValue::try_from(field.data_type())?),
        };
        columns.push((expr, field.name().clone()));
    }
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}
