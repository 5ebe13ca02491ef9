//! The SQL gate: what may pass is listed, all else is refused. It looks at the statement and at the whole logical plan.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as Ast};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;

use crate::error::{GateRefusal, plain};
use crate::functions::{is_denied, may_slide};
use crate::{Error, Result};

/// Deepest recursion of the parser.
const RECURSION: usize = 64;

/// Reads the one statement of a text.
pub(crate) fn parse_one(sql: &str) -> Result<Statement> {
    let parser = DFParserBuilder::new(sql).with_dialect(&PostgreSqlDialect {}).with_recursion_limit(RECURSION).build();
    let mut statements = parser.and_then(|mut p| p.parse_statements()).map_err(|e| Error::Syntax(plain(&e)))?;
    match (statements.len(), statements.pop_front()) {
        (1, Some(statement)) => Ok(statement),
        (0, _) => Err(Error::Syntax("there is no statement".into())),
        (n, _) => Err(Error::Refused(format!("{n} statements in one text"))),
    }
}

/// Refuses all statements but queries and what the planner turns into queries.
pub(crate) fn check_statement(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Statement(ast) => check_ast(ast),
        Statement::Explain(explain) => check_statement(&explain.statement),
        Statement::CreateExternalTable(_) => refuse("CREATE EXTERNAL TABLE"),
        Statement::CopyTo(_) => refuse("COPY"),
        Statement::Reset(_) => refuse("RESET"),
    }
}

fn check_ast(ast: &Ast) -> Result<()> {
    match ast {
        Ast::Query(query) => check_query(query),
        Ast::Explain { statement, .. } => check_ast(statement),
        Ast::ShowTables { .. } | Ast::ShowColumns { .. } | Ast::ExplainTable { .. } => Ok(()),
        other => refuse(first_words(&other.to_string())),
    }
}

fn check_query(query: &Query) -> Result<()> {
    if !query.locks.is_empty() {
        return refuse("FOR UPDATE and FOR SHARE");
    }
    for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
        check_query(&cte.query)?;
    }
    check_body(&query.body)
}

fn check_body(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(select) if select.into.is_some() => refuse("SELECT INTO"),
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => Ok(()),
        SetExpr::Query(query) => check_query(query),
        SetExpr::SetOperation { left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        SetExpr::Insert(_) => refuse("INSERT"),
        SetExpr::Update(_) => refuse("UPDATE"),
        SetExpr::Delete(_) => refuse("DELETE"),
        SetExpr::Merge(_) => refuse("MERGE"),
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn refuse<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Refused(what.into()))
}

/// Refuses a plan that does anything but read, at any depth, subqueries included.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(plan).map_err(|e| Error::Refused(plain(&e)))?;
    plan.apply_with_subqueries(|node| {
        check_node(node)?;
        node.apply_expressions(|expr| expr.apply(|e| check_expr(e).map(|()| TreeNodeRecursion::Continue)))
    })
    .map_err(Error::of_plan)?;
    Ok(())
}

fn check_node(node: &LogicalPlan) -> Result<(), DataFusionError> {
    let refused = match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_) => return Ok(()),
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE",
        LogicalPlan::Extension(_) => "an extension of the plan",
        LogicalPlan::Statement(_) => "a session statement",
        LogicalPlan::Dml(_) => "a change of data",
        LogicalPlan::Ddl(_) => "a change of the schema",
        LogicalPlan::Copy(_) => "COPY",
    };
    Err(refusal(refused))
}

fn check_expr(expr: &Expr) -> Result<(), DataFusionError> {
    let name = match expr {
        Expr::ScalarFunction(ScalarFunction { func, .. }) => func.name(),
        Expr::AggregateFunction(AggregateFunction { func, .. }) => func.name(),
        Expr::WindowFunction(window) => match &window.fun {
            WindowFunctionDefinition::AggregateUDF(f) if !may_slide(f.name()) => {
                return Err(refusal(format!("the function {} over a window", f.name())));
            }
            WindowFunctionDefinition::AggregateUDF(f) => f.name(),
            WindowFunctionDefinition::WindowUDF(f) => f.name(),
        },
        Expr::HigherOrderFunction(_) => return Err(refusal("a function of functions")),
        Expr::ScalarVariable(..) => return Err(refusal("a session variable")),
        _ => return Ok(()),
    };
    if is_denied(name) { Err(refusal(format!("the function {name}"))) } else { Ok(()) }
}

fn refusal(what: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(GateRefusal(what.into())))
}
