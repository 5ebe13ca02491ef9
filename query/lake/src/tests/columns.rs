//! Tables of older and newer programs: columns are added, whoever comes first, and nothing else is changed.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use kiro_ports::{Commit, Committed, TableSink, TableSource, Transaction};
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition};
use kiro_tables::{CHAIN, EventRows, Stamp, Table};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::{app, lake_on};

fn table() -> &'static Table {
    Table::find("audit_log").expect("a table")
}

fn rows(offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut collected = EventRows::default();
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    for offset in offsets {
        let event = Event::new(Subject::AuditEntry, Transition::Recorded, "urn:a", format!("{offset}"), Micros(offset));
        collected.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(offset), at: &at, offset }).expect("a row");
    }
    collected.finish().expect("batches").pop().expect("one table").1
}

fn commit(start: i64, next: i64) -> Commit {
    Commit { rows: vec![rows(start..next)], transactions: vec![Transaction { app: app(0), start, next }] }
}

fn log_path(version: i64) -> Path {
    Path::from(format!("tables/{}/_delta_log/{version:020}.json", table().name))
}

async fn lines(store: &InMemory, version: i64) -> Option<Vec<Value>> {
    let bytes = store.get(&log_path(version)).await.ok()?.bytes().await.expect("bytes");
    Some(bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).expect("JSON")).collect())
}

async fn put(store: &InMemory, version: i64, lines: &[Value]) {
    let text = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    store.put(&log_path(version), text.into()).await.expect("written");
}

fn fields(lines: &[Value]) -> Vec<Value> {
    let meta = lines.iter().find_map(|line| line.get("metaData")).expect("columns");
    let schema: Value = serde_json::from_str(meta["schemaString"].as_str().expect("text")).expect("JSON");
    schema["fields"].as_array().expect("fields").clone()
}

/// Version 0 with changed columns.
async fn created(change: impl Fn(&mut Vec<Value>)) -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    lake_on(Arc::clone(&store) as _).await.offsets(table()).await.expect("a table");
    let mut first = lines(&store, 0).await.expect("created");
    let mut columns = fields(&first);
    change(&mut columns);
    let meta = first.iter_mut().find_map(|line| line.get_mut("metaData")).expect("columns");
    meta["schemaString"] = json!({"type": "struct", "fields": columns}).to_string().into();
    put(&store, 0, &first).await;
    store
}

/// A table of a program that knew no chain, with two rows.
async fn older() -> Arc<InMemory> {
    let store = created(|columns| columns.retain(|column| column["name"] != CHAIN)).await;
    let all = rows(0..2);
    let known: Vec<usize> = (0..all.num_columns() - 1).collect();
    let batch = all.project(&known).expect("columns");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    let bytes = writer.into_inner().expect("bytes");
    let add =
        json!({"add": {"path": "old.parquet", "partitionValues": {}, "size": bytes.len(), "modificationTime": 0, "dataChange": true}});
    store.put(&Path::from(format!("tables/{}/old.parquet", table().name)), bytes.into()).await.expect("written");
    put(&store, 1, &[json!({"txn": {"appId": app(0), "version": 2}}), add]).await;
    store
}

/// Offsets with their chains.
async fn chains(store: &Arc<InMemory>) -> Vec<(i64, Option<String>)> {
    let mut found = Vec::new();
    for batch in lake_on(Arc::clone(store) as _).await.scan(table(), &["_offset", CHAIN]).await.expect("a scan") {
        let chains = batch.column(1).as_string_view();
        let offsets = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values();
        found.extend(offsets.iter().enumerate().map(|(row, at)| (*at, chains.is_valid(row).then(|| chains.value(row).to_owned()))));
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_reader_fills_what_the_table_does_not_have_yet() {
    let store = older().await;
    assert_eq!(chains(&store).await, [(0, None), (1, None)]);
    let lake = lake_on(Arc::clone(&store) as _).await;
    let only = lake.scan(table(), &[CHAIN]).await.expect("a scan");
    assert_eq!(only.iter().map(|batch| (batch.num_columns(), batch.num_rows())).collect::<Vec<_>>(), [(1, 2)]);
    assert!(lake.lookup(table(), &[(CHAIN, &["1:x".to_owned()])]).await.expect("a lookup").is_empty());
    assert!(lines(&store, 2).await.is_none(), "who reads changes nothing");
}

#[tokio::test]
async fn columns_are_added_once_whoever_comes_first() {
    let store = older().await;
    let lakes = [lake_on(Arc::clone(&store) as _).await, lake_on(Arc::clone(&store) as _).await];
    let reader = lake_on(Arc::clone(&store) as _).await;
    assert_eq!(reader.scan(table(), &[]).await.expect("a scan").iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let (first, second) = tokio::join!(lakes[0].offsets(table()), lakes[1].offsets(table()));
    assert_eq!((first.expect("offsets").get(&app(0)), second.expect("offsets").get(&app(0))), (Some(&2), Some(&2)));
    let added = fields(&lines(&store, 2).await.expect("columns were added"));
    assert_eq!(added.len(), table().columns.len());
    assert!(lines(&store, 3).await.is_none(), "once");
    assert_eq!(lakes[1].commit(table(), commit(2, 4)).await.expect("a commit"), Committed::Done(3));
    assert_eq!(lakes[0].commit(table(), commit(4, 5)).await.expect("a commit"), Committed::Done(4));
    let all = reader.scan(table(), &[]).await.expect("a scan");
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 5, "who read before reads on");
    assert!(all.iter().all(|batch| batch.schema() == table().schema()));
    // A checkpoint keeps the columns, and the digests of the files.
    lakes[0].checkpoint(table()).await.expect("a checkpoint");
    for version in 0..5 {
        store.delete(&log_path(version)).await.expect("deleted");
    }
    let fresh = lake_on(Arc::clone(&store) as _).await;
    assert_eq!(fresh.commit(table(), commit(5, 6)).await.expect("a commit"), Committed::Done(5), "nothing is added again");
    let found = fresh.inspect(table()).await.expect("an inspection");
    assert_eq!((found.flaws.as_slice(), found.live.len()), (&[][..], 4));
    assert_eq!(found.live.iter().filter(|file| file.digest.is_some()).count(), 3);
    for file in &found.live {
        fresh.check_file(table(), file).await.expect("as written");
    }
}

#[tokio::test]
async fn a_newer_programs_columns_stay() {
    let store = created(|columns| columns.push(json!({"name": "later", "type": "long", "nullable": true, "metadata": {}}))).await;
    let lake = lake_on(Arc::clone(&store) as _).await;
    assert_eq!(lake.commit(table(), commit(0, 2)).await.expect("a commit"), Committed::Done(1));
    assert_eq!(chains(&store).await, [(0, None), (1, None)]);
}

#[tokio::test]
async fn what_is_no_addition_is_refused() {
    let column = |columns: &mut Vec<Value>, name: &str| columns.iter().position(|c| c["name"] == name).expect("a column");
    let retyped = created(|columns| {
        let at = column(columns, "_offset");
        columns[at]["type"] = json!("string");
    });
    let loosened = created(|columns| {
        let at = column(columns, "source");
        columns[at]["nullable"] = json!(true);
    });
    let dropped = created(|columns| columns.retain(|c| c["name"] != "source"));
    let needed = created(|columns| columns.push(json!({"name": "later", "type": "long", "nullable": false, "metadata": {}})));
    for (store, words) in [
        (retyped.await, "column _offset: it is \"string\" there, \"long\" here"),
        (loosened.await, "column source: it may be null there and may not be null here"),
        (dropped.await, "column source: it is not there"),
        (needed.await, "column later: it may not be null, and this program does not know it"),
    ] {
        let lake = lake_on(Arc::clone(&store) as _).await;
        for error in [lake.offsets(table()).await.expect_err("refused"), lake.scan(table(), &[]).await.expect_err("refused")] {
            assert_eq!(error.code, "KIR-0312");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(lines(&store, 1).await.is_none(), "nothing is written");
    }
}

#[tokio::test]
async fn who_commits_notices_a_change_of_columns() {
    let store = created(|_| {}).await;
    let lake = lake_on(Arc::clone(&store) as _).await;
    lake.commit(table(), commit(0, 1)).await.expect("a commit");
    let mut change = lines(&store, 0).await.expect("created");
    change.retain(|line| line.get("metaData").is_some());
    put(&store, 2, &change).await;
    assert_eq!(lake.commit(table(), commit(1, 2)).await.expect("the same columns"), Committed::Done(3));
    let text = change[0]["metaData"]["schemaString"].as_str().expect("text").replace("\"boolean\"", "\"string\"");
    change[0]["metaData"]["schemaString"] = text.replacen("\"timestamp\"", "\"long\"", 1).into();
    put(&store, 4, &change).await;
    assert_eq!(lake.commit(table(), commit(2, 3)).await.expect_err("refused").code, "KIR-0312");
}
