//! The chain as a whole: the same rows whatever the order, the batches and the repeats.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use kiro_ports::Folding;
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition, Value};
use kiro_tables::{EventRows, Stamp, Table};
use proptest::prelude::*;

use super::{FoldConfig, Processors};
use crate::columns::Column;

const SECOND: i64 = 1_000_000;
const RECORDED: i64 = 7 * SECOND;

fn run_events(id: usize, start: i64, seconds: i64, outcome: &'static str) -> Vec<Event<'static>> {
    let make = |transition, time: i64| {
        let mut event = Event::new(Subject::PipelineRun, transition, "https://ci/a", id.to_string(), Micros(time));
        event.known_at = Some(Micros(time));
        event.set("pipeline", Value::text("build"));
        event
    };
    let mut finished = make(Transition::Finished, start + seconds * SECOND);
    finished.set("outcome", Value::text(outcome));
    finished.attributes.push(("lines".into(), id.to_string().into()));
    vec![make(Transition::Queued, start - SECOND), make(Transition::Started, start), finished]
}

fn batch(events: &[Event<'_>]) -> RecordBatch {
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    let mut rows = EventRows::default();
    for event in events {
        rows.push(event, Stamp { tenant: &tenant, recorded_at: Micros(RECORDED), at: &at, offset: 0 }).expect("a row");
    }
    rows.finish().expect("a batch").remove(0).1
}

fn events_table() -> &'static Table {
    Table::find("pipeline_runs_events").expect("the table")
}

fn processors(recent: usize) -> Processors {
    Processors::new(FoldConfig { declared: vec!["lines".into()], recent_subjects: recent, ..FoldConfig::default() }).expect("folds").0
}

type Current = BTreeMap<(&'static str, String), (i64, String)>;

/// Takes rows in: the newest revision of each key, as text.
fn take(current: &mut Current, derived: &[(&'static Table, RecordBatch)]) -> usize {
    let mut count = 0;
    for (table, batch) in derived {
        let columns: Vec<_> = table.columns.iter().map(|c| Column::read(table, batch, c.name).expect("a column")).collect();
        for row in 0..batch.num_rows() {
            count += 1;
            let at = |name: &str| format!("{:?}", columns[table.position(name).expect("a column")].value(row));
            let key = table.key.iter().map(|name| at(name)).collect::<Vec<_>>().join("|");
            let values: Vec<_> = columns[..columns.len() - 2].iter().map(|c| c.value(row)).collect();
            let values = format!("{values:?}");
            let rev = columns.last().and_then(|c| c.int(row)).expect("a revision");
            let old = current.insert((table.name, key), (rev, values));
            assert!(old.is_none_or(|(old, _)| old < rev), "revisions rise");
        }
    }
    count
}

fn values(current: &Current) -> Vec<(&(&'static str, String), &String)> {
    current.iter().map(|(k, (_, v))| (k, v)).collect()
}

fn answer(folds: &mut Processors, all: &[Event<'_>]) {
    for missing in folds.missing() {
        let is_wanted =
            |e: &&Event<'_>| missing.ids.iter().any(|id| *id == *e.subject_id) && missing.sources.iter().any(|s| *s == *e.source);
        let wanted: Vec<_> = all.iter().filter(is_wanted).cloned().collect();
        folds.supply(events_table(), &batch(&wanted)).expect("supplied");
    }
}

fn runs() -> impl Strategy<Value = Vec<Event<'static>>> {
    let run = (0_i64..200, 1_i64..60, prop_oneof![Just("success"), Just("failure"), Just("cancel")]);
    prop::collection::vec(run, 1..15).prop_map(|runs| {
        runs.into_iter()
            .enumerate()
            .flat_map(|(id, (start, length, outcome))| run_events(id, (1_000_000 + start) * SECOND, length, outcome))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_repetition_and_batches_change_nothing(
        (events, shuffled) in runs().prop_flat_map(|e| {
            let twice: Vec<_> = e.iter().chain(&e).cloned().collect();
            (Just(e), Just(twice).prop_shuffle())
        }),
        size in 1_usize..9,
        recent in 0_usize..4,
    ) {
        let (mut expected, mut found) = (Current::new(), Current::new());
        let mut whole = processors(1000);
        whole.apply(events_table(), &batch(&events)).expect("applied");
        take(&mut expected, &whole.emit(Micros(1)).expect("rows"));
        let mut parts = processors(recent);
        for part in shuffled.chunks(size) {
            parts.apply(events_table(), &batch(part)).expect("applied");
            answer(&mut parts, &events);
            take(&mut found, &parts.emit(Micros(2)).expect("rows"));
        }
        let (expected, found) = (values(&expected), values(&found));
        // A day or row that was corrected away stays as an empty day; there is none here, as keys do not move.
        prop_assert_eq!(expected, found);
    }
}

/// The rows of two folds after runs whose ends lie `seconds` after their starts; what others could learn of them, and when,
/// does not depend on it.
fn features_and_health(seconds: &[i64]) -> [Vec<String>; 2] {
    let events: Vec<_> = seconds
        .iter()
        .enumerate()
        .flat_map(|(id, seconds)| {
            let start = (1_000_000 + i64::try_from(id).expect("small") * 40) * SECOND;
            let mut events = run_events(id, start, *seconds, if id % 3 == 0 { "failure" } else { "success" });
            let finished = events.last_mut().expect("a finished one");
            finished.known_at = Some(Micros(start + 300 * SECOND));
            finished.set("status", Value::text(format!("after {seconds} s")));
            finished.set("url", Value::text(format!("https://ci/logs/{seconds}")));
            events
        })
        .collect();
    let mut folds = processors(1000);
    folds.apply(events_table(), &batch(&events)).expect("applied");
    let mut current = Current::new();
    take(&mut current, &folds.emit(Micros(1)).expect("rows"));
    ["features", "pipeline_health"]
        .map(|name| current.iter().filter(|((table, _), _)| *table == name).map(|(_, (_, v))| v.clone()).collect())
}

#[test]
fn features_do_not_know_what_came_after_the_outcome() {
    let seconds: Vec<i64> = (0..60).map(|at| 1 + at * at % 97).collect();
    let shuffled: Vec<i64> = (0..60).map(|at| seconds[at * 37 % 60] * 2).collect();
    let ([features, health], [again, other]) = (features_and_health(&seconds), features_and_health(&shuffled));
    assert_eq!(features.len(), 60);
    assert_eq!(features, again, "a feature knows how long runs took, how they were called or where they are looked at");
    assert_ne!(health, other, "the shuffle changed nothing at all");
}

#[test]
fn durations_and_queues_are_milliseconds() {
    let mut folds = processors(10);
    // Queued a second before it starts, and a minute long.
    folds.apply(events_table(), &batch(&run_events(1, 1000 * SECOND, 60, "success"))).expect("applied");
    let mut current = Current::new();
    take(&mut current, &folds.emit(Micros(1)).expect("rows"));
    let row = |name: &str| &current.iter().find(|((table, _), _)| *table == name).expect("a row").1.1;
    let health = row("pipeline_health");
    assert!(health.matches("Float(60000.0)").count() == 2 && health.contains("Float(1000.0)"), "{health}");
    assert!(row("pipeline_runs").contains("Int(60000)"), "{}", row("pipeline_runs"));
}

#[test]
fn restored_folds_have_nothing_to_say_to_the_same_events() {
    let events: Vec<_> = (0..20)
        .flat_map(|i| run_events(i, i64::try_from(i).unwrap() * 100 * SECOND + SECOND, 150, if i % 3 == 0 { "failure" } else { "success" }))
        .collect();
    let mut first = processors(1000);
    first.apply(events_table(), &batch(&events)).expect("applied");
    let rows = first.emit(Micros(1)).expect("rows");
    assert_eq!(rows.len(), 3);
    let mut second = processors(1000);
    for (table, batch) in &rows {
        second.restore(table, batch).expect("restored");
    }
    assert!(second.emit(Micros(2)).expect("rows").is_empty());
    second.apply(events_table(), &batch(&events)).expect("applied");
    assert!(second.missing().is_empty());
    assert!(second.emit(Micros(3)).expect("rows").is_empty());
}

#[test]
fn a_correction_of_a_forgotten_subject_asks_for_its_events() {
    let mut events = run_events(7, 1000 * SECOND, 60, "success");
    let mut folds = processors(0);
    let mut current = Current::new();
    let mut others = run_events(7, 2000 * SECOND, 60, "success");
    for event in &mut others {
        event.source = "https://ci/b".into();
        event.derive_id();
    }
    folds.apply(events_table(), &batch(&others)).expect("applied");
    folds.apply(events_table(), &batch(&events)).expect("applied");
    take(&mut current, &folds.emit(Micros(1)).expect("rows"));
    let mut late = run_events(7, 1000 * SECOND, 90, "failure").remove(2);
    late.derive_id();
    folds.apply(events_table(), &batch(std::slice::from_ref(&late))).expect("applied");
    events.push(late);
    let missing = folds.missing();
    assert_eq!(missing.len(), 1);
    let among = [("tenant", "default"), ("source", "https://ci/a"), ("run_id", "7")].map(|(name, value)| (name, [value.to_owned()]));
    assert_eq!(
        missing[0].among(),
        among.each_ref().map(|(name, values)| (*name, &values[..])),
        "the run of the other source is not asked for"
    );
    answer(&mut folds, &events);
    assert!(folds.missing().is_empty());
    take(&mut current, &folds.emit(Micros(2)).expect("rows"));
    let is_it = |(table, key): &(&str, String)| *table == "pipeline_runs" && key.contains("https://ci/a");
    let row = current.iter().find(|(key, _)| is_it(key)).expect("the run").1;
    assert_eq!(row.0, 1);
    assert!(row.1.contains("failure") && row.1.contains("Int(90000)"), "{}", row.1);
}

#[test]
fn open_subjects_come_out_of_memory_only() {
    let mut folds = processors(10);
    folds.apply(events_table(), &batch(&run_events(1, 1000 * SECOND, 60, "success")[..2])).expect("applied");
    let open = folds.open().expect("rows");
    assert_eq!((open.len(), open[0].0.name, open[0].1.num_rows()), (1, "pipeline_runs", 1));
    let table = open[0].0;
    let recorded = Column::read(table, &open[0].1, "recorded_at").expect("a column");
    assert_eq!(recorded.value(0), Value::Time(Micros(RECORDED)), "when its newest event was recorded, not when it was asked for");
    assert_eq!(folds.open().expect("rows")[0].1, open[0].1);
    assert!(folds.emit(Micros(1)).expect("rows").iter().all(|(table, _)| table.name == "features"));
}
