//! Rows that are too wide to be repeated: a join repeats a row of one side for each that it meets on the other, in memory that the
//! engine does not count. A row may be as wide as lets a whole batch of copies fit into the memory of a question.

use std::fmt::Formatter;
use std::sync::Arc;

use arrow::array::{Array, AsArray, OffsetSizeTrait, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use datafusion::common::resources_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::StreamExt;

/// Passes rows up to a width.
#[derive(Debug)]
pub(crate) struct NarrowExec {
    input: Arc<dyn ExecutionPlan>,
    most: usize,
}

impl NarrowExec {
    /// `most` is the width in bytes.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, most: usize) -> Self {
        Self { input, most }
    }
}

impl DisplayAs for NarrowExec {
    fn fmt_as(&self, _form: DisplayFormatType, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("NarrowExec")
    }
}

impl ExecutionPlan for NarrowExec {
    fn name(&self) -> &'static str {
        "NarrowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(&self, _look: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input, most: self.most }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (rows, most) = (self.input.execute(partition, context)?, self.most);
        let checked = rows.map(move |batch| batch.and_then(|batch| check(batch, most)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), checked)))
    }
}

fn check(batch: RecordBatch, most: usize) -> Result<RecordBatch> {
    let width = batch.columns().iter().map(|column| widest(column.as_ref())).sum::<usize>();
    if width > most { resources_err!("a row of {width} bytes is too wide to be joined, {most} are allowed") } else { Ok(batch) }
}

/// The bytes of the widest value of a column.
fn widest(column: &dyn Array) -> usize {
    match column.data_type() {
        DataType::Utf8 => longest(column.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => longest(column.as_string::<i64>().offsets()),
        DataType::Utf8View => column.as_string_view().lengths().max().unwrap_or(0) as usize,
        DataType::List(_) => longest(column.as_list::<i32>().offsets()) * mean(column.as_list::<i32>().values().as_ref()),
        DataType::LargeList(_) => longest(column.as_list::<i64>().offsets()) * mean(column.as_list::<i64>().values().as_ref()),
        DataType::Map(..) => longest(column.as_map().offsets()) * mean(column.as_map().entries()),
        other => other.primitive_width().unwrap_or_else(|| mean(column)),
    }
}

fn longest<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> usize {
    offsets.lengths().max().unwrap_or(0)
}

/// The bytes of a value on average.
fn mean(values: &dyn Array) -> usize {
    values.get_array_memory_size() / values.len().max(1)
}
