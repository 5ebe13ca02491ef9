//! Statements that compute for long without giving a row: each ends in its time and leaves its place, and others are answered.

use std::sync::Arc;
use std::time::Duration;

use kiro_ports::{PortError, SqlRequest};
use kiro_schemas::FaultKind;
use tokio::time::Instant;

use crate::fixture::{Fixed, Memory, answer, lines, no_files, request};
use crate::{Query, QueryConfig};

/// Time that a statement may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Time that its end may take beyond.
const GRACE: Duration = Duration::from_secs(1);

const JOINS: &[&str] = &[
    "SELECT count(*) FROM g a, g b WHERE a.value * b.value = -1",
    "SELECT sum(a.value * b.value) FROM g a, g b",
    "SELECT count(*) FROM g a, g b, g c WHERE a.value + b.value + c.value = -1",
    "SELECT sum(a.value + b.value + c.value) FROM g a CROSS JOIN g b CROSS JOIN g c",
    "SELECT count(*) FROM g a LEFT JOIN g b ON a.value < b.value AND a.value > b.value + 1",
    "SELECT count(*) FROM g a FULL JOIN g b ON a.value < b.value AND a.value > b.value + 1",
    "SELECT count(*) FROM g a WHERE EXISTS (SELECT 1 FROM g b WHERE b.value > a.value + 2000000)",
    "SELECT count(*) FROM g a WHERE NOT EXISTS (SELECT 1 FROM g b WHERE b.value > a.value + 2000000)",
    "SELECT count(*) FROM g a JOIN g b ON a.value % 2 = b.value % 2 WHERE a.value + b.value = -1",
    "SELECT count(*) FROM g a JOIN g b ON a.value % 2 = b.value % 2",
    "SELECT count(*) FROM g a WHERE NOT EXISTS (SELECT 1 FROM g b WHERE b.value % 1 = a.value % 1 AND b.value + a.value = -1)",
    "SELECT max(a.value) FROM g a LEFT JOIN g b ON a.value % 3 = b.value % 3 AND a.value + b.value < 0",
];

const OTHERS: &[&str] = &[
    "SELECT a.value * b.value AS p FROM g a, g b ORDER BY p DESC LIMIT 10",
    "SELECT a.value % 7, count(DISTINCT a.value * b.value) FROM g a, g b GROUP BY 1",
    "SELECT DISTINCT a.value * 1000003 + b.value FROM g a, g b",
    "SELECT sum(x) FROM (SELECT unnest([a.value, b.value, 1, 2, 3, 4, 5, 6, 7, 8]) AS x FROM g a, g b)",
    "SELECT max(s) FROM (SELECT sum(b.value) OVER (ORDER BY a.value) AS s FROM g a, g b)",
    "SELECT array_agg(a.value * b.value) FROM g a, g b",
    "SELECT string_agg(a.value::text, ',') FROM g a, g b",
    "SELECT median(a.value * b.value) FROM g a, g b",
    "SELECT count(*) FROM (SELECT a.value FROM g a, g b EXCEPT SELECT 1)",
    "SELECT count(*) FROM (SELECT a.value FROM g a, g b INTERSECT SELECT c.value + 2000000 FROM g c)",
    "SELECT count(*) FROM g a, g b WHERE regexp_like(a.value::text || b.value::text, '(1|2|3)+(4|5)*x$')",
    "SELECT count(array_length(a.w)) FROM (SELECT array_agg(value) AS w FROM g) a, g b",
    "SELECT sum(length(a.w)) FROM (SELECT string_agg(repeat('x', 100), '') AS w FROM g) a, g b",
    "SELECT sum(length(a.w || b.value::text)) FROM (SELECT string_agg('x', '') AS w FROM g) a JOIN g b ON length(a.w) <> b.value",
    "SELECT sum(abs(sin(a.value * b.value))) FROM g a, g b",
];

fn engine() -> Arc<Query> {
    let config = QueryConfig { memory: 64 << 20, partitions: 2, concurrent: 2 };
    Query::new(Arc::new(Memory::default()), no_files(), Arc::new(Fixed), config).expect("an engine")
}

/// Runs a statement beside small questions; its error.
async fn run(engine: &Arc<Query>, sql: &str) -> PortError {
    let text = format!("WITH g AS (SELECT value FROM generate_series(1, 1000000)) {sql}");
    let long = SqlRequest { timeout: LIMIT, ..request(&text) };
    let start = Instant::now();
    let beside = async {
        for _ in 0..3 {
            let asked = Instant::now();
            assert_eq!(lines(engine, request("SELECT 1")).await, ["1"]);
            assert!(asked.elapsed() < Duration::from_secs(1), "another waits {:?} beside {sql}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (ended, ()) = tokio::join!(answer(engine, long), beside);
    let took = start.elapsed();
    assert!(took < LIMIT + GRACE, "{sql} took {took:?}");
    while engine.free_places() < 2 {
        assert!(start.elapsed() < LIMIT + GRACE, "{sql} keeps its thread");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ended.err().unwrap_or_else(|| panic!("{sql} was answered in {took:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_in_its_time_or_memory() {
    let engine = engine();
    for sql in JOINS.iter().chain(OTHERS) {
        let error = run(&engine, sql).await;
        assert!(matches!(error.kind, FaultKind::TimedOut | FaultKind::TooLarge), "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_given_up_leaves_its_place() {
    let engine = engine();
    let sql = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value * b.value = -1";
    for _ in 0..4 {
        let asked = tokio::time::timeout(Duration::from_millis(200), answer(&engine, request(sql))).await;
        assert!(asked.is_err(), "it cannot be answered so fast");
    }
    let start = Instant::now();
    while engine.free_places() < 2 {
        assert!(start.elapsed() < GRACE, "a place is kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
