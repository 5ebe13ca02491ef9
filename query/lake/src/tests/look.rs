//! What is done to a table's folder, and what a look at it tells.

use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_ports::{SystemClock, TableSink};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use url::Url;

use super::{commit, lake_on, table};
use kiro_schemas::Fault as _;

use crate::fault::{FaultStore, Toxics};
use crate::{Flaw, Inspection, Lake};

fn place(name: &str) -> Path {
    Path::from(format!("tables/{}/{name}", table().name))
}

fn log_place(version: i64) -> Path {
    place(&format!("_delta_log/{version:020}.json"))
}

/// Five commits, a checkpoint, and two more.
async fn filled() -> (Arc<InMemory>, Lake) {
    let store = Arc::new(InMemory::new());
    let lake = lake_on(Arc::clone(&store) as _).await;
    for at in 0..5 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    lake.checkpoint(table()).await.expect("a checkpoint");
    for at in 5..7 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    (store, lake)
}

async fn look(store: &Arc<InMemory>) -> Inspection {
    let root = Url::parse("memory:///").expect("a url");
    let lake = Lake::look(Arc::clone(store) as _, root, Arc::new(SystemClock)).await.expect("it answers").expect("a lake");
    lake.inspect(table()).await.expect("an inspection")
}

#[tokio::test]
async fn a_whole_table_has_no_flaw() {
    let root = || Url::parse("memory:///").expect("a url");
    let nothing = Lake::look(Arc::new(InMemory::new()), root(), Arc::new(SystemClock)).await.expect("it answers");
    assert!(nothing.is_none(), "a look founds no lake");
    let (store, lake) = filled().await;
    let found = look(&store).await;
    assert_eq!((found.flaws.as_slice(), found.version, found.live.len(), found.unnamed), (&[][..], Some(7), 7, 0));
    assert_eq!(found.offsets, lake.offsets(table()).await.expect("offsets"));
    store.put(&place("part-left.parquet"), "x".into()).await.expect("written");
    assert_eq!(look(&store).await.unnamed, 1);
}

#[tokio::test]
async fn each_damage_of_the_log_is_told() {
    let (store, _) = filled().await;
    store.delete(&log_place(6)).await.expect("deleted");
    assert_eq!(look(&store).await.flaws, [Flaw::MissingCommit { path: log_place(6).to_string() }]);
    for bytes in ["", "{\"add\":", "{\"add\":{\"path\":7}}"] {
        store.put(&log_place(6), bytes.into()).await.expect("written");
        let flaws = look(&store).await.flaws;
        assert!(matches!(flaws.as_slice(), [Flaw::DamagedCommit { path, .. }] if *path == log_place(6).to_string()), "{flaws:?}");
    }
    let (store, _) = filled().await;
    let checkpoint = place(&format!("_delta_log/{:020}.checkpoint.parquet", 5));
    store.put(&checkpoint, "PAR1".into()).await.expect("written");
    let found = look(&store).await;
    assert!(matches!(found.flaws.as_slice(), [Flaw::DamagedCheckpoint { path, .. }] if *path == checkpoint.to_string()));
    assert_eq!(found.live.len(), 7, "the commits below are there, and read");
    store.delete(&checkpoint).await.expect("deleted");
    let flaws = look(&store).await.flaws;
    assert!(matches!(flaws.as_slice(), [Flaw::DamagedCheckpoint { reason, .. }] if reason.contains("version 5")), "{flaws:?}");
    store.put(&place("_delta_log/_last_checkpoint"), "{".into()).await.expect("written");
    assert_eq!(look(&store).await.flaws.len(), 1);
}

#[tokio::test]
async fn each_damage_of_a_file_is_told() {
    let (store, lake) = filled().await;
    let live = look(&store).await.live;
    let path = place(&live[2].path);
    let bytes = store.get(&path).await.expect("there").bytes().await.expect("bytes");
    let mut random = StdRng::seed_from_u64(9);
    for _ in 0..200 {
        let mut flipped = bytes.to_vec();
        let at = random.gen_range(0..flipped.len());
        flipped[at] ^= 1 << random.gen_range(0..8);
        store.put(&path, flipped.into()).await.expect("written");
        let error = lake.check_file(table(), &live[2]).await.expect_err("another file");
        assert!(error.to_string().contains("SHA-256"), "byte {at}: {error}");
        assert!(look(&store).await.flaws.is_empty(), "its size is the same");
    }
    store.put(&path, bytes.slice(1..).into()).await.expect("written");
    let written = bytes.len() as u64;
    assert_eq!(look(&store).await.flaws, [Flaw::WrongSize { path: path.to_string(), written, found: written - 1 }]);
    store.put(&path, bytes.into()).await.expect("written");
    assert_eq!(lake.file_rows(table(), &live[2]).await.expect("rows").iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    store.delete(&path).await.expect("deleted");
    assert_eq!(look(&store).await.flaws, [Flaw::MissingFile { path: path.to_string() }]);
    assert_eq!(lake.file_rows(table(), &live[2]).await.expect_err("gone").code(), "KIR-0306");
}

/// The gate before a start reads each log; opening what it looked at reads on from there.
#[tokio::test]
async fn what_was_looked_at_is_not_read_again() {
    const COMMITS: i64 = 30;
    let inner = Arc::new(InMemory::new());
    let before = lake_on(Arc::clone(&inner) as _).await;
    for at in 0..COMMITS {
        before.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    let store = Arc::new(FaultStore::new(Arc::clone(&inner), 1, Toxics::default()));
    let root = Url::parse("memory:///").expect("a url");
    let lake = Lake::look(Arc::clone(&store) as _, root, Arc::new(SystemClock)).await.expect("it answers").expect("a lake");
    lake.check_tables().await.expect("all fit");
    let looked = store.reads();
    // Meanwhile somebody else commits: it is read on from what was seen.
    before.commit(table(), commit(0, COMMITS, COMMITS + 1)).await.expect("a commit");
    let offsets = lake.offsets(table()).await.expect("offsets");
    assert_eq!(offsets, before.offsets(table()).await.expect("offsets"));
    let opened = store.reads() - looked;
    assert!(opened <= 3, "{opened} reads to open what was looked at with {looked}");
    let read = lake.lake_snapshot(table()).await.expect("a version").expect("a table");
    assert_eq!((read.files().await.expect("files"), read.rows().await.expect("rows")), (31, 31));
    // The library reads each commit twice by itself.
    let snapshot = store.reads() - looked - opened;
    assert!(snapshot <= 2 * COMMITS.unsigned_abs() + 12, "{snapshot} reads of the snapshot");
    lake.commit(table(), commit(0, COMMITS + 1, COMMITS + 2)).await.expect("it is written on");
    assert_eq!(before.offsets(table()).await.expect("offsets"), lake.offsets(table()).await.expect("offsets"));
}
