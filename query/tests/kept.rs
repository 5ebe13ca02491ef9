//! A lake that is kept answers as one that is not: now, and as of every moment that is kept.

#![expect(clippy::expect_used, clippy::panic, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use kiro_lake::{Compacted, Lake, LakeSnapshot, Retention, local_store};
use kiro_ports::{Clock, Commit, Snapshot, SqlRequest, SystemClock, TableSink, TableView, TailBatch, Transaction, View, Views};
use kiro_query::{Door, Query, QueryConfig};
use kiro_schemas::{Kind, Micros, Tenant, TopicPartition, Value};
use kiro_tables::{Rows, Table};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const RUNS: i64 = 12;
const COMMITS: i64 = 60;

#[derive(Debug)]
struct Fixed(Arc<View>);

impl Views for Fixed {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.0)
    }
}

fn table() -> &'static Table {
    Table::find("features").expect("a table")
}

fn run(rows: &mut Rows, id: i64, rev: i64, recorded_at: i64) {
    let values = table().columns.iter().map(|c| match c.name {
        "tenant" => Value::text("default"),
        "source" => Value::text("https://ci/acme/shop"),
        "pipeline" => Value::text("ci"),
        "run_id" => Value::text(id.to_string()),
        "attempt" => Value::Int(1),
        "known_runs" => Value::Int(1_000 * id + rev),
        "recorded_at" => Value::Time(Micros(recorded_at)),
        "_rev" => Value::Int(rev),
        _ if c.nullable => Value::Null,
        _ if c.kind == Kind::Time => Value::Time(Micros(recorded_at - HOUR)),
        _ => Value::Float(0.5),
    });
    rows.push(values.collect::<Vec<_>>().iter()).expect("a row");
}

/// A commit every twenty minutes, over versions of a few runs: some of a hundred days ago, some of ten, some of two.
async fn fill(lake: &Lake, now: i64) {
    let mut revs = vec![0; usize::try_from(RUNS).expect("few")];
    for commit in 0..COMMITS {
        let age = match commit * 3 / COMMITS {
            0 => 100 * DAY,
            1 => 10 * DAY,
            _ => 2 * DAY,
        };
        let mut rows = Rows::new(table());
        for id in (0..RUNS).filter(|id| (commit + id) % 4 == 0 || commit % (id + 2) == 0) {
            let rev = &mut revs[usize::try_from(id).expect("few")];
            run(&mut rows, id, *rev, now - age + commit * HOUR / 3);
            *rev += 1;
        }
        let transactions = vec![Transaction { app: "kiro/test/events/0".into(), start: commit, next: commit + 1 }];
        lake.commit(table(), Commit { rows: vec![rows.finish().expect("rows")], transactions }).await.expect("a commit");
    }
}

/// The newest version of the lake, and a tail with a newer version of one run.
async fn engine(lake: &Lake, now: i64) -> Arc<Query> {
    let snapshot: Arc<dyn Snapshot> = lake.lake_snapshot(table()).await.expect("a snapshot").expect("a table");
    let mut rows = Rows::new(table());
    run(&mut rows, 1, 1_000, now - HOUR);
    let rows = rows.finish().expect("rows");
    let tail = vec![Arc::new(TailBatch { at: TopicPartition::new("events", 0), start: COMMITS, next: COMMITS + 1, rows })];
    let mut view = View::default();
    view.tables.insert(table().name, TableView { snapshot: Some(snapshot), tail, ..TableView::default() });
    Query::new(Arc::new(Fixed(Arc::new(view))), Arc::new(LakeSnapshot::open), Arc::new(SystemClock), QueryConfig::default())
        .expect("an engine")
}

async fn ask(query: &Arc<Query>, as_of: Option<i64>) -> Vec<String> {
    let sql = "SELECT run_id, known_runs, recorded_at FROM features ORDER BY CAST(run_id AS BIGINT)";
    let request = SqlRequest { as_of: as_of.map(Micros), ..SqlRequest::new(Tenant::default(), sql) };
    let answer = query.ask(request, Door::Api).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let options = FormatOptions::default();
    let mut lines = Vec::new();
    for batch in &batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("a formatter")).collect();
        lines.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" ")));
    }
    lines
}

async fn count(lake: &Lake) -> u64 {
    lake.lake_snapshot(table()).await.expect("a snapshot").expect("a table").rows().await.expect("rows")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_those_of_a_lake_that_nobody_keeps() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = format!("file://{}/", dir.path().display()).parse().expect("a URL");
    let lake = Lake::open(local_store(dir.path()).expect("a store"), root, Arc::new(SystemClock)).await.expect("a lake");
    let now = SystemClock.now().0.div_euclid(DAY) * DAY;
    fill(&lake, now).await;
    let before = engine(&lake, now).await;
    let rows = count(&lake).await;
    while lake.compact(table(), Retention::new(Duration::ZERO)).await.expect("compaction") != Compacted::Idle {}
    let after = engine(&lake, now).await;
    let left = count(&lake).await;
    assert!(left * 4 < rows * 3, "{left} of {rows} versions are left");
    let files = lake.live_files(table()).await.expect("files");
    assert!(files <= 4, "{files} files");

    assert_eq!(ask(&before, None).await.len(), usize::try_from(RUNS).expect("few"));
    assert_eq!(ask(&before, None).await, ask(&after, None).await);
    let ends = |age: i64, span: i64| (0..=2 * DAY / span).map(move |number| now - age + number * span - 1);
    let week = (0..60).map(|minutes| now - 2 * DAY + minutes * HOUR / 2 + 7);
    for as_of in ends(100 * DAY, DAY).chain(ends(10 * DAY, HOUR)).chain(week) {
        let answers = (ask(&before, Some(as_of)).await, ask(&after, Some(as_of)).await);
        assert_eq!(answers.0, answers.1, "as of {as_of}");
    }
    assert_eq!(ask(&after, Some(now - 101 * DAY)).await, Vec::<String>::new(), "nothing was known before");
}
