//! Versioned tables as they stand: the first version of each row unless it was corrected, else the last correction.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, JoinType, not_impl_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;
use kiro_tables::Table;

use crate::provider::CutTable;

/// The revision column, which users do not see.
const REV: &str = "_rev";

/// A table whose rows are looked up through their revisions.
#[derive(Debug)]
pub(crate) struct CurrentRows {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl CurrentRows {
    /// The current rows of a versioned table.
    ///
    /// Rows whose key has a revision above 0 are anti-joined away; the few corrections are the build side of the join, so the
    /// files stream through and a filter or a limit reaches them.
    pub(crate) fn try_new(rows: Arc<CutTable>) -> Result<Self> {
        let table = rows.table;
        let corrected = rows.may_hold_corrections();
        let scan = || LogicalPlanBuilder::scan(table.name, provider_as_source(Arc::clone(&rows) as Arc<dyn TableProvider>), None);
        let shown: Vec<Expr> = table.columns.iter().filter(|c| c.name != REV).map(|c| column(c.name)).collect();
        let first = scan()?.filter(column(REV).eq(lit(0_i64)))?;
        let plan = if corrected {
            let keys = |qualifier: &str| table.key.iter().map(|k| Column::new(Some(qualifier.to_owned()), *k)).collect::<Vec<_>>();
            let corrections = scan()?.filter(column(REV).gt(lit(0_i64)))?;
            let touched = corrections.clone().project(table.key.iter().map(|k| column(k)))?.alias("_corrected")?.build()?;
            let untouched = LogicalPlanBuilder::from(touched).join(
                first.build()?,
                JoinType::RightAnti,
                (keys("_corrected"), keys(table.name)),
                None,
            )?;
            let last = last_versions(corrections, table)?.project(shown.clone())?;
            untouched.project(shown)?.union(last.build()?)?.build()?
        } else {
            first.project(shown)?.build()?
        };
        Ok(Self { schema: visible(table), plan })
    }
}

fn last_versions(corrections: LogicalPlanBuilder, table: &Table) -> Result<LogicalPlanBuilder> {
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
