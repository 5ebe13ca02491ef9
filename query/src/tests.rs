//! What a question sees and what it may take, over views in memory.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use futures::StreamExt;
use kiro_ports::{Snapshot, SqlRequest};
use kiro_schemas::{FaultKind, Tenant, Value};
use kiro_tables::Table;

use crate::fixture::{Fixed, Memory, answer, engine, files, lines, no_files, request, rows, run};
use crate::{Door, Query, QueryConfig};

fn of(tenant: &str, sql: &str) -> SqlRequest {
    SqlRequest::new(Tenant::new(tenant), sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_there_without_rows() {
    let engine = engine(Arc::default());
    for table in Table::all() {
        let found = answer(&engine, request(&format!("SELECT * FROM {}", table.name))).await.expect(table.name);
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "{}", table.name);
        assert_eq!(lines(&engine, request(&format!("SELECT count(*) FROM {}", table.name))).await, ["0"]);
    }
    assert!(answer(&engine, request("SELECT _rev FROM pipeline_runs")).await.is_err());
    assert_eq!(lines(&engine, request("SELECT _topic, _partition, _offset FROM pipeline_runs_events")).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_rows_only() {
    let memory = Arc::new(Memory::default());
    memory.tail("pipeline_runs", run("default", "1", 0, 1, "main"));
    memory.tail("pipeline_runs", run("other", "2", 0, 1, "main"));
    memory.edit("pipeline_runs", |t| t.open.push(run("other", "3", 0, 1, "main")));
    let engine = engine(memory);
    for sql in [
        "SELECT run_id FROM pipeline_runs",
        "SELECT run_id FROM pipeline_runs WHERE tenant = 'other' OR true",
        "SELECT run_id FROM kirolinter.public.pipeline_runs p",
        "SELECT (SELECT max(run_id) FROM pipeline_runs)",
        "WITH a AS (SELECT * FROM pipeline_runs) SELECT run_id FROM a UNION SELECT run_id FROM a",
    ] {
        assert_eq!(lines(&engine, request(sql)).await, ["1"], "{sql}");
    }
    assert_eq!(lines(&engine, of("other", "SELECT run_id FROM pipeline_runs ORDER BY 1")).await, ["2", "3"]);
    assert_eq!(lines(&engine, of("nobody", "SELECT count(*) FROM pipeline_runs")).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_correction_stands() {
    let memory = Arc::new(Memory::default());
    for (id, rev, branch) in [("1", 0, "a"), ("1", 2, "c"), ("1", 1, "b"), ("2", 0, "x"), ("3", 1, "only")] {
        memory.tail("pipeline_runs", run("default", id, rev, 10 + rev, branch));
    }
    let engine = engine(memory);
    let sql = "SELECT run_id, branch FROM pipeline_runs ORDER BY run_id";
    assert_eq!(lines(&engine, request(sql)).await, ["1|c", "2|x", "3|only"]);
    assert_eq!(lines(&engine, request("SELECT branch FROM pipeline_runs WHERE run_id = '1'")).await, ["c"]);
    assert_eq!(lines(&engine, request("SELECT run_id FROM pipeline_runs WHERE branch = 'a'")).await.len(), 0);
    assert_eq!(lines(&engine, request("SELECT count(*) FROM pipeline_runs")).await, ["3"]);
}

#[derive(Debug)]
struct Files;

impl Snapshot for Files {
    fn version(&self) -> i64 {
        1
    }
    fn offsets(&self) -> &kiro_ports::Offsets {
        static NONE: kiro_ports::Offsets = kiro_ports::Offsets::new();
        &NONE
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Files as an older writer left them: `Utf8`, columns in another order and one missing.
fn old_files(batch: &RecordBatch) -> Arc<dyn TableProvider> {
    let schema = batch.schema();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()).rev().filter(|(f, _)| f.name() != "actor") {
        let kind = if field.data_type() == &DataType::Utf8View { DataType::Utf8 } else { field.data_type().clone() };
        columns.push(arrow::compute::cast(column, &kind).expect("a cast"));
        fields.push(Field::new(field.name(), kind, true));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("a batch");
    Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("a table"))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_tail_and_open_rows_are_one_table() {
    let written = arrow::compute::concat_batches(
        &Table::find("pipeline_runs").expect("a table").schema(),
        &[run("default", "1", 0, 1, "file"), run("other", "9", 0, 1, "file"), run("default", "2", 0, 1, "file")],
    )
    .expect("a batch");
    let provider = old_files(&written);
    let memory = Arc::new(Memory::default());
    memory.edit("pipeline_runs", |t| {
        t.snapshot = Some(Arc::new(Files));
        t.open.push(run("default", "4", 0, 5, "open"));
    });
    memory.tail("pipeline_runs", run("default", "3", 0, 5, "tail"));
    memory.tail("pipeline_runs", run("default", "2", 1, 5, "corrected"));
    let config = QueryConfig::default();
    let engine = Query::new(memory, files(provider), Arc::new(Fixed), config).expect("an engine");
    let sql = "SELECT run_id, branch FROM pipeline_runs ORDER BY run_id";
    assert_eq!(lines(&engine, request(sql)).await, ["1|file", "2|corrected", "3|tail", "4|open"]);
    assert_eq!(lines(&engine, request("SELECT branch, count(*) FROM pipeline_runs GROUP BY 1 ORDER BY 1")).await.len(), 4);
    assert_eq!(lines(&engine, request("SELECT run_id FROM pipeline_runs WHERE branch = 'file' AND actor IS NULL")).await, ["1"]);
    assert_eq!(lines(&engine, request("SELECT run_id FROM pipeline_runs ORDER BY run_id DESC LIMIT 1")).await, ["4"]);
    assert_eq!(lines(&engine, of("other", "SELECT run_id, actor FROM pipeline_runs")).await, ["9|null"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_in_files_and_in_memory_are_weighed_against_each_other() {
    let file = |tenant, id, rev, branch| run(tenant, id, rev, 10 + rev, branch);
    let firsts = ["1", "2", "3", "4"].map(|id| file("default", id, 0, "first"));
    let corrections = [file("default", "1", 1, "file"), file("default", "2", 3, "file"), file("default", "4", 1, "file")];
    let theirs = [file("other", "1", 0, "first"), file("other", "1", 5, "theirs")];
    let all: Vec<RecordBatch> = firsts.into_iter().chain(corrections).chain(theirs).collect();
    let provider = old_files(&arrow::compute::concat_batches(&all[0].schema(), &all).expect("a batch"));
    let memory = Arc::new(Memory::default());
    memory.edit("pipeline_runs", |t| t.snapshot = Some(Arc::new(Files)));
    let engine = Query::new(Arc::clone(&memory) as Arc<dyn kiro_ports::Views>, files(provider), Arc::new(Fixed), QueryConfig::default());
    let engine = engine.expect("an engine");
    let sql = "SELECT run_id, branch FROM pipeline_runs ORDER BY run_id";
    let of_files = ["1|file", "2|file", "3|first", "4|file"];
    // What was chosen among those in files is kept, for each tenant.
    for _ in 0..2 {
        assert_eq!(lines(&engine, request(sql)).await, of_files);
        assert_eq!(lines(&engine, of("other", sql)).await, ["1|theirs"]);
    }
    for (id, rev) in [("1", 2), ("2", 1), ("3", 1), ("5", 1)] {
        memory.tail("pipeline_runs", run("default", id, rev, 10 + rev, "memory"));
    }
    assert_eq!(lines(&engine, request(sql)).await, ["1|memory", "2|file", "3|memory", "4|file", "5|memory"]);
    assert_eq!(lines(&engine, of("other", sql)).await, ["1|theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_tenant_are_not_read() {
    let schema = Arc::new(Schema::new(vec![Field::new("run_id", DataType::Utf8, true)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(vec!["1"]))]).expect("a batch");
    let provider: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("a table"));
    let memory = Arc::new(Memory::default());
    memory.edit("pipeline_runs", |t| t.snapshot = Some(Arc::new(Files)));
    let engine = Query::new(memory, files(provider), Arc::new(Fixed), QueryConfig::default()).expect("an engine");
    let error = answer(&engine, request("SELECT run_id FROM pipeline_runs")).await.expect_err("no tenant");
    assert!(error.what.contains("tenant"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_take_their_type_from_the_plan() {
    let memory = Arc::new(Memory::default());
    memory.tail("pipeline_runs", run("default", "1", 0, 1, "main"));
    memory.tail("pipeline_runs", run("default", "2", 0, 1, "main"));
    let engine = engine(memory);
    let sql = "SELECT run_id FROM pipeline_runs WHERE branch = $1 AND attempt >= $2 ORDER BY 1 LIMIT $3";
    let with = |values: &[&str]| SqlRequest { parameters: values.iter().map(|v| Some((*v).to_owned())).collect(), ..request(sql) };
    assert_eq!(lines(&engine, with(&["main", "0", "1"])).await, ["1"]);
    assert_eq!(lines(&engine, with(&["' OR true --", "0", "1"])).await.len(), 0);
    assert!(answer(&engine, with(&["main", "x", "1"])).await.expect_err("no number").what.contains("$2"));
    assert_eq!(answer(&engine, with(&["main"])).await.expect_err("too few").kind, FaultKind::Invalid);
    let described = engine.describe(Tenant::default(), sql.into(), Door::Api).await.expect("a description");
    assert_eq!(described.parameters.len(), 3);
    assert_eq!(described.parameters[1..], [DataType::Int64, DataType::Int64]);
    assert_eq!(described.schema.field(0).name(), "run_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_are_usable() {
    let memory = Arc::new(Memory::default());
    let attributes = Value::Map(vec![("team".into(), "a".into())]);
    memory.tail("pipeline_runs", rows("pipeline_runs", &[&[("attributes", attributes)]]));
    assert_eq!(lines(&engine(memory), request("SELECT attributes['team'] FROM pipeline_runs")).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let engine = engine(Arc::default());
    let many = "SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    let timed = SqlRequest { timeout: Duration::from_millis(100), max_rows: usize::MAX, ..request(many) };
    assert_eq!(answer(&engine, timed).await.expect_err("slow").kind, FaultKind::TimedOut);
    let long = SqlRequest { max_rows: 1_000, ..request(many) };
    assert_eq!(answer(&engine, long).await.expect_err("many rows").kind, FaultKind::TooLarge);
    let sorted = "SELECT a.value, repeat('x', 1000) r FROM generate_series(1, 1000000) a ORDER BY r, a.value DESC";
    let error = answer(&engine, request(sorted)).await.expect_err("much memory");
    assert_eq!((error.kind, error.code), (FaultKind::TooLarge, "KIR-0407"), "{error}");
    assert_eq!(lines(&engine, request("SELECT 1")).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_answer_frees_its_place() {
    let config = QueryConfig { concurrent: 1, partitions: 2, memory: 64 << 20 };
    let engine = Query::new(Arc::new(Memory::default()), no_files(), Arc::new(Fixed), config).expect("an engine");
    let endless = "SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    let mut first = engine.ask(request(endless), Door::Api).await.expect("an answer");
    assert!(first.rows.next().await.expect("rows").is_ok());
    let second = SqlRequest { timeout: Duration::from_millis(50), ..request("SELECT 1") };
    assert_eq!(answer(&engine, second).await.expect_err("busy").kind, FaultKind::Throttled);
    drop(first);
    assert_eq!(lines(&engine, request("SELECT 1")).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_stops_reading_keeps_no_place() {
    let config = QueryConfig { concurrent: 1, partitions: 2, memory: 64 << 20 };
    let engine = Query::new(Arc::new(Memory::default()), no_files(), Arc::new(Fixed), config).expect("an engine");
    let endless = "SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    let short = SqlRequest { timeout: Duration::from_millis(200), ..request(endless) };
    let mut first = engine.ask(short, Door::Api).await.expect("an answer");
    assert!(first.rows.next().await.expect("rows").is_ok());
    assert_eq!(lines(&engine, request("SELECT 1")).await, ["1"], "the place is free although the first answer is held");
    let rest: Vec<_> = first.rows.collect().await;
    let last = rest.last().expect("an end");
    assert_eq!(last.as_ref().expect_err("not whole").kind, FaultKind::TimedOut);
}
