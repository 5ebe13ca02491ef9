//! Versioned tables as they stand: the first version of each row unless it was corrected, else the last correction.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, JoinType, not_impl_err};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;
use kiro_tables::Table;

use crate::corrections::{Few, Found, Last};
use crate::provider::CutTable;

/// The revision column, which users do not see.
pub(crate) const REV: &str = "_rev";

/// A table whose rows are looked up through their revisions.
#[derive(Debug)]
pub(crate) struct CurrentRows {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl CurrentRows {
    /// The rows that a plan gives, which has the columns of the table that users see.
    pub(crate) fn of(table: &Table, plan: LogicalPlan) -> Self {
        Self { schema: visible(table), plan }
    }

    /// The current rows of a versioned table.
    pub(crate) fn try_new(rows: &Arc<CutTable>, found: &Found) -> Result<Self> {
        let table = rows.table;
        let shown: Vec<Expr> = table.columns.iter().filter(|c| c.name != REV).map(|c| column(c.name)).collect();
        let first = scan(rows)?.filter(column(REV).eq(lit(0_i64)))?;
        let plan = match found {
            Found::Many => joined(rows, first)?.project(shown.clone())?.union(last_versions(rows)?.project(shown)?.build()?)?,
            Found::Few(found) => {
                let (corrections, beside) = corrections(rows, found)?;
                let mut plan = first;
                for last in corrections.iter().filter(|last| last.rows.num_rows() > 0) {
                    plan = plan.filter(last.condition(table))?;
                }
                plan = plan.project(shown.clone())?;
                if beside.iter().any(|rows| rows.num_rows() > 0) {
                    let beside = MemTable::try_new(table.schema(), vec![beside])?;
                    let beside = LogicalPlanBuilder::scan(table.name, provider_as_source(Arc::new(beside)), None)?;
                    plan = plan.union(beside.project(shown)?.build()?)?;
                }
                plan
            }
        };
        Ok(Self::of(table, plan.build()?))
    }
}

/// The corrections that first versions give way to, in files and in memory, and the rows that stand in their place. Those in
/// the files were chosen before; those in memory are new with each question, and few.
fn corrections(rows: &CutTable, found: &Few) -> Result<([Arc<Last>; 2], Vec<RecordBatch>)> {
    let (table, filed, fresh) = (rows.table, rows.last_in(found)?, rows.corrections()?);
    let mut last = Last::among(table, &fresh)?;
    let (apart, contested) = filed.part(table, &last)?;
    if contested.num_rows() > 0 {
        last = Last::among(table, &concat_batches(&table.schema(), [&contested, &fresh])?)?;
    }
    let beside = vec![apart, last.rows.clone()];
    Ok(([filed, Arc::new(last)], beside))
}

fn scan(rows: &Arc<CutTable>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(rows.table.name, provider_as_source(Arc::clone(rows) as Arc<dyn TableProvider>), None)
}

/// First versions whose key has no correction. The corrections are the build side of the join, so the files stream through.
fn joined(rows: &Arc<CutTable>, first: LogicalPlanBuilder) -> Result<LogicalPlanBuilder> {
    let table = rows.table;
    let keys = |qualifier: &str| table.key.iter().map(|k| Column::new(Some(qualifier.to_owned()), *k)).collect::<Vec<_>>();
    let corrections = scan(rows)?.filter(column(REV).gt(lit(0_i64)))?;
    let touched = corrections.project(table.key.iter().map(|k| column(k)))?.alias("_corrected")?;
    touched.join(first.build()?, JoinType::RightAnti, (keys("_corrected"), keys(table.name)), None)
}

fn last_versions(rows: &Arc<CutTable>) -> Result<LogicalPlanBuilder> {
    let table = rows.table;
    let corrections = scan(rows)?.filter(column(REV).gt(lit(0_i64)))?;
    let number = row_number()
        .partition_by(table.key.iter().map(|k| column(k)).collect())
        .order_by(vec![column(REV).sort(false, false), column("recorded_at").sort(false, false)])
        .build()?
        .alias("_place");
    let shown = table.columns.iter().map(|c| column(c.name)).chain([column("_place")]);
    corrections.window(vec![number])?.project(shown)?.filter(column("_place").eq(lit(1_u64)))
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// The columns of a table that users see.
pub(crate) fn visible(table: &Table) -> SchemaRef {
    let schema = table.schema();
    let fields: Vec<_> = schema.fields().iter().filter(|f| f.name() != REV).cloned().collect();
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl TableProvider for CurrentRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_impl_err!("the planner puts the plan of this table in its place")
    }
}
