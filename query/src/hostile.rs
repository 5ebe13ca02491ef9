//! Statements that must not pass, and some that must.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kiro_ports::SqlRequest;
use kiro_schemas::FaultKind;

use crate::fixture::{Memory, answer, engine, request, run};
use crate::{Door, Query};

pub(crate) const REFUSED: &[&str] = &[
    "COPY (SELECT 1) TO '/tmp/kiro-hostile.csv'",
    "COPY pipeline_runs TO '/tmp/kiro-hostile.parquet' STORED AS PARQUET",
    "COPY pipeline_runs FROM '/etc/passwd'",
    "COPY pipeline_runs TO PROGRAM 'sh'",
    "CREATE TABLE t (a int)",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE OR REPLACE TABLE pipeline_runs AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://b/k'",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f() RETURNS int LANGUAGE SQL RETURN 1",
    "CREATE INDEX i ON pipeline_runs (run_id)",
    "CREATE ROLE r SUPERUSER",
    "DROP TABLE pipeline_runs",
    "DROP VIEW pipeline_runs",
    "DROP SCHEMA public CASCADE",
    "DROP FUNCTION sum",
    "ALTER TABLE pipeline_runs ADD COLUMN a int",
    "TRUNCATE pipeline_runs",
    "INSERT INTO pipeline_runs SELECT * FROM pipeline_runs",
    "INSERT INTO pipeline_runs (tenant) VALUES ('other')",
    "UPDATE pipeline_runs SET tenant = 'other'",
    "DELETE FROM pipeline_runs",
    "MERGE INTO pipeline_runs USING pipeline_runs p ON true WHEN MATCHED THEN DELETE",
    "WITH a AS (DELETE FROM pipeline_runs RETURNING *) SELECT * FROM a",
    "WITH a AS (INSERT INTO pipeline_runs SELECT 1 RETURNING 1) SELECT * FROM a",
    "SELECT * INTO t FROM pipeline_runs",
    "SELECT * FROM pipeline_runs FOR UPDATE",
    "EXPLAIN INSERT INTO pipeline_runs SELECT * FROM pipeline_runs",
    "EXPLAIN ANALYZE INSERT INTO pipeline_runs SELECT * FROM pipeline_runs",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/kiro-hostile.csv'",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "SET datafusion.execution.batch_size = 1",
    "SET search_path = pg_catalog",
    "RESET datafusion.execution.batch_size",
    "SHOW FUNCTIONS",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "BEGIN",
    "COMMIT",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE pipeline_runs",
    "",
    ";",
    "-- nothing",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '/etc/passwd.csv'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM 'https://example.org/a.parquet'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('/tmp/a')",
    "SELECT * FROM parquet_metadata('/tmp/a')",
    "SELECT * FROM url_table('/etc/passwd')",
    "SELECT * FROM generate_series(9876543210)",
    "SELECT * FROM generate_series(1, 1000002)",
    "SELECT * FROM generate_series(-9223372036854775808, 9223372036854775807)",
    "SELECT * FROM generate_series(1, 10, 0)",
    "SELECT * FROM range(0, 2000000)",
    "SELECT * FROM generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2100-01-01', INTERVAL '1 second')",
    "SELECT * FROM generate_series(1, (SELECT 10))",
    "SELECT range(0, 1000000000)",
    "SELECT generate_series(0, 1000000000)",
    "SELECT unnest(generate_series(0, 1000000000))",
    "SELECT array_repeat(1, 1000000000)",
    "SELECT array_resize([1], 1000000000)",
    "SELECT 1 WHERE 1 IN (SELECT array_length(array_repeat(1, 100000000)))",
    "WITH RECURSIVE a AS (SELECT 1 x UNION ALL SELECT x + 1 FROM a) SELECT * FROM a",
    "SELECT pg_sleep(100)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT @@version",
    "SELECT _rev FROM pipeline_runs",
    "SELECT * FROM other.public.pipeline_runs",
    "SELECT * FROM _lake.pipeline_runs",
    "SELECT levenshtein(repeat('x', 10000), repeat('y', 10000)) FROM pipeline_runs",
    "SELECT array_agg(run_id) OVER (ORDER BY run_id) FROM pipeline_runs",
    "SELECT string_agg(run_id, ',') OVER (ORDER BY run_id) FROM pipeline_runs",
    "SELECT median(attempt) OVER (ORDER BY run_id) FROM pipeline_runs",
    "CALL f()",
    "VACUUM",
    "ANALYZE pipeline_runs",
    "GRANT ALL ON pipeline_runs TO public",
    "LISTEN a",
    "LOCK TABLE pipeline_runs",
    "DECLARE c CURSOR FOR SELECT 1",
    "ATTACH DATABASE 'a' AS b",
    "LOAD 'x'",
    "KILL 1",
    "COPY pipeline_runs TO '/tmp/kiro-hostile.csv' WITH (FORMAT csv)",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/kiro-hostile.csv'",
    "COPY pipeline_runs FROM STDIN",
    "COPY pipeline_runs FROM PROGRAM 'cat /etc/passwd'",
    "COPY (DELETE FROM pipeline_runs RETURNING *) TO STDOUT",
    "COPY (SELECT * FROM generate_series(1, 1000002)) TO STDOUT",
    "COPY (SELECT pg_read_file('/etc/passwd')) TO STDOUT",
    "COPY other.public.pipeline_runs TO STDOUT",
    "UNLOAD (SELECT 1) TO 's3://b/k'",
    "EXPLAIN COPY (SELECT 1) TO STDOUT",
    "PREPARE p AS COPY (SELECT 1) TO STDOUT",
    "CREATE EXTENSION dblink",
    "CREATE TRIGGER t AFTER INSERT ON pipeline_runs EXECUTE FUNCTION f()",
    "CREATE SERVER s FOREIGN DATA WRAPPER w",
    "CREATE USER u PASSWORD 'p'",
    "CREATE POLICY p ON pipeline_runs",
    "CREATE SEQUENCE s",
    "CREATE TYPE t AS ENUM ('a')",
    "ALTER ROLE r SUPERUSER",
    "ALTER SYSTEM SET shared_preload_libraries = 'x'",
    "DROP ROLE r",
    "REVOKE ALL ON pipeline_runs FROM public",
    "COMMENT ON TABLE pipeline_runs IS 'x'",
    "REINDEX TABLE pipeline_runs",
    "REFRESH MATERIALIZED VIEW v",
    "NOTIFY a, 'b'",
    "FETCH ALL FROM c",
    "MOVE c",
    "DO $$ BEGIN NULL; END $$",
    "SELECT * FROM pg_read_binary_file('/etc/passwd')",
    "SELECT pg_terminate_backend(1)",
    "SELECT set_config('search_path', 'x', false)",
    "SELECT * FROM dblink('host=127.0.0.1', 'SELECT 1') AS t(a int)",
    "WITH a AS (UPDATE pipeline_runs SET tenant = 'x' RETURNING *) SELECT * FROM a",
    "WITH RECURSIVE a(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM a) SELECT count(*) FROM a",
    "SELECT array_transform([1], x -> x + 1)",
    "SELECT * FROM pipeline_runs, LATERAL generate_series(1, attempt * 1000000000)",
];

/// Texts and lists that grow with each step, constants that would stand in each row, patterns, and what multiplies.
pub(crate) const BOMBS: &[&str] = &[
    "SELECT regexp_like('a', '((a{1,1000}){1,1000}){1,1000}')",
    "SELECT repeat('x', 1000000000)",
    "SELECT repeat('x', value * 1000000) FROM generate_series(1, 1000)",
    "SELECT lpad('x', 1000000000)",
    "SELECT sum(length(rpad(value::text, 2000000000))) FROM generate_series(1, 10)",
    "SELECT length(replace(repeat('x', 10000), 'x', repeat('y', 10000)))",
    "SELECT sum(length(replace(rpad(value::text, 10000, 'x'), 'x', rpad(value::text, 10000, 'y')))) FROM generate_series(1, 10000)",
    "SELECT sum(length(replace(rpad(value::text, 100000, 'x'), '', rpad(value::text, 100000, 'y')))) FROM generate_series(1, 10)",
    "SELECT sum(length(regexp_replace(rpad(value::text, 100000, 'x'), 'x', rpad(value::text, 100000, 'y'), 'g'))) FROM generate_series(1, 10)",
    "SELECT sum(length(concat(a, a))) FROM (SELECT rpad(value::text, 10000, 'x') AS a FROM generate_series(1, 100000)) t",
    "SELECT sum(length(translate(rpad(value::text, 100000000, 'x'), 'x', 'y'))) FROM generate_series(1, 10)",
    "SELECT sum(length(array_to_string(string_to_array(rpad(value::text, 100000, 'x'), NULL), rpad(value::text, 100000, 'y')))) \
     FROM generate_series(1, 10)",
    "SELECT sum(length(a || a || a || a || a || a || a || a)) FROM (SELECT rpad(value::text, 5000000, 'x') AS a FROM \
     generate_series(1, 10)) t",
    "SELECT length(e) FROM (SELECT d || d || d || d AS e FROM (SELECT c || c || c || c AS d FROM (SELECT b || b || b || b AS c FROM \
     (SELECT a || a || a || a AS b FROM (SELECT rpad(value::text, 1000000, 'x') AS a FROM generate_series(1, 2)) t) t) t) t) t",
    "SELECT sum(array_length(e)) FROM (SELECT array_concat(d, d, d, d, d, d, d, d) AS e FROM (SELECT array_concat(c, c, c, c, c, c, c, c) \
     AS d FROM (SELECT array_concat(b, b, b, b, b, b, b, b) AS c FROM (SELECT string_to_array(rpad(value::text, 100000, 'x'), NULL) AS b \
     FROM generate_series(1, 20)) t) t) t) t",
    "SELECT sum(length(encode(encode(encode(encode(encode(encode(rpad(value::text, 5000000, 'x')::bytea, 'hex')::bytea, 'hex')::bytea, \
     'hex')::bytea, 'hex')::bytea, 'hex')::bytea, 'hex'))) FROM generate_series(1, 10)",
    "SELECT to_char(now() + value * interval '1 second', rpad('%c', 20000000, '%c')) FROM generate_series(1, 100)",
    "SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b ORDER BY a.value * b.value",
    "SELECT array_agg(a.value) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
    "SELECT count(DISTINCT a.value * 1000003 + b.value) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
    "SELECT string_agg(rpad(a.value::text, 10000, 'x'), '') FROM generate_series(1, 1000000) a",
];

const PASS: &[&str] = &[
    "SELECT 1",
    "SELECT 1;",
    "VALUES (1), (2)",
    "EXPLAIN SELECT * FROM pipeline_runs",
    "EXPLAIN ANALYZE SELECT count(*) FROM pipeline_runs",
    "DESCRIBE pipeline_runs",
    "SHOW TABLES",
    "SHOW COLUMNS FROM pipeline_runs",
    "SELECT table_name FROM information_schema.tables",
    "SELECT * FROM generate_series(1, 1000)",
    "SELECT value FROM range(0, 10)",
    "SELECT repeat('ab', 3)",
    "SELECT branch || '-' || run_id, concat(branch, run_id), concat_ws('/', source, branch) FROM pipeline_runs",
    "SELECT replace(branch, 'a', 'bb'), regexp_replace(branch, '(m)(a)', '\\2\\1', 'g'), lpad(run_id, attempt::int + 5) FROM pipeline_runs",
    "SELECT branch || run_id, count(*) FROM pipeline_runs GROUP BY branch || run_id ORDER BY branch || run_id",
    "SELECT array_to_string(string_to_array(branch, 'i'), ',') || NULL, ARRAY[1, 2] || 3 FROM pipeline_runs",
    "SELECT sum(length(value::text || '-' || value::text)) FROM generate_series(1, 1000000)",
    "SELECT date_trunc('day', started_at), count(*) FROM pipeline_runs GROUP BY 1",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) FROM pipeline_runs",
    "SELECT date_bin(INTERVAL '1 hour', started_at) FROM pipeline_runs",
    "SELECT row_number() OVER (PARTITION BY source ORDER BY started_at) FROM pipeline_runs",
    "SELECT * FROM pipeline_runs a JOIN task_runs b USING (source, run_id)",
    "SELECT DISTINCT ON (source) * FROM pipeline_runs ORDER BY source, started_at DESC",
    "SELECT count(*) FILTER (WHERE outcome = 'failure') FROM pipeline_runs WHERE branch ~* 'ma.n'",
    "SELECT extract(epoch FROM started_at)::bigint, now() - interval '7 days' FROM pipeline_runs",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM pipeline_runs WHERE outcome IS NULL)",
    "SELECT 'COPY (SELECT 1) TO ''/tmp/x''; DROP TABLE t' AS text",
];

fn populated() -> Arc<Query> {
    let memory = Arc::new(Memory::default());
    memory.tail("pipeline_runs", run("default", "1", 0, 1, "main"));
    engine(memory)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_statements_are_refused_at_both_doors() {
    let engine = populated();
    for sql in REFUSED {
        for door in [Door::Api, Door::Psql] {
            let request = SqlRequest { timeout: Duration::from_secs(5), ..request(sql) };
            let error = match engine.ask(request, door).await {
                Ok(_) => panic!("{door:?} passes: {sql}"),
                Err(error) => kiro_ports::PortError::of(error),
            };
            assert!(matches!(error.kind, FaultKind::Invalid | FaultKind::TooLarge), "{door:?} {sql}: {error} ({})", error.code);
        }
    }
    assert!(REFUSED.len() >= 120, "{} statements", REFUSED.len());
    assert!(!std::path::Path::new("/tmp/kiro-hostile.csv").exists());
    assert!(!std::path::Path::new("/tmp/kiro-hostile.parquet").exists());
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("a number");
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

/// Each ends with a clear error, in its time, without taking memory that nobody counts.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_end_within_the_limits() {
    let (engine, before) = (populated(), resident());
    for sql in BOMBS {
        for door in [Door::Api, Door::Psql] {
            let asked = SqlRequest { timeout: Duration::from_secs(5), ..request(sql) };
            let start = tokio::time::Instant::now();
            let answered = async { engine.ask(asked, door).await.map_err(kiro_ports::PortError::of)?.rows.try_collect::<Vec<_>>().await };
            let Err(error) = answered.await else { panic!("{door:?} answers {sql}") };
            assert!(matches!(error.kind, FaultKind::TooLarge | FaultKind::TimedOut | FaultKind::Invalid), "{door:?} {sql}: {error}");
            assert!(start.elapsed() < Duration::from_secs(8), "{door:?} {sql} took {:?}", start.elapsed());
            let grown = resident().saturating_sub(before);
            assert!(grown < 1 << 30, "{door:?} {sql} left {} MiB", grown >> 20);
        }
    }
    answer(&engine, request("SELECT 1")).await.expect("served on");
}

/// A thousand long constants would take gigabytes in each batch.
#[tokio::test(flavor = "multi_thread")]
async fn constants_do_not_stand_in_each_row_without_measure() {
    let engine = populated();
    let columns: Vec<String> = (0..1_000).map(|at| format!("repeat('x', {}) AS c{at}", 9_000 + at)).collect();
    let many = format!("SELECT {} FROM generate_series(1, 100000)", columns.join(", "));
    let error = answer(&engine, request(&many)).await.expect_err("too much");
    assert_eq!((error.kind, error.code), (FaultKind::TooLarge, "KIR-0407"), "{error}");
    let long = format!("SELECT length(replace(branch, 'main', '{}')) FROM pipeline_runs", "y".repeat(5_000));
    answer(&engine, request(&long)).await.expect("one long constant is fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_deep_statements_are_refused() {
    let engine = populated();
    let deep = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
    let texts = [
        format!("SELECT '{}'", "x".repeat(70_000)),
        deep(20_000),
        deep(65),
        format!("SELECT {}1", "1 + ".repeat(10_000)),
        format!("SELECT {}1", "- ".repeat(10_000)),
        format!("SELECT {}true", "NOT ".repeat(10_000)),
        format!("SELECT 1{}", "::int".repeat(5_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000)),
        format!("SELECT 1 FROM pipeline_runs{}", " JOIN pipeline_runs USING (run_id)".repeat(1_000)),
        format!("SELECT {}", "CASE WHEN true THEN ".repeat(3_000)),
        format!("SELECT {}", "ARRAY[".repeat(5_000)),
    ];
    for sql in texts {
        let Err(error) = engine.ask(request(&sql), Door::Api).await else { panic!("passes: {} bytes", sql.len()) };
        let error = kiro_ports::PortError::of(error);
        assert!(matches!(error.kind, FaultKind::TooLarge | FaultKind::Invalid), "{error}");
        assert!(error.what.len() < 1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_statements_pass() {
    let engine = populated();
    for sql in PASS {
        answer(&engine, request(sql)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}
