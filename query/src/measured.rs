//! Functions that can make longer texts and lists than they are given: what they make counts in the memory of the question, from
//! before it is made until nobody holds it. However such functions are nested, each sees what the ones below made.
//!
//! A step that is not measured makes a text or list at most some times as long as what it is given; whatever could go on growing
//! passes through one that is.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, make_array};
use arrow::buffer::Buffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, internal_err, resources_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column};

use crate::sizes::{Size, bound_of};

/// Bytes that are made at a time; more rows are taken in pieces, whose bounds are then replaced by what they really took.
const STEP: usize = 8 << 20;
/// Longest value that is made of constants alone: while a question is planned, nothing tells how long it will be held.
const MOST_CONSTANT: usize = 32 << 10;

/// Puts the measured functions in the place of the others, when all types are known and before constants are folded.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) pool: Arc<dyn MemoryPool>,
}

impl Measure {
    fn expr(&self, expr: Expr) -> Transformed<Expr> {
        let (inner, args) = match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) if bound_of(func.name()).is_some() => (func, args),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                (Arc::new(ScalarUDF::new_from_impl(Joined::default())), vec![*left, *right])
            }
            other => return Transformed::no(other),
        };
        let measured = ScalarUDF::new_from_impl(Measured { inner, pool: Arc::clone(&self.pool) });
        Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(measured), args)))
    }
}

impl AnalyzerRule for Measure {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|expr| Ok(self.expr(expr)))?.update_data(|expr| name.restore(expr)))
            })
        });
        plan.map(|plan| plan.data)
    }

    fn name(&self) -> &'static str {
        "measure"
    }
}

/// Refuses a plan that would repeat long constants in each row of a batch: the engine does not count them.
pub(crate) fn check_constants(plan: &LogicalPlan, batch: usize, memory: usize) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        let rows = inputs.iter().map(|input| input.max_rows().unwrap_or(batch).min(batch)).max().unwrap_or(1);
        let mut bytes = 0_usize;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                Ok(match expr {
                    Expr::Literal(value, _) => {
                        bytes = bytes.saturating_add(value.size().saturating_sub(size_of::<ScalarValue>()));
                        TreeNodeRecursion::Continue
                    }
                    // What is only compared is not repeated.
                    Expr::InList(_) | Expr::BinaryExpr(_) | Expr::Like(_) | Expr::Between(_) => TreeNodeRecursion::Jump,
                    _ => TreeNodeRecursion::Continue,
                })
            })
        })?;
        if bytes.saturating_mul(rows) > memory {
            return resources_err!("constants of {bytes} bytes are too long to stand in each row");
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// A function whose result is measured.
#[derive(Debug)]
struct Measured {
    inner: Arc<ScalarUDF>,
    pool: Arc<dyn MemoryPool>,
}

impl PartialEq for Measured {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Measured {}

impl Hash for Measured {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Measured {
    fn reserve(&self, bytes: usize) -> Result<MemoryReservation> {
        let reservation = MemoryConsumer::new(self.inner.name()).register(&self.pool);
        reservation.try_grow(bytes)?;
        Ok(reservation)
    }

    fn bound(&self, args: &[ColumnarValue], rows: Range<usize>) -> usize {
        let sizes: Vec<Size> = args.iter().map(|arg| Size::of(arg, &rows)).collect();
        bound_of(self.inner.name()).map_or(0, |bound| bound(&sizes, rows.len()))
    }

    fn constant(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let reservation = self.reserve(self.bound(&args.args, 0..1))?;
        let value = match self.inner.invoke_with_args(args)? {
            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
            ColumnarValue::Scalar(value) => value,
        };
        drop(reservation);
        match value.size() {
            long if long > MOST_CONSTANT => resources_err!("{} makes a constant of {long} bytes", self.inner.name()),
            _ => Ok(ColumnarValue::Scalar(value)),
        }
    }

    /// The rows of a range, in pieces that are small or cannot be cut any more.
    fn pieces(&self, args: &ScalarFunctionArgs, rows: Range<usize>, done: &mut Vec<(ArrayRef, MemoryReservation)>) -> Result<()> {
        let bound = self.bound(&args.args, rows.clone());
        if bound > STEP && rows.len() > 1 {
            let middle = rows.start + rows.len() / 2;
            self.pieces(args, rows.start..middle, done)?;
            return self.pieces(args, middle..rows.end, done);
        }
        let reservation = self.reserve(bound)?;
        let cut = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(rows.start, rows.len())),
            ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
        };
        let piece = ScalarFunctionArgs {
            args: args.args.iter().map(cut).collect(),
            arg_fields: args.arg_fields.clone(),
            number_rows: rows.len(),
            return_field: Arc::clone(&args.return_field),
            config_options: Arc::clone(&args.config_options),
        };
        let made = self.inner.invoke_with_args(piece)?.into_array(rows.len())?;
        reservation.try_resize(made.get_array_memory_size())?;
        done.push((made, reservation));
        Ok(())
    }
}

impl ScalarUDFImpl for Measured {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<Arc<Field>> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return self.constant(args);
        }
        let mut done = Vec::new();
        self.pieces(&args, 0..args.number_rows, &mut done)?;
        let (array, reservation) = if done.len() == 1 {
            done.remove(0)
        } else {
            let arrays: Vec<&dyn Array> = done.iter().map(|(array, _)| array.as_ref()).collect();
            let whole = self.reserve(arrays.iter().map(|array| array.get_array_memory_size()).sum())?;
            (concat(&arrays)?, whole)
        };
        Ok(ColumnarValue::Array(make_array(held(array.to_data(), &Arc::new(reservation))?)))
    }
}

/// A buffer, and the memory that counts as long as anyone holds it.
struct Held {
    buffer: Buffer,
    #[expect(dead_code, reason = "it counts until it is dropped")]
    reservation: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

/// The same values; the reservation ends with the last of their buffers.
fn held(data: ArrayData, reservation: &Arc<MemoryReservation>) -> Result<ArrayData> {
    let hold = |buffer: &Buffer| {
        let held = Held { buffer: buffer.clone(), reservation: Arc::clone(reservation) };
        Buffer::from(Bytes::from_owner(held))
    };
    let buffers = data.buffers().iter().map(hold).collect();
    let children = data.child_data().iter().map(|child| held(child.clone(), reservation)).collect::<Result<_>>()?;
    Ok(data.into_builder().buffers(buffers).child_data(children).build()?)
}

/// `a || b` as a function, so that it can be measured: the engine's own operator over two columns.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Joined {
    signature: Signature,
}

impl Default for Joined {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [left, right] = arguments else { return internal_err!("|| takes two values") };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.into_iter().map(|arg| arg.into_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let fields = arrays.iter().zip(["0", "1"]).map(|(array, name)| Field::new(name, array.data_type().clone(), true));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays)?;
        let [left, right]: [Arc<dyn PhysicalExpr>; 2] = [Arc::new(Column::new("0", 0)), Arc::new(Column::new("1", 1))];
        PhysicalBinary::new(left, Operator::StringConcat, right).evaluate(&batch)
    }
}
