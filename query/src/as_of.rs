//! Subjects as of a time: as their events up to then tell them, whatever was derived from them when.
//!
//! A subject that no event touched since stands as it stood then, so its row of now is taken. The others, few where the time is
//! near, are told from their events by one statement. It says in SQL what the fold of subjects does: of each field the value of the
//! last event that has one, by time, transition and id.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::{Column, ParamValues, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, cast};
use kiro_ports::AsOf;
use kiro_schemas::subject::{SPECS, Shape, TransitionSpec};
use kiro_schemas::{Outcome, Role, SubjectSpec};
use kiro_tables::Table;

use crate::catalog::SCHEMA;
use crate::query::catalogs;
use crate::revisions::{CurrentRows, visible};
use crate::tools::Function;

/// What the rows of a table are; `None` for a table of anything but subjects.
pub(crate) fn subject_of(table: &Table) -> Option<&'static SubjectSpec> {
    SPECS.iter().find(|spec| spec.table == table.name && spec.shape == Shape::Subject)
}

/// The subjects of a table as of a time, from the table as it stands and all events behind it.
pub(crate) async fn subjects(
    subject: (&'static SubjectSpec, &'static Table),
    now: CurrentRows,
    events: Arc<dyn TableProvider>,
    as_of: AsOf,
    reader: &SessionState,
) -> Result<CurrentRows> {
    let (spec, table) = subject;
    let state = session(reader, Arc::new(now), events)?;
    let untouched = planned(&state, &untouched(table), as_of).await?;
    let touched = planned(&state, &touched(spec, table), as_of).await?;
    let plan = fitted(untouched, table)?.union(fitted(touched, table)?.build()?)?;
    Ok(CurrentRows::of(table, plan.build()?))
}

/// A session that sees the two tables and nothing else.
fn session(reader: &SessionState, now: Arc<dyn TableProvider>, events: Arc<dyn TableProvider>) -> Result<SessionState> {
    let (schema, catalog) = (Arc::new(MemorySchemaProvider::new()), MemoryCatalogProvider::new());
    schema.register_table("_now".to_owned(), now)?;
    schema.register_table("_events".to_owned(), events)?;
    catalog.register_schema(SCHEMA, schema)?;
    let builder = SessionStateBuilder::new_from_existing(reader.clone()).with_catalog_list(catalogs(Arc::new(catalog)));
    let mut state = builder.build();
    let outcome = Function::new("_outcome_of", DataType::Utf8, |arguments| {
        let word = arguments.first().and_then(|word| word.try_as_str().flatten());
        Ok(ScalarValue::Utf8(word.and_then(Outcome::of_provider).map(|outcome| outcome.as_str().to_owned())))
    });
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(outcome)))?;
    Ok(state)
}

async fn planned(state: &SessionState, sql: &str, as_of: AsOf) -> Result<LogicalPlan> {
    let time = ScalarValue::TimestampMicrosecond(Some(as_of.0), Some("UTC".into()));
    state.create_logical_plan(sql).await?.with_param_values(ParamValues::List(vec![ScalarAndMetadata::from(time)]))
}

/// The columns of a table, in its types.
fn fitted(plan: LogicalPlan, table: &Table) -> Result<LogicalPlanBuilder> {
    let schema = visible(table);
    let columns = schema.fields().iter().map(|field| {
        let column = Expr::Column(Column::from_name(field.name()));
        cast(column, field.data_type().clone()).alias(field.name())
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)
}

fn list(names: &[&str], each: impl Fn(&str) -> String) -> String {
    names.iter().map(|name| each(name)).collect::<Vec<_>>().join(", ")
}

/// What names a subject among those of the one tenant that is seen.
fn keys(table: &Table) -> Vec<&'static str> {
    table.key.iter().copied().filter(|key| *key != "tenant").collect()
}

/// The condition that the rows of two tables are of one subject.
fn same(table: &Table, one: &str, other: &str) -> String {
    keys(table).iter().map(|key| format!("{one}.\"{key}\" = {other}.\"{key}\"")).collect::<Vec<_>>().join(" AND ")
}

/// The subjects that an event touched since.
fn since(table: &Table) -> String {
    format!("since AS (SELECT {} FROM _events WHERE recorded_at > $1)", list(&keys(table), |key| format!("\"{key}\"")))
}

fn untouched(table: &Table) -> String {
    let schema = visible(table);
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        // When it was derived may be later; what it was derived from is not.
        "recorded_at" => "LEAST(n.recorded_at, $1) AS recorded_at".to_owned(),
        name => format!("n.\"{name}\""),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("WITH {} SELECT {columns} FROM _now n LEFT ANTI JOIN since ON {}", since(table), same(table, "n", "since"))
}

/// `'a', 'b'`: the transitions that meet a condition.
fn transitions(spec: &SubjectSpec, is_meant: impl Fn(&TransitionSpec) -> bool) -> String {
    let meant = spec.transitions.iter().filter(|step| is_meant(step)).map(|step| format!("'{}'", step.transition));
    meant.chain(["''".to_owned()]).collect::<Vec<_>>().join(", ")
}

/// What each event up to the time says of a subject that was touched since.
fn facts(spec: &'static SubjectSpec, table: &Table) -> String {
    let ranks = spec.transitions.iter().enumerate().map(|(at, step)| format!("WHEN '{}' THEN {}", step.transition, at + 1));
    let fields = fields(spec).map(|name| {
        let setting = transitions(spec, |step| step.sets == Some(name));
        match setting.as_str() {
            "''" => format!("e.\"{name}\""),
            setting => format!("COALESCE(e.\"{name}\", CASE WHEN e.transition IN ({setting}) THEN e.time END) AS \"{name}\""),
        }
    });
    format!(
        "facts AS (SELECT e.tenant, {keys}, {fields}, e.time, e.known_at, e.recorded_at, e.event_id, e.attributes, \
         CASE e.transition {ranks} ELSE 0 END AS _rank, e.transition IN ({ends}) AS _is_end \
         FROM _events e LEFT SEMI JOIN since ON {same} WHERE e.recorded_at <= $1)",
        keys = list(&keys(table), |key| format!("e.\"{key}\"")),
        fields = fields.collect::<Vec<_>>().join(", "),
        ranks = ranks.collect::<Vec<_>>().join(" "),
        ends = transitions(spec, |step| step.is_final),
        same = same(table, "e", "since"),
    )
}

fn fields(spec: &'static SubjectSpec) -> impl Iterator<Item = &'static str> {
    spec.columns.iter().filter(|column| column.role == Role::Field).map(|column| column.name)
}

/// The last value by the order of events. Deliveries of one event that differ agree on what stands last in `then`.
fn last(value: &str, then: &str, where_: &str) -> String {
    format!("last_value({value} ORDER BY time, _rank, event_id, {then}) FILTER (WHERE {where_})")
}

/// The events of each subject merged, and when what they tell was known.
fn merged(spec: &'static SubjectSpec, table: &Table) -> String {
    let keys = list(&keys(table), |key| format!("\"{key}\""));
    let values = fields(spec).map(|name| {
        let value = format!("\"{name}\"");
        format!("{} AS {value}", last(&value, &value, &format!("{value} IS NOT NULL")))
    });
    let known = |name: &str, where_: &str| format!("{} AS {name}", last("known_at", "known_at DESC", where_));
    let mut told = vec![known("_latest", "true"), known("_ending", "_is_end")];
    for (name, field) in [("_by_outcome", "outcome"), ("_by_status", "status")] {
        told.extend(spec.field(field).map(|_| known(name, &format!("\"{field}\" IS NOT NULL"))));
    }
    format!(
        "merged AS (SELECT {keys}, min(tenant) AS tenant, {values}, {told}, max(time) AS time, max(recorded_at) AS recorded_at, bool_or(_is_end) AS _is_final \
         FROM facts GROUP BY {keys})",
        values = values.collect::<Vec<_>>().join(", "),
        told = told.join(", "),
    )
}

/// The attributes, each of them merged as a field is.
fn attributes(table: &Table) -> String {
    let keys = list(&keys(table), |key| format!("\"{key}\""));
    format!(
        "pairs AS (SELECT {keys}, time, _rank, event_id, unnest(map_keys(attributes)) AS _name, unnest(map_values(attributes)) AS _value \
         FROM facts WHERE attributes IS NOT NULL), \
         named AS (SELECT {keys}, _name, {value} AS _value FROM pairs GROUP BY {keys}, _name), \
         kept AS (SELECT {keys}, map(array_agg(_name ORDER BY _name), array_agg(_value ORDER BY _name)) AS attributes \
         FROM named GROUP BY {keys})",
        value = last("_value", "_value", "_value IS NOT NULL"),
    )
}

fn touched(spec: &'static SubjectSpec, table: &Table) -> String {
    let has = |name| spec.field(name).is_some();
    let told =
        if has("outcome") && has("status") { "CASE WHEN m._is_final AND m.outcome IS NULL THEN _outcome_of(m.status) END" } else { "NULL" };
    let known = if told == "NULL" { String::new() } else { format!("WHEN {told} IS NOT NULL THEN m._by_status ") };
    let known = if has("outcome") { format!("WHEN m._is_final AND m.outcome IS NOT NULL THEN m._by_outcome {known}") } else { known };
    let schema = visible(table);
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "outcome" if told != "NULL" => format!("COALESCE(m.outcome, {told}) AS outcome"),
        "duration_ms" if has("started_at") && has("finished_at") => "COALESCE(m.duration_ms, CASE WHEN m.finished_at >= m.started_at THEN \
             (arrow_cast(m.finished_at, 'Int64') - arrow_cast(m.started_at, 'Int64')) / 1000 END) AS duration_ms"
            .to_owned(),
        "attributes" => "k.attributes".to_owned(),
        "known_at" if known.is_empty() => "COALESCE(m._ending, m._latest) AS known_at".to_owned(),
        "known_at" => format!("CASE {known}ELSE COALESCE(m._ending, m._latest) END AS known_at"),
        name => format!("m.\"{name}\""),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let parts = [since(table), facts(spec, table), merged(spec, table), attributes(table)].join(", ");
    format!("WITH {parts} SELECT {columns} FROM merged m LEFT JOIN kept k ON {}", same(table, "m", "k"))
}
