//! Whole tables with right digests whose rows are not those that were written.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use kiro_lake::{Lake, local_store};
use kiro_ports::{Anchors as _, Commit, SystemClock, TableSink as _, TableSource as _, Transaction};
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition, Value};
use kiro_store::{Store, StoreConfig};
use kiro_tables::{ChainHeads, EventRows, Stamp, Table, seal};
use tempfile::TempDir;
use url::Url;

use super::{Report, verify};

fn table() -> &'static Table {
    Table::find("audit_log").expect("a table")
}

fn rows(offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut collected = EventRows::default();
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    for offset in offsets {
        let mut event = Event::new(Subject::AuditEntry, Transition::Recorded, "urn:a", format!("{offset}"), Micros(offset));
        event.set("actor", Value::text(format!("actor {offset}")));
        collected.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(offset), at: &at, offset }).expect("a row");
    }
    collected.finish().expect("batches").pop().expect("one table").1
}

/// A lake that holds these rows, a file for each batch.
async fn lake(dir: &TempDir, name: &str, batches: &[RecordBatch]) -> Lake {
    let dir = dir.path().join(name);
    let store = local_store(&dir).expect("a store");
    let root = Url::from_directory_path(&dir).expect("absolute");
    let lake = Lake::open(store, root, Arc::new(SystemClock)).await.expect("a lake");
    for (at, batch) in (0..).zip(batches) {
        let transaction = Transaction { app: "kiro/main/events/0".to_owned(), start: at, next: at + 1 };
        lake.commit(table(), Commit { rows: vec![batch.clone()], transactions: vec![transaction] }).await.expect("a commit");
    }
    lake
}

/// Five commits of four rows, and what is remembered of their end.
async fn written(dir: &TempDir) -> (Vec<RecordBatch>, Store) {
    let store = Store::open(StoreConfig::Sqlite(dir.path().join("control.sqlite"))).await.expect("a store");
    let (mut heads, mut batches) = (ChainHeads::new(), Vec::new());
    for from in (0..20).step_by(4) {
        batches.extend(seal(&[rows(from..from + 4)], &mut heads).expect("sealed"));
        for (at, head) in &heads {
            store.anchor(at, head.offset, &head.chain(), Micros(from)).await.expect("anchored");
        }
    }
    (batches, store)
}

fn told(report: &Report) -> Option<(i64, &str)> {
    report.breaks.first().map(|found| (found.row.as_ref().map_or(-1, |(_, offset)| *offset), found.what.as_str()))
}

fn with_actors(batch: &RecordBatch, change: impl Fn(usize, &str) -> String) -> RecordBatch {
    let at = table().position("actor").expect("a column");
    let mut columns = batch.columns().to_vec();
    let actors = batch.column(at).as_string_view();
    columns[at] = Arc::new(StringViewArray::from_iter_values((0..actors.len()).map(|row| change(row, actors.value(row)))));
    RecordBatch::try_new(batch.schema(), columns).expect("rows")
}

#[tokio::test]
async fn one_file_of_all_in_another_order_is_as_good() {
    let dir = tempfile::tempdir().expect("a folder");
    let (batches, store) = written(&dir).await;
    let whole = verify(&lake(&dir, "written", &batches).await, &store).await.expect("verified");
    assert_eq!((told(&whole), whole.rows(), whole.files, whole.files_without_digest), (None, 20, 5, 0));
    let all = concat_batches(&table().schema(), &batches).expect("rows");
    let ids = all.column(table().position("entry_id").expect("a column"));
    let other = take_record_batch(&all, &sort_to_indices(ids, None, None).expect("an order")).expect("rows");
    let compacted = lake(&dir, "compacted", &[other]).await;
    let report = verify(&compacted, &store).await.expect("verified");
    assert_eq!((told(&report), report.rows(), report.files), (None, 20, 1));
    compacted.checkpoint(table()).await.expect("a checkpoint");
    assert_eq!(told(&verify(&compacted, &store).await.expect("verified")), None);
    assert_eq!(compacted.scan(table(), &[]).await.expect("rows").iter().map(RecordBatch::num_rows).sum::<usize>(), 20);
}

#[tokio::test]
async fn rows_that_are_not_those_that_were_written_are_found_behind_right_digests() {
    let dir = tempfile::tempdir().expect("a folder");
    let (batches, store) = written(&dir).await;
    let with = |at: usize, batch: RecordBatch| {
        let mut all = batches.clone();
        all[at] = batch;
        all
    };
    let changed = with_actors(&batches[2], |row, actor| if row == 1 { "somebody else".to_owned() } else { actor.to_owned() });
    let swapped = with_actors(&batches[2], |row, actor| {
        format!(
            "actor {}",
            match row {
                0 => 9,
                1 => 8,
                _ => return actor.to_owned(),
            }
        )
    });
    let removed = batches[2].slice(1, 3);
    let mut without_end = batches.clone();
    without_end.pop();
    let mut twice = batches.clone();
    twice.push(batches[3].slice(2, 1));
    let mut forged = rows(20..21).columns().to_vec();
    forged[table().position("_offset").expect("a column")] = Arc::new(Int64Array::from(vec![20]));
    let mut unchained = batches.clone();
    unchained.push(RecordBatch::try_new(table().schema(), forged).expect("rows"));
    let follows = "does not follow the one before it";
    for (name, batches, offset, words) in [
        ("changed", with(2, changed), 9, follows),
        ("swapped", with(2, swapped), 8, follows),
        ("removed", with(2, removed), 9, follows),
        ("no_end", without_end, 19, "the end of the log is gone"),
        ("twice", twice, 14, follows),
        ("unchained", unchained, 20, "this row has no chain"),
        ("nothing", Vec::new(), 19, "the end of the log is gone"),
    ] {
        let lake = lake(&dir, name, &batches).await;
        let report = verify(&lake, &store).await.expect("verified");
        let (found, what) = told(&report).unwrap_or_else(|| panic!("{name} is not found"));
        assert!(found == offset && what.contains(words), "{name}: {:?}", report.breaks);
        let json = report.to_json();
        assert!(json["is_whole"] == false && json["breaks"][0]["topic"] == "events" && json["breaks"][0]["offset"] == offset, "{json}");
        assert_eq!(json["breaks"][0]["file"].is_string(), !words.contains("end"), "{json}");
    }
}
