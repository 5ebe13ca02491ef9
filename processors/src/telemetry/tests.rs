//! What is exported equals what the runs say, and stays bounded.

use arrow::array::RecordBatch;
use kiro_ports::Folding as _;
use kiro_schemas::names::MOST_NAMES;
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition, Value};
use kiro_tables::{EventRows, Stamp, Table};
use prometheus::{Registry, TextEncoder};

use crate::{FoldConfig, Processors};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const NOW: i64 = 20_000 * DAY;

/// A run of a pipeline that was queued for 10 s.
fn run(pipeline: &str, id: usize, finished: i64, seconds: i64, outcome: &'static str) -> Event<'static> {
    let mut event = Event::new(Subject::PipelineRun, Transition::Finished, "https://ci/a", format!("{pipeline}/{id}"), Micros(finished));
    event.known_at = Some(Micros(finished));
    event.set("pipeline", Value::text(pipeline.to_owned()));
    event.set("outcome", Value::text(outcome));
    event.set("started_at", Value::Time(Micros(finished - seconds * SECOND)));
    event.set("queued_at", Value::Time(Micros(finished - (seconds + 10) * SECOND)));
    event
}

fn batch(events: &[Event<'_>]) -> RecordBatch {
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    let mut rows = EventRows::default();
    for event in events {
        rows.push(event, Stamp { tenant: &tenant, recorded_at: Micros(0), at: &at, offset: 0 }).expect("a row");
    }
    rows.finish().expect("a batch").remove(0).1
}

fn exported(events: &[Event<'_>]) -> String {
    let (mut folds, _features) = Processors::new(FoldConfig::default()).expect("folds");
    let registry = Registry::new();
    folds.register(&registry).expect("registered");
    assert!(folds.register(&registry).is_err(), "twice is an error");
    folds.apply(Table::find("pipeline_runs_events").expect("the table"), &batch(events)).expect("folded");
    folds.emit(Micros(NOW)).expect("rows");
    TextEncoder::new().encode_to_string(&registry.gather()).expect("text")
}

#[test]
fn the_newest_days_are_put_together() {
    let text = exported(&[
        run("ci", 1, NOW - 8 * DAY, 500, "failure"),
        run("ci", 2, NOW - 3 * DAY, 100, "failure"),
        run("ci", 3, NOW - 2 * DAY, 200, "success"),
        run("ci", 4, NOW - DAY, 300, "success"),
        run("ci", 5, NOW - DAY, 400, "cancel"),
        run("ci", 6, NOW + 2 * DAY, 400, "failure"),
    ]);
    let name = "pipeline=\"ci\",source=\"https://ci/a\",tenant=\"default\"";
    for line in [
        format!("kiro_pipeline_runs{{outcome=\"success\",{name}}} 2"),
        format!("kiro_pipeline_runs{{outcome=\"failure\",{name}}} 1"),
        format!("kiro_pipeline_runs{{outcome=\"other\",{name}}} 1"),
        format!("kiro_pipeline_failure_ratio{{{name}}} 0.3333333333333333"),
        format!("kiro_pipeline_duration_seconds{{percentile=\"50\",{name}}} 200"),
        format!("kiro_pipeline_queue_seconds{{percentile=\"95\",{name}}} 10"),
        format!("kiro_pipeline_window_end_timestamp_seconds {}", NOW / SECOND),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn names_are_bounded() {
    let events: Vec<Event<'_>> = (0..4 * MOST_NAMES)
        .flat_map(|at| (0..=usize::from(at == 120)).map(move |again| run(&format!("p{at:03}"), again, NOW - DAY, 60, "success")))
        .collect();
    let text = exported(&events);
    let ratios: Vec<&str> = text.lines().filter(|l| l.starts_with("kiro_pipeline_failure_ratio{")).collect();
    assert_eq!(ratios.len(), MOST_NAMES + 1);
    assert!(text.contains("pipeline=\"p120\"") && !text.contains("pipeline=\"p119\""), "the busiest are shown");
    let rest = 3 * MOST_NAMES;
    let other = format!("kiro_pipeline_runs{{outcome=\"success\",pipeline=\"other\",source=\"other\",tenant=\"*\"}} {rest}");
    assert!(text.contains(&other), "{other} is not in\n{text}");
}

#[test]
fn nothing_is_exported_of_nothing() {
    let (folds, _features) = Processors::new(FoldConfig::default()).expect("folds");
    let registry = Registry::new();
    folds.register(&registry).expect("registered");
    assert!(registry.gather().iter().all(|family| family.get_metric().is_empty()));
}
