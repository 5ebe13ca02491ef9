//! What makes a running plan give way: operators that can compute for long without asking for input are looked after.
//!
//! The engine yields where its leaves give a batch. A join makes of two small inputs any number of rows, or none, without asking
//! for more; here it yields with each batch that it gives, and its condition, which it evaluates at least once per batch of
//! pairs, fails as soon as nobody wants the answer any more.

use std::fmt::{Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, JoinType, exec_err, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, PiecewiseMergeJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, PhysicalExpr, ReplaceChildrenOptions};

use crate::narrow::NarrowExec;

/// Whether an answer is still wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted(AtomicBool);

impl Wanted {
    /// Nobody wants it any more.
    pub(crate) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { exec_err!("the answer is not wanted any more") } else { Ok(()) }
    }
}

/// The plan, looked after; `width` is what a row that is repeated may have, in bytes.
pub(crate) fn watch(plan: Arc<dyn ExecutionPlan>, wanted: &Arc<Wanted>, width: usize) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let joins = node.is::<NestedLoopJoinExec>() || node.is::<HashJoinExec>() || is_multiplier(node.as_ref());
        if !joins {
            return Ok(Transformed::no(node));
        }
        let inputs = node.children().into_iter().map(|input| Arc::new(NarrowExec::new(Arc::clone(input), width)) as Arc<dyn ExecutionPlan>);
        let inputs = inputs.collect();
        let node = node.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
        let watched: Arc<dyn ExecutionPlan> = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            let filter = join.filter().cloned().or_else(|| always(join.left(), join.right()));
            Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter.map(|f| looked_at(&f, wanted))).build()?)
        } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            // A join that gives each row once at most can look at any number of pairs before it gives one.
            let gives_pairs = matches!(join.join_type(), JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
            let filter = join.filter().cloned();
            let filter = if gives_pairs || join.null_aware { filter } else { filter.or_else(|| always(join.left(), join.right())) };
            match filter {
                Some(filter) => join.builder().with_filter(Some(looked_at(&filter, wanted))).build_exec()?,
                None => node,
            }
        } else {
            node
        };
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(watched)) as Arc<dyn ExecutionPlan>))
    })
    .map(|plan| plan.data)
}

fn is_multiplier(node: &dyn ExecutionPlan) -> bool {
    node.is::<CrossJoinExec>() || node.is::<UnnestExec>() || node.is::<SortMergeJoinExec>() || node.is::<PiecewiseMergeJoinExec>()
}

fn looked_at(filter: &JoinFilter, wanted: &Arc<Wanted>) -> JoinFilter {
    let expr = Arc::new(LookedAt { inner: Arc::clone(filter.expression()), wanted: Arc::clone(wanted) });
    JoinFilter::new(expr, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// A condition that is always met, over one column; `None` where there is no column.
fn always(left: &Arc<dyn ExecutionPlan>, right: &Arc<dyn ExecutionPlan>) -> Option<JoinFilter> {
    let sides = [(left.schema(), JoinSide::Left), (right.schema(), JoinSide::Right)];
    let (schema, side) = sides.into_iter().find(|(schema, _)| !schema.fields().is_empty())?;
    let schema = schema.project(&[0]).ok()?;
    Some(JoinFilter::new(lit(true), vec![ColumnIndex { index: 0, side }], Arc::new(schema)))
}

/// A condition that fails when the answer is not wanted any more.
#[derive(Debug)]
struct LookedAt {
    inner: Arc<dyn PhysicalExpr>,
    wanted: Arc<Wanted>,
}

impl PartialEq for LookedAt {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for LookedAt {}

impl Hash for LookedAt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Display for LookedAt {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for LookedAt {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.wanted.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let [inner] = children.as_slice() else { return internal_err!("a condition has one child") };
        Ok(Arc::new(Self { inner: Arc::clone(inner), wanted: Arc::clone(&self.wanted) }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt_sql(f)
    }
}
