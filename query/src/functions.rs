//! Which functions a question may use, and the bounded generators.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::functions_table;
use datafusion::logical_expr::Expr;

/// Scalar functions that make large values out of small ones outside the memory pool, or look outside of the data.
const DENIED: &[&str] = &[
    "range",
    "generate_series",
    "gen_series",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "space",
    // Takes the product of the lengths of both texts, however long.
    "levenshtein",
    "input_file_name",
    "file_row_index",
    "pg_sleep",
    "pg_read_file",
    "pg_ls_dir",
    "pg_stat_file",
    "lo_import",
    "lo_export",
    "dblink",
];

/// Aggregates that a window may use: each row costs them little. Others build their whole state anew for each row.
const SLIDING: &[&str] = &[
    "sum",
    "count",
    "avg",
    "mean",
    "min",
    "max",
    "first_value",
    "last_value",
    "nth_value",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "var",
    "var_samp",
    "var_pop",
    "var_population",
    "var_sample",
    "corr",
    "covar",
    "covar_samp",
    "covar_pop",
];

/// Most rows of a generator.
const MAX_GENERATED: i128 = 1_000_000;

/// Whether a function may not be called at all.
pub(crate) fn is_denied(name: &str) -> bool {
    DENIED.contains(&name.to_ascii_lowercase().as_str())
}

/// Whether an aggregate may be used over a window.
pub(crate) fn may_slide(name: &str) -> bool {
    SLIDING.contains(&name.to_ascii_lowercase().as_str())
}

/// The value of an integer literal, with its sign and casts.
fn literal(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(value, _) => match value {
            ScalarValue::Int64(Some(v)) => Some(i128::from(*v)),
            ScalarValue::UInt64(Some(v)) => Some(i128::from(*v)),
            ScalarValue::Int32(Some(v)) => Some(i128::from(*v)),
            _ => None,
        },
        Expr::Negative(inner) => literal(inner).map(|v| -v),
        Expr::Cast(cast) => literal(&cast.expr),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// `generate_series` and `range` of integer literals, at most a million rows.
#[derive(Debug)]
struct Bounded {
    name: &'static str,
    inner: Arc<dyn TableFunctionImpl>,
}

impl TableFunctionImpl for Bounded {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let numbers: Option<Vec<i128>> = args.exprs().iter().map(literal).collect();
        let Some(numbers) = numbers else {
            return plan_err!("{} takes integer literals only", self.name);
        };
        let (start, end, step) = match numbers.as_slice() {
            [end] => (0, *end, 1),
            [start, end] => (*start, *end, 1),
            [start, end, step] if *step != 0 => (*start, *end, *step),
            _ => return plan_err!("{} takes one to three integers, the last of them not 0", self.name),
        };
        let rows = (end - start) / step + 1;
        if rows > MAX_GENERATED {
            return plan_err!("{} would make {rows} rows, at most {MAX_GENERATED} are allowed", self.name);
        }
        self.inner.call_with_args(args)
    }
}

/// The table functions of a session.
pub(crate) fn table_functions() -> Vec<(&'static str, Arc<dyn TableFunctionImpl>)> {
    functions_table::all_default_table_functions()
        .into_iter()
        .filter_map(|function| {
            let name = ["generate_series", "range"].into_iter().find(|n| *n == function.name())?;
            let bounded: Arc<dyn TableFunctionImpl> = Arc::new(Bounded { name, inner: Arc::clone(function.function()) });
            Some((name, bounded))
        })
        .collect()
}
