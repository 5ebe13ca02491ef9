//! The join of `features` with `pipeline_runs`.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use arrow::array::RecordBatch;
use kiro_models::examples_from;
use kiro_schemas::{Micros, Value};
use kiro_tables::{Rows, Table};

/// One batch of a table: each row by column name; text, numbers and times that are not named get a filler.
fn batch(table: &str, rows: &[&[(&str, Value<'static>)]]) -> RecordBatch {
    let table = Table::find(table).expect("a table");
    let mut builder = Rows::new(table);
    for row in rows {
        let filler = |kind| match kind {
            kiro_schemas::Kind::Text => Value::text("x"),
            kiro_schemas::Kind::Int => Value::Int(0),
            kiro_schemas::Kind::Float => Value::Float(0.5),
            kiro_schemas::Kind::Time => Value::Time(Micros(1)),
            _ => Value::Null,
        };
        let value =
            |c: &kiro_tables::TableColumn| row.iter().find(|(n, _)| *n == c.name).map_or_else(|| filler(c.kind), |(_, v)| v.clone());
        let values: Vec<Value<'static>> = table.columns.iter().map(value).collect();
        builder.push(&values).expect("a row");
    }
    builder.finish().expect("a batch")
}

#[test]
fn current_versions_of_labelled_runs_in_time_order() {
    let run = |id: &'static str, outcome: &'static str, rev: i64| {
        vec![
            ("run_id", Value::text(id)),
            ("outcome", Value::text(outcome)),
            ("_rev", Value::Int(rev)),
            ("known_at", Value::Time(Micros(90 + rev))),
        ]
    };
    let feature = |id: &'static str, at: i64, rev: i64, last: f64| {
        let declared = Value::Map(vec![("size".into(), "7".into()), ("word".into(), "no".into())]);
        vec![
            ("run_id", Value::text(id)),
            ("as_of", Value::Time(Micros(at))),
            ("_rev", Value::Int(rev)),
            ("last", Value::Float(last)),
            ("declared", declared),
        ]
    };
    let runs = [run("a", "failure", 1), run("a", "success", 0), run("b", "success", 0), run("c", "cancel", 0), run("e", "failure", 0)];
    let features =
        [feature("a", 20, 0, 0.0), feature("a", 30, 1, 1.0), feature("b", 10, 0, 0.0), feature("c", 5, 0, 0.0), feature("d", 1, 0, 0.0)];
    let runs = batch("pipeline_runs", &runs.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let features = batch("features", &features.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let examples = examples_from(&[features], &[runs]).expect("examples");
    let seen: Vec<(i64, i64, bool)> = examples.iter().map(|e| (e.as_of.0, e.known_at.0, e.failed)).collect();
    assert_eq!(seen, [(10, 90, false), (30, 91, true)]);
    assert!((examples[1].features.history[0] - 1.0).abs() < 1e-12);
    assert_eq!(examples[1].features.declared.len(), 1);
}

#[test]
fn a_batch_of_another_table_is_refused() {
    let runs = batch("pipeline_runs", &[]);
    assert!(examples_from(&[runs], &[]).expect_err("no features").to_string().contains("no column"));
}
