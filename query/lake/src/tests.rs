//! Commits, faults, fences, restarts and checkpoints, on a real directory and in memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;
use kiro_ports::{Commit, Committed, Snapshot as _, SystemClock, TableSink, TableSource, Transaction};
use kiro_schemas::{Event, Fault, FaultKind, Micros, Subject, Tenant, TopicPartition, subject};
use kiro_tables::{EventRows, Stamp, Table};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use url::Url;

mod columns;
mod look;

use crate::{Error, FaultStore, Lake, Toxics, local_store};

mod endurance;
mod upkeep;
mod versions;

fn table() -> &'static Table {
    Table::find("pipeline_runs_events").expect("a table")
}

fn rows(partition: i32, offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut collected = EventRows::default();
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", partition));
    let first = subject::spec(Subject::PipelineRun).transitions[0].transition;
    for offset in offsets {
        let mut event =
            Event::new(Subject::PipelineRun, first, "https://ci/a", format!("{partition}-{offset}"), Micros(offset * 1_000_001));
        event.attributes.push(("k".into(), format!("v{offset}").into()));
        collected.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(offset), at: &at, offset }).expect("a row");
    }
    collected.finish().expect("batches").pop().expect("one table").1
}

fn app(partition: i32) -> String {
    format!("kiro/test/events/{partition}")
}

fn commit(partition: i32, start: i64, next: i64) -> Commit {
    let rows = if next > start { vec![rows(partition, start..next)] } else { vec![] };
    Commit { rows, transactions: vec![Transaction { app: app(partition), start, next }] }
}

async fn lake_on(store: Arc<dyn ObjectStore>) -> Lake {
    let root = Url::parse("memory:///").expect("a url");
    Lake::open_with(store, root, Arc::new(SystemClock), Duration::from_micros(10)).await.expect("a lake")
}

async fn stands(lake: &Lake, partition: i32) -> i64 {
    lake.offsets(table()).await.expect("offsets").get(&app(partition)).copied().unwrap_or(0)
}

/// All (partition, offset) of the table, and how many rows there are.
async fn places(lake: &Lake) -> (usize, HashSet<(i64, i64)>) {
    let batches = lake.scan(table(), &["_partition", "_offset"]).await.expect("a scan");
    let mut found = HashSet::new();
    for batch in &batches {
        let (partitions, offsets) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
        found.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    (batches.iter().map(RecordBatch::num_rows).sum(), found)
}

#[tokio::test]
async fn what_is_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(&dir.path().join("a/lake")).expect("a store");
    let lake = lake_on(Arc::clone(&store)).await;
    assert!(lake.snapshot(table()).await.expect("an answer").is_none());
    assert!(lake.scan(table(), &[]).await.expect("an answer").is_empty());
    assert_eq!(stands(&lake, 0).await, 0);
    assert!(lake.scan(table(), &[]).await.expect("an empty table").is_empty());
    assert_eq!(lake.commit(table(), commit(0, 0, 100)).await.expect("a commit"), Committed::Done(1));
    assert_eq!(lake.commit(table(), commit(0, 100, 100)).await.expect("offsets only"), Committed::Done(2));
    drop(lake);
    let lake = lake_on(store).await;
    assert_eq!(stands(&lake, 0).await, 100);
    let batches = lake.scan(table(), &[]).await.expect("a scan");
    let all = arrow::compute::concat_batches(&table().schema(), &batches).expect("the table's own schema");
    let order = arrow::compute::sort_to_indices(all.column_by_name("_offset").expect("a column"), None, None).expect("an order");
    let sorted = arrow::compute::take_record_batch(&all, &order).expect("rows");
    assert_eq!(sorted, rows(0, 0..100));
    let found = lake.lookup(table(), &[("run_id", &["0-7".into(), "0-99".into(), "none".into()])]).await.expect("a lookup");
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(lake.live_files(table()).await.expect("files"), 1);
    let snapshot = lake.lake_snapshot(table()).await.expect("an answer").expect("a snapshot");
    assert_eq!((snapshot.version(), snapshot.offsets().get(&app(0)).copied()), (2, Some(100)));
}

#[tokio::test]
async fn the_provider_has_the_tables_columns_and_refuses_writes() {
    let lake = lake_on(Arc::new(InMemory::new())).await;
    for table in Table::all() {
        lake.offsets(table).await.expect("a table");
        let snapshot = lake.lake_snapshot(table).await.expect("an answer").expect("a snapshot");
        let provider = snapshot.provider().await.expect("a provider");
        for (ours, theirs) in table.schema().fields().iter().zip(provider.schema().fields()) {
            assert_eq!(ours.name(), theirs.name());
            // Maps have inner names of their own.
            if !matches!(ours.data_type(), arrow::datatypes::DataType::Map(..)) {
                assert_eq!(ours.data_type(), theirs.data_type(), "{}.{}", table.name, ours.name());
            }
        }
        assert_eq!(table.schema().fields().len(), provider.schema().fields().len());
        let context = datafusion::prelude::SessionContext::new();
        let rows = context.read_empty().expect("rows").create_physical_plan().await.expect("a plan");
        let insert = datafusion::logical_expr::dml::InsertOp::Append;
        assert!(provider.insert_into(&context.state(), rows, insert).await.is_err());
    }
}

/// Seeded commits over a store that fails often: nothing is lost, nothing stands twice.
#[tokio::test]
async fn faults_neither_lose_nor_repeat() {
    for seed in 0..8 {
        let toxics = Toxics {
            before: 0.05,
            after: 0.08,
            conflict: 0.05,
            reset: 0.05,
            stale: 0.02,
            slow: 0.02,
            delay: Duration::from_micros(50),
            full: false,
        };
        let store = Arc::new(FaultStore::new(InMemory::new(), seed, Toxics::default()));
        let mut random = StdRng::seed_from_u64(seed);
        let mut lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
        store.set(toxics);
        let mut next = [0_i64; 3];
        for _ in 0..300 {
            if random.gen_bool(0.02) {
                lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
            }
            let mut whole = Commit { rows: vec![], transactions: vec![] };
            for partition in 0..3_i32 {
                if random.gen_bool(0.5) || (partition == 2 && whole.transactions.is_empty()) {
                    let at = next[usize::try_from(partition).expect("small")];
                    let part = commit(partition, at, at + random.gen_range(0..5));
                    whole.rows.extend(part.rows);
                    whole.transactions.extend(part.transactions);
                }
            }
            match lake.commit(table(), whole.clone()).await {
                Ok(Committed::Done(_)) => {}
                Ok(Committed::Fenced(moved)) => panic!("seed {seed}: nobody else commits, and yet {moved:?}"),
                // An error may hide a commit: the table tells where it stands.
                Err(error) => println!("seed {seed}: {error}"),
            }
            let offsets = loop {
                if let Ok(offsets) = lake.offsets(table()).await {
                    break offsets;
                }
            };
            for (partition, slot) in (0..).zip(next.iter_mut()) {
                let stands = offsets.get(&app(partition)).copied().unwrap_or(0);
                let asked = whole.transactions.iter().find(|t| t.app == app(partition));
                assert!(stands == *slot || asked.is_some_and(|t| t.next == stands), "seed {seed}");
                *slot = stands;
            }
        }
        store.set(Toxics::default());
        assert!(store.injected() > 50, "the faults must have struck");
        let lake = lake_on(store).await;
        let (count, distinct) = places(&lake).await;
        let expected: HashSet<_> = (0_i64..).zip(next).flat_map(|(p, end)| (0..end).map(move |o| (p, o))).collect();
        assert_eq!((count, &distinct), (expected.len(), &expected), "seed {seed}");
    }
}

#[tokio::test]
async fn of_two_committers_of_one_partition_one_wins() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (first, zombie) = (lake_on(Arc::clone(&store)).await, lake_on(store).await);
    assert_eq!((stands(&first, 0).await, stands(&zombie, 0).await), (0, 0));
    let mut done = 0;
    for round in 0..40_i64 {
        let (a, b) = tokio::join!(
            first.commit(table(), commit(0, round * 3, round * 3 + 3)),
            zombie.commit(table(), commit(0, round * 3, round * 3 + 3))
        );
        for outcome in [a.expect("an outcome"), b.expect("an outcome")] {
            match outcome {
                Committed::Done(_) => done += 1,
                Committed::Fenced(moved) => assert_eq!(moved, vec![(app(0), round * 3 + 3)]),
            }
        }
        assert_eq!(done, round + 1);
    }
    let (count, distinct) = places(&first).await;
    assert_eq!((count, distinct.len()), (120, 120));
}

#[tokio::test]
async fn committers_of_other_partitions_do_not_disturb() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..6 {
        let lake = lake_on(Arc::clone(&store)).await;
        tasks.spawn(async move {
            for at in 0..20 {
                let outcome = lake.commit(table(), commit(partition, at, at + 1)).await.expect("a commit");
                assert!(matches!(outcome, Committed::Done(_)), "{outcome:?}");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    let (count, distinct) = places(&lake_on(store).await).await;
    assert_eq!((count, distinct.len()), (120, 120));
}

#[tokio::test]
async fn a_foreign_move_of_one_partition_fences_the_whole_commit() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (ours, other) = (lake_on(Arc::clone(&store)).await, lake_on(store).await);
    stands(&ours, 0).await;
    other.commit(table(), commit(1, 0, 5)).await.expect("a commit");
    let mut both = commit(0, 0, 2);
    both.transactions.push(Transaction { app: app(1), start: 0, next: 2 });
    assert_eq!(ours.commit(table(), both).await.expect("an outcome"), Committed::Fenced(vec![(app(1), 5)]));
    assert_eq!(places(&ours).await.0, 5);
    assert_eq!(ours.commit(table(), commit(0, 0, 2)).await.expect("an outcome"), Committed::Done(2));
}

#[tokio::test]
async fn checkpoints_keep_transactions_and_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(dir.path()).expect("a store");
    let lake = lake_on(Arc::clone(&store)).await;
    for at in 0..8 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        lake.commit(table(), commit(1, at, at + 1)).await.expect("a commit");
    }
    assert_eq!(lake.checkpoint(table()).await.expect("a checkpoint"), Some(16));
    lake.commit(table(), commit(1, 8, 9)).await.expect("a commit");
    let fresh = lake_on(store).await;
    assert_eq!((stands(&fresh, 0).await, stands(&fresh, 1).await), (8, 9));
    assert_eq!(fresh.live_files(table()).await.expect("files"), 17);
    let (count, distinct) = places(&fresh).await;
    assert_eq!((count, distinct.len()), (17, 17));
    let zombie = fresh.commit(table(), commit(0, 7, 8)).await.expect("an outcome");
    assert_eq!(zombie, Committed::Fenced(vec![(app(0), 8)]));
}

#[tokio::test]
async fn old_commits_may_go_after_a_checkpoint() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_on(Arc::clone(&store)).await;
    let stale = lake_on(Arc::clone(&store)).await;
    for at in 0..8 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        if at == 2 {
            stale.commit(table(), commit(1, 0, 1)).await.expect("a commit");
        }
    }
    assert_eq!(lake.checkpoint(table()).await.expect("a checkpoint"), Some(9));
    for version in 0..9 {
        store.delete(&Path::from(format!("tables/{}/_delta_log/{version:020}.json", table().name))).await.expect("deleted");
    }
    lake.commit(table(), commit(0, 8, 9)).await.expect("a commit");
    // It stands at version 4, far below the checkpoint: its commit must not be lost there.
    let outcome = stale.commit(table(), commit(1, 1, 3)).await.expect("an outcome");
    assert_eq!(outcome, Committed::Done(11));
    let fresh = lake_on(store).await;
    assert_eq!((stands(&fresh, 0).await, stands(&fresh, 1).await), (9, 3));
    let (count, distinct) = places(&fresh).await;
    assert_eq!((count, distinct.len()), (12, 12));
}

#[tokio::test]
async fn errors_have_their_kind() {
    let store = Arc::new(FaultStore::new(InMemory::new(), 1, Toxics::default()));
    let lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
    lake.commit(table(), commit(0, 0, 1)).await.expect("a commit");
    store.set(Toxics { full: true, ..Toxics::default() });
    assert_eq!(lake.commit(table(), commit(0, 1, 2)).await.expect_err("no space").kind, FaultKind::NoSpace);
    store.set(Toxics::default());
    assert_eq!(lake.commit(table(), commit(0, 1, 2)).await.expect("space again"), Committed::Done(2));
    let twice = Commit { rows: vec![], transactions: vec![Transaction { app: app(0), start: 2, next: 2 }; 2] };
    assert_eq!(lake.commit(table(), twice).await.expect_err("twice").kind, FaultKind::Invalid);
    assert_eq!(lake.scan(table(), &["nope"]).await.expect_err("no column").kind, FaultKind::Invalid);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = local_store(&file.path().join("lake")).expect_err("a file is no folder");
    assert_eq!((error.kind(), error.code()), (FaultKind::Unavailable, "KIR-0310"));
    assert_eq!(local_store(std::path::Path::new("/proc/kiro/lake")).expect_err("not writable").kind(), FaultKind::Unavailable);
}

#[tokio::test]
async fn a_newer_lake_is_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    store.put(&Path::from("lake.json"), r#"{"format":2}"#.into()).await.expect("a file");
    let root = Url::parse("memory:///").expect("a url");
    let error = Lake::open(store, root, Arc::new(SystemClock)).await.expect_err("newer");
    assert!(matches!(&error, Error::Newer { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn an_empty_commit_file_is_damage() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_on(Arc::clone(&store)).await;
    lake.commit(table(), commit(0, 0, 1)).await.expect("a commit");
    store.put(&Path::from(format!("tables/{}/_delta_log/{:020}.json", table().name, 2)), "".into()).await.expect("a file");
    assert_eq!(lake.commit(table(), commit(0, 1, 2)).await.expect_err("damage").code, "KIR-0306");
}

#[tokio::test]
async fn the_local_store_creates_once_and_takes_parts() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(dir.path()).expect("a store");
    let path = Path::from("x/y");
    store.put_opts(&path, "a".into(), PutOptions::from(PutMode::Create)).await.expect("created");
    let again = store.put_opts(&path, "b".into(), PutOptions::from(PutMode::Create)).await.expect_err("it exists");
    assert!(matches!(again, object_store::Error::AlreadyExists { .. }));
    store.put(&path, "c".into()).await.expect("overwritten");
    let mut upload = store.put_multipart(&Path::from("x/z")).await.expect("an upload");
    let (second, first) = (upload.put_part("ab".into()), upload.put_part("cd".into()));
    first.await.expect("a part");
    second.await.expect("a part");
    upload.complete().await.expect("complete");
    drop(store.put_multipart(&Path::from("x/gone")).await.expect("an upload"));
    assert_eq!(store.get(&path).await.expect("there").bytes().await.expect("bytes"), "c");
    assert_eq!(store.get(&Path::from("x/z")).await.expect("there").bytes().await.expect("bytes"), "abcd");
    let names: HashSet<_> = std::fs::read_dir(dir.path().join("x")).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, HashSet::from(["y".into(), "z".into()]));
}

#[tokio::test]
async fn a_directory_lists_in_the_order_of_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = local_store(dir.path()).expect("a store");
    let names: Vec<Path> = (0..64).map(|version| Path::from(format!("log/{version:020}.json"))).collect();
    for name in names.iter().rev() {
        store.put(name, "x".into()).await.expect("a put");
    }
    let prefix = Path::from("log");
    let listed = |found: Vec<object_store::ObjectMeta>| found.into_iter().map(|meta| meta.location).collect::<Vec<_>>();
    let all = store.list(Some(&prefix)).try_collect().await.expect("a listing");
    assert_eq!(listed(all), names);
    let later = store.list_with_offset(Some(&prefix), &names[9]).try_collect().await.expect("a listing");
    assert_eq!(listed(later), names[10..]);
}

/// A commit as another program, or a broken disk, may have left it: read or refused, never a panic; seeds and what is near.
#[test]
fn commits_of_others_are_read_or_refused() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/lake_commit");
    let (path, mut random, mut read) = (Path::from("commit"), StdRng::seed_from_u64(7), 0);
    for seed in std::fs::read_dir(seeds).expect("seeds").flatten() {
        let seed = std::fs::read(seed.path()).expect("a seed");
        for round in 0..200 {
            let mut bytes = seed.clone();
            for _ in 0..round.min(3) {
                let at = random.gen_range(0..bytes.len());
                bytes[at] = random.r#gen();
            }
            if let Ok(entry) = crate::log::parse_entry(&path, &bytes) {
                read += 1;
                let mut head = crate::log::Head { version: 3, ..Default::default() };
                assert_eq!(head.apply(table(), &entry).is_ok(), head.version == 4, "a refused commit moves nothing");
            }
        }
    }
    assert!(read > 3, "only {read} were read");
    let deep = "[".repeat(1 << 20);
    assert!(crate::log::parse_entry(&path, deep.as_bytes()).is_err());
    assert!(crate::log::parse_entry(&path, format!("{{\"add\":{deep}").as_bytes()).is_err());
}

#[tokio::test]
async fn versions_of_a_table_lie_apart() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let old = lake_on(Arc::clone(&store)).await;
    let new = lake_on(store).await.with_version(2, &[table()]);
    old.commit(table(), commit(0, 0, 3)).await.expect("a commit");
    new.commit(table(), commit(0, 0, 5)).await.expect("a commit");
    for (lake, count) in [(&old, 3), (&new, 5)] {
        assert_eq!(places(lake).await.0, count, "each reads its own files");
        assert_eq!(stands(lake, 0).await, i64::try_from(count).expect("small"));
    }
}

#[test]
fn statistics_tell_rows_nulls_and_bounds_over_all_batches() {
    let file = crate::files::encode(table(), &[rows(0, 3..5), rows(0, 1..3)]).expect("a file");
    let told: serde_json::Value = serde_json::from_str(&file.statistics).expect("JSON");
    assert_eq!((&told["numRecords"], &told["nullCount"]["run_id"], &told["nullCount"]["outcome"]), (&4.into(), &0.into(), &4.into()));
    assert_eq!((&told["minValues"]["_offset"], &told["maxValues"]["_offset"]), (&1.into(), &4.into()));
    assert_eq!((&told["minValues"]["run_id"], &told["maxValues"]["run_id"]), (&"0-1".into(), &"0-4".into()));
    assert_eq!(told["maxValues"]["recorded_at"], "1970-01-01T00:00:00.000004Z");
}

#[tokio::test]
async fn a_lake_knows_which_tables_are_new_to_it() {
    let (store, path) = (Arc::new(InMemory::new()), Path::from("lake.json"));
    let lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
    assert!(lake.newcomers().await.expect("names").is_empty(), "a lake that was founded now");
    for (text, newcomers) in [(r#"{"format":1}"#, vec!["metrics"]), (r#"{"format":1,"tables":["metrics"]}"#, Vec::new())] {
        store.put(&path, text.into()).await.expect("a file");
        let found = lake.newcomers().await.expect("names");
        assert!(newcomers.iter().all(|name| found.contains(name)), "{text}: {found:?}");
        assert_eq!(found.contains(&"metrics"), !newcomers.is_empty(), "{text}: {found:?}");
        lake.settle().await.expect("written");
        assert!(lake.newcomers().await.expect("names").is_empty());
    }
}
