//! How fast questions are over a million subjects in a lake on a disk, with corrections and a tail.
//!
//! Machines differ and are noisy, so what is asserted is a ratio to a scan of everything in the same run; the times are printed
//! (`--nocapture`) beside the bars that hold for an optimised build on two cores.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test, which tells what it measures")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use kiro_lake::{Lake, LakeSnapshot, local_store};
use kiro_ports::{Clock, Commit, Snapshot, SqlRequest, SystemClock, TableSink, TableView, TailBatch, Transaction, View, Views};
use kiro_query::{Door, Query, QueryConfig};
use kiro_schemas::{Micros, Tenant, TopicPartition, Value};
use kiro_tables::{Rows, Table};
use tokio::time::Instant;

const SUBJECTS: i64 = 1_000_000;
/// Files of the size that compaction leaves.
const FILES: i64 = 50;
/// One subject in so many was corrected later.
const CORRECTED: i64 = 100;
/// Rows that no file has yet.
const TAIL: i64 = 10_000;
const PIPELINES: i64 = 40;
/// Thirty seconds from one run to the next: about a year.
const STEP: i64 = 30_000_000;
const WEEK: i64 = 7 * 86_400_000_000;
const ROUNDS: usize = 7;
/// How often a question that was too slow is measured again, beside the measure.
const RETRIES: usize = 3;

#[derive(Debug)]
struct Fixed(Arc<View>);

impl Views for Fixed {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.0)
    }
}

fn table() -> &'static Table {
    Table::find("pipeline_runs").expect("a table")
}

/// An unpredictable id, as many sources give them: no minimum or maximum of a file tells where it is.
fn commit_of(at: i64) -> String {
    let mut z = u64::try_from(at).expect("a number").wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    format!("{:016x}", z ^ (z >> 27))
}

fn push(rows: &mut Rows, at: i64, rev: i64) {
    let pipeline = (at * 7 + at / 11) % PIPELINES;
    let (start, length) = (at * STEP, (at % 600 + 1) * 1_000_000);
    let values = table().columns.iter().map(|c| match c.name {
        "tenant" => Value::text("default"),
        "source" => Value::text(format!("https://ci/acme/{}", pipeline % 10)),
        "pipeline" => Value::text(format!("pipeline-{pipeline}")),
        "run_id" => Value::text(format!("{}", 4_000_000 + at)),
        "attempt" => Value::Int(1),
        "outcome" => Value::text(if (at / 3) % 5 == rev { "failure" } else { "success" }),
        "status" => Value::text("completed"),
        "branch" => Value::text(if at % 3 == 0 { "main".to_owned() } else { format!("feature-{}", at % 500) }),
        "commit_sha" => Value::text(commit_of(at)),
        "actor" => Value::text(format!("person-{}", at % 90)),
        "queued_at" | "started_at" => Value::Time(Micros(start)),
        "finished_at" | "time" | "known_at" => Value::Time(Micros(start + length)),
        "duration_ms" => Value::Int(length / 1_000),
        "recorded_at" => Value::Time(Micros(start + length + rev * WEEK)),
        "_rev" => Value::Int(rev),
        _ => Value::Null,
    });
    rows.push(values.collect::<Vec<_>>().iter()).expect("a row");
}

/// The rows of a range of subjects, and corrections of some that an earlier commit holds.
fn batch(from: i64, to: i64) -> RecordBatch {
    let mut rows = Rows::new(table());
    for at in from..to {
        push(&mut rows, at, 0);
        if at % CORRECTED == 0 && at >= TAIL {
            push(&mut rows, at - TAIL + 1, 1);
        }
    }
    rows.finish().expect("a batch")
}

async fn filled(dir: &std::path::Path) -> Arc<Query> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let root = format!("file://{}/", dir.display()).parse().expect("a URL");
    let lake = Lake::open(local_store(dir).expect("a store"), root, Arc::clone(&clock)).await.expect("a lake");
    let (each, app) = ((SUBJECTS - TAIL) / FILES, "kiro/main/events/0");
    for file in 0..FILES {
        let transactions = vec![Transaction { app: app.into(), start: file, next: file + 1 }];
        let rows = vec![batch(file * each, (file + 1) * each)];
        lake.commit(table(), Commit { rows, transactions }).await.expect("a commit");
    }
    let snapshot: Arc<dyn Snapshot> = lake.lake_snapshot(table()).await.expect("a snapshot").expect("a table");
    let rows = batch(FILES * each, SUBJECTS);
    let tail = vec![Arc::new(TailBatch { at: TopicPartition::new("events", 0), start: FILES, next: FILES + 1, rows })];
    let mut view = View::default();
    view.tables.insert(table().name, TableView { snapshot: Some(snapshot), tail, ..TableView::default() });
    Query::new(Arc::new(Fixed(Arc::new(view))), Arc::new(LakeSnapshot::open), clock, QueryConfig::default()).expect("an engine")
}

async fn ask(query: &Arc<Query>, sql: &str) -> Vec<RecordBatch> {
    let answer = query.ask(SqlRequest::new(Tenant::default(), sql), Door::Api).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    answer.rows.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The best time of a question, and how many rows it gave: noise makes slower, never faster.
async fn timed(query: &Arc<Query>, what: &str, bar: &str, sql: &str) -> (Duration, usize) {
    let rows = ask(query, sql).await.iter().map(RecordBatch::num_rows).sum();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        ask(query, sql).await;
        times.push(start.elapsed());
    }
    times.sort();
    let median = times[ROUNDS / 2];
    println!("{what}: {:.1} ms (from {:.1} to {:.1}), {rows} rows; {bar}", ms(median), ms(times[0]), ms(times[ROUNDS - 1]));
    (times[0], rows)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_often_is_fast() {
    let dir = tempfile::tempdir().expect("a directory");
    let query = filled(dir.path()).await;
    let all = "SELECT pipeline, outcome, count(DISTINCT run_id), avg(duration_ms), max(commit_sha) FROM pipeline_runs GROUP BY 1, 2";
    let (mut full, _) = timed(&query, "everything", "the measure", all).await;
    let count = ask(&query, "SELECT count(*), count(DISTINCT run_id) FROM pipeline_runs").await;
    let counts: Vec<i64> =
        count[0].columns().iter().map(|c| arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(c).value(0)).collect();
    assert_eq!(counts, [SUBJECTS, SUBJECTS], "each subject once");

    let (from, to) = ((SUBJECTS / 2) * STEP, (SUBJECTS / 2) * STEP + WEEK);
    let week = format!(
        "SELECT outcome, count(*), avg(duration_ms) FROM pipeline_runs WHERE pipeline = 'pipeline-7' \
         AND started_at >= to_timestamp_micros({from}) AND started_at < to_timestamp_micros({to}) GROUP BY 1"
    );
    let questions = [
        ("newest 10", "at most 100 ms", 10, 1.5, "SELECT * FROM pipeline_runs ORDER BY time DESC LIMIT 10".to_owned()),
        (
            "newest 10 of those that started",
            "no bar",
            10,
            1.2,
            "SELECT * FROM pipeline_runs ORDER BY started_at DESC NULLS LAST LIMIT 10".to_owned(),
        ),
        ("newest 10 to start", "no bar", 10, 1.2, "SELECT * FROM pipeline_runs ORDER BY started_at DESC LIMIT 10".to_owned()),
        ("one pipeline, one week", "at most 50 ms", 2, 4.0, week),
        ("one subject", "at most 30 ms", 1, 4.0, "SELECT * FROM pipeline_runs WHERE run_id = '4444444'".to_owned()),
        ("one corrected subject", "at most 30 ms", 1, 4.0, "SELECT * FROM pipeline_runs WHERE run_id = '4443401'".to_owned()),
        ("one commit", "no bar", 1, 2.0, format!("SELECT * FROM pipeline_runs WHERE commit_sha = '{}'", commit_of(777_777))),
    ];
    for (what, bar, rows, faster, sql) in questions {
        let (mut time, found) = timed(&query, what, bar, &sql).await;
        assert_eq!(found, rows, "{what}");
        for _ in 0..RETRIES {
            if time.mul_f64(faster) <= full {
                break;
            }
            full = full.max(timed(&query, "everything", "again", all).await.0);
            time = time.min(timed(&query, what, "again", &sql).await.0);
        }
        assert!(time.mul_f64(faster) <= full, "{what} takes {:.1} ms, everything {:.1} ms", ms(time), ms(full));
    }
}
