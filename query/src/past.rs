//! As of a time: each kind of table, and subjects against the fold of the events up to then.

use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_ports::{Folding, SqlRequest};
use kiro_processors::{FoldConfig, Processors};
use kiro_schemas::subject::{SPECS, Shape};
use kiro_schemas::{Event, Fault as _, FaultKind, Kind, Micros, SubjectSpec, Tenant, TopicPartition, Value};
use kiro_tables::{EventRows, Stamp, Table};
use proptest::prelude::*;

use crate::fixture::{Fixed, Memory, engine, lines, no_files, request, rows};
use crate::revisions::visible;
use crate::{Door, Query, QueryConfig};

/// What is chosen of an event: its subject, transition, time, id, when it was recorded, what fills its fields.
type Chosen = (usize, usize, i64, u8, i64, u8);

fn event(spec: &'static SubjectSpec, (subject, step, time, id, _, fill): Chosen) -> Event<'static> {
    let transition = spec.transitions[step % spec.transitions.len()].transition;
    let mut event = Event::new(spec.subject, transition, "https://ci/a", format!("{subject}"), Micros(time * 1_000_000));
    event.id = format!("event-{id}").into();
    event.known_at = Some(Micros((time + i64::from(fill % 3)) * 1_000_000));
    for (at, column) in spec.columns.iter().enumerate() {
        let is_set = column.role == kiro_schemas::Role::Field && (usize::from(fill) + at) % 3 == 0;
        event.fields[at] = match (is_set, column.kind) {
            (true, Kind::Text) => Value::text(["success", "failure", "in_progress", "queued"][(usize::from(fill) + at) % 4]),
            (true, Kind::Int) => Value::Int(i64::from(fill)),
            (true, Kind::Float) => Value::Float(f64::from(fill) / 4.0),
            (true, Kind::Bool) => Value::Bool(fill % 2 == 0),
            (true, Kind::Time) => Value::Time(Micros(i64::from(fill) * 1_000_000)),
            _ => Value::Null,
        };
    }
    for name in ["team", "tier", "zone"].iter().take(usize::from(fill) % 4) {
        event.attributes.push(((*name).into(), format!("{fill}").into()));
    }
    event
}

fn batch(spec: &'static SubjectSpec, chosen: &[Chosen]) -> Option<RecordBatch> {
    let (mut rows, at) = (EventRows::default(), TopicPartition::new("events", 0));
    for (offset, one) in (0..).zip(chosen) {
        let stamp = Stamp { tenant: &Tenant::default(), recorded_at: Micros(one.4), at: &at, offset };
        rows.push(&event(spec, *one), stamp).expect("a row");
    }
    rows.finish().expect("batches").pop().map(|(_, batch)| batch)
}

/// Folds events in some parts, with corrections in between: what was derived, and what is open in the end.
fn folded(spec: &'static SubjectSpec, memory: &Memory, parts: &[&[Chosen]]) {
    let (mut folds, _) = Processors::new(FoldConfig::default()).expect("folds");
    let (events, mut all) = (Table::find(spec.events_table).expect("a table"), Vec::new());
    for (part, at) in parts.iter().zip(1..) {
        all.extend_from_slice(part);
        let Some(batch_of_part) = batch(spec, part) else { continue };
        folds.apply(events, &batch_of_part).expect("applied");
        if !folds.missing().is_empty() {
            folds.supply(events, &batch(spec, &all).expect("a batch")).expect("supplied");
        }
        for (table, derived) in folds.emit(Micros(1_000_000 * at)).expect("rows") {
            if table.name == spec.table {
                memory.tail(table.name, derived);
            }
        }
    }
    for (table, open) in folds.open().expect("rows") {
        memory.edit(table.name, |view| view.open.push(open));
    }
}

fn columns(spec: &SubjectSpec) -> String {
    let schema = visible(Table::find(spec.table).expect("a table"));
    let names = schema.fields().iter().filter(|f| f.name() != "recorded_at").map(|f| format!("\"{}\"", f.name()));
    names.collect::<Vec<_>>().join(", ")
}

async fn compared(spec: &'static SubjectSpec, chosen: &[Chosen], cut: usize, as_of: i64) -> (Vec<String>, Vec<String>) {
    let (whole, oracle) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
    if let Some(events) = batch(spec, chosen) {
        whole.tail(spec.events_table, events);
    }
    let (first, second) = chosen.split_at(cut.min(chosen.len()));
    folded(spec, &whole, &[first, second]);
    let before: Vec<Chosen> = chosen.iter().copied().filter(|one| one.4 <= as_of).collect();
    folded(spec, &oracle, &[&before]);
    let sql = format!("SELECT {} FROM {} ORDER BY {}", columns(spec), spec.table, spec.id_column());
    let asked = SqlRequest { as_of: Some(Micros(as_of)), ..request(&sql) };
    let config = QueryConfig { partitions: 2, ..QueryConfig::default() };
    let whole = Query::new(whole, no_files(), Arc::new(Fixed), config).expect("an engine");
    (lines(&whole, asked).await, lines(&engine(oracle), request(&sql)).await)
}

#[test]
fn subjects_stand_as_their_events_up_to_then_tell() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let chosen = (0..4_usize, 0..7_usize, 0..6_i64, 0..3_u8, 0..20_i64, 0..30_u8);
    let strategy = (prop::collection::vec(chosen, 0..14), 0..14_usize, 0..20_i64, 0..SPECS.len());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
    let result = runner.run(&strategy, |(chosen, cut, as_of, spec)| {
        let spec = SPECS.iter().skip(spec).chain(&SPECS[..spec]).find(|spec| spec.shape == Shape::Subject).expect("a subject");
        let (told, expected) = runtime.block_on(compared(spec, &chosen, cut, as_of));
        prop_assert_eq!(told, expected, "{}", spec.table);
        Ok(())
    });
    result.expect("as the fold tells");
}

fn run(id: &'static str, transition: &'static str, recorded_at: i64) -> RecordBatch {
    let values = [
        ("run_id", Value::text(id)),
        ("attempt", Value::Int(1)),
        ("transition", Value::text(transition)),
        ("event_id", Value::text(transition)),
        ("time", Value::Time(Micros(recorded_at))),
        ("recorded_at", Value::Time(Micros(recorded_at))),
    ];
    rows("pipeline_runs_events", &[&values])
}

fn at(as_of: i64, sql: &str) -> SqlRequest {
    SqlRequest { as_of: Some(Micros(as_of)), ..request(sql) }
}

/// It was open then, and is final now: its row of now would say too much, and none too little.
#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_was_open_then_is_shown_open() {
    let memory = Arc::new(Memory::default());
    memory.tail("pipeline_runs_events", run("1", "started", 10));
    memory.tail("pipeline_runs_events", run("1", "finished", 20));
    let done = [
        ("run_id", Value::text("1")),
        ("attempt", Value::Int(1)),
        ("finished_at", Value::Time(Micros(20))),
        ("recorded_at", Value::Time(Micros(25))),
    ];
    memory.tail("pipeline_runs", rows("pipeline_runs", &[&done]));
    let engine = engine(memory);
    let sql = "SELECT run_id, started_at IS NULL, finished_at IS NULL, recorded_at <= to_timestamp_micros(22) FROM pipeline_runs";
    assert_eq!(lines(&engine, at(9, sql)).await.len(), 0);
    assert_eq!(lines(&engine, at(10, sql)).await, ["1|false|true|true"]);
    assert_eq!(lines(&engine, at(19, sql)).await, ["1|false|true|true"]);
    assert_eq!(lines(&engine, at(20, sql)).await, ["1|true|false|true"], "derived later, known then");
    assert_eq!(lines(&engine, at(15, "SELECT count(*) FROM pipeline_runs WHERE finished_at IS NULL")).await, ["1"]);
    assert_eq!(lines(&engine, at(9, "SELECT count(*) FROM pipeline_runs_events")).await, ["0"]);
    assert_eq!(lines(&engine, at(10, "SELECT count(*) FROM pipeline_runs_events")).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn derived_rows_are_the_last_version_of_then() {
    let memory = Arc::new(Memory::default());
    for (rev, recorded_at) in [(0, 10), (2, 12), (1, 11)] {
        let day = [("runs", Value::Int(rev)), ("_rev", Value::Int(rev)), ("recorded_at", Value::Time(Micros(recorded_at)))];
        memory.tail("pipeline_health", rows("pipeline_health", &[&day]));
    }
    let engine = engine(memory);
    for (as_of, runs) in [(9, vec![]), (10, vec!["0"]), (11, vec!["1"]), (12, vec!["2"]), (99, vec!["2"])] {
        assert_eq!(lines(&engine, at(as_of, "SELECT runs FROM pipeline_health")).await, runs, "as of {as_of}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_folds_that_is_ahead_waits_for_the_others() {
    let memory = Arc::new(Memory::default());
    memory.tail("pipeline_health", rows("pipeline_health", &[&[("runs", Value::Int(1))]]));
    memory.edit("pipeline_health", |view| view.is_ahead = true);
    let engine = engine(Arc::clone(&memory));
    let asked = engine.ask(request("SELECT runs FROM pipeline_health"), Door::Api).await;
    let error = asked.map(drop).expect_err("an error");
    assert_eq!((error.kind(), error.code()), (FaultKind::Unavailable, "KIR-0415"), "{error}");
    assert_eq!(lines(&engine, request("SELECT count(*) FROM pipeline_runs_events")).await, ["0"], "events are cut at the vector");
    memory.edit("pipeline_health", |view| view.is_ahead = false);
    assert_eq!(lines(&engine, request("SELECT runs FROM pipeline_health")).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_can_be_asked_as_of_a_time() {
    let engine = engine(Arc::default());
    for table in Table::all() {
        assert_eq!(lines(&engine, at(5, &format!("SELECT * FROM {}", table.name))).await.len(), 0, "{}", table.name);
    }
}
