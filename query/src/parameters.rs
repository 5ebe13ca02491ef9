//! Parameters: `$1`, `$2`, … as text, typed by the plan.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::plain;
use crate::{Error, Result};

/// Most parameters of a statement.
const MAX_PARAMETERS: usize = 1_000;

/// The types of `$1`, `$2`, … in order; text where the plan does not tell.
pub(crate) fn parameter_types(plan: &LogicalPlan) -> Result<Vec<DataType>> {
    let mut types = plan.get_parameter_types().map_err(Error::of_plan)?;
    for id in limit_parameters(plan)? {
        types.insert(id, Some(DataType::Int64));
    }
    let mut ordered: HashMap<usize, DataType> = HashMap::new();
    for (id, found) in types {
        let position = id.trim_start_matches('$').parse::<usize>().ok().filter(|p| (1..=MAX_PARAMETERS).contains(p));
        let position = position.ok_or_else(|| Error::Syntax(format!("{id} is no parameter: $1 to ${MAX_PARAMETERS} are")))?;
        ordered.insert(position, found.unwrap_or(DataType::Utf8));
    }
    let count = ordered.keys().copied().max().unwrap_or(0);
    Ok((1..=count).map(|p| ordered.remove(&p).unwrap_or(DataType::Utf8)).collect())
}

/// The parameters in LIMIT and OFFSET, which the planner does not type.
fn limit_parameters(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(_) = node {
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    if let Expr::Placeholder(p) = e {
                        ids.push(p.id.clone());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(Error::of_plan)?;
    Ok(ids)
}

/// Puts the values in.
pub(crate) fn bind(plan: LogicalPlan, values: &[Option<String>]) -> Result<LogicalPlan> {
    let types = parameter_types(&plan)?;
    if types.len() != values.len() {
        let reason = format!("the statement takes {}, {} came", types.len(), values.len());
        return Err(Error::Parameter { position: types.len().max(values.len()), reason });
    }
    if types.is_empty() {
        return Ok(plan);
    }
    let scalars = types.iter().zip(values).enumerate().map(|(at, (kind, value))| scalar(at + 1, kind, value.as_deref()));
    let list: Vec<ScalarAndMetadata> = scalars.map(|v| v.map(ScalarAndMetadata::from)).collect::<Result<_>>()?;
    plan.with_param_values(ParamValues::List(list)).map_err(Error::of_plan)
}

fn scalar(position: usize, kind: &DataType, value: Option<&str>) -> Result<ScalarValue> {
    let fault = |reason| Error::Parameter { position, reason };
    match value {
        None => ScalarValue::try_from(kind).map_err(|e| fault(plain(&e))),
        Some(text) => {
            ScalarValue::try_from_string(text.to_owned(), kind).map_err(|e| fault(format!("{text:?} is no {kind}: {}", plain(&e))))
        }
    }
}
