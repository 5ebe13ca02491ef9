//! Upkeep beside everything: no row is lost, none stands twice, and no reader misses a file.

use std::sync::atomic::{AtomicI64, Ordering};

use kiro_ports::Clock;
use kiro_schemas::{Kind, Value};
use kiro_tables::Rows;

use super::*;
use crate::log::version_of;
use crate::{Compacted, Deleted, LEAST_RETENTION, Retention};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// The machine's time and more.
#[derive(Debug, Default)]
struct Later(AtomicI64);

impl Later {
    fn pass(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for Later {
    fn now(&self) -> Micros {
        SystemClock.now().plus(self.0.load(Ordering::SeqCst))
    }
}

fn kept() -> Retention {
    Retention::new(Duration::ZERO)
}

async fn lake_at(store: Arc<dyn ObjectStore>, clock: &Arc<Later>) -> Lake {
    let root = Url::parse("memory:///").expect("a url");
    Lake::open_with(store, root, Arc::clone(clock) as _, Duration::from_micros(10)).await.expect("a lake")
}

/// Compacts until nothing is left to do.
async fn compact(lake: &Lake, table: &'static Table) -> usize {
    for round in 0..100 {
        match lake.compact(table, kept()).await.expect("compaction") {
            Compacted::Done { files, bytes } => assert!(files > 0 && bytes > 0),
            Compacted::Overtaken => {}
            Compacted::Idle => return round,
        }
    }
    panic!("it does not end");
}

async fn files(store: &dyn ObjectStore, folder: &str) -> Vec<String> {
    let found = store.list_with_delimiter(Some(&Path::from(folder))).await.expect("a listing").objects;
    found.iter().filter_map(|file| file.location.filename().map(str::to_owned)).collect()
}

async fn data_files(store: &dyn ObjectStore) -> usize {
    files(store, &format!("tables/{}", table().name)).await.len()
}

/// Where the first partition stands, however often it has to be asked.
async fn stands_at_last(lake: &Lake) -> i64 {
    loop {
        if let Ok(offsets) = lake.offsets(table()).await {
            return offsets.get(&app(0)).copied().unwrap_or(0);
        }
    }
}

#[tokio::test]
async fn small_files_become_one_and_every_row_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(dir.path()).expect("a store");
    let lake = lake_on(Arc::clone(&store)).await;
    for at in 0..5 {
        for partition in 0..5 {
            lake.commit(table(), commit(partition, at * 4, at * 4 + 4)).await.expect("a commit");
        }
    }
    let before = lake.lake_snapshot(table()).await.expect("an answer").expect("a snapshot");
    assert_eq!(before.files().await.expect("files"), 25);
    let offsets = lake.offsets(table()).await.expect("offsets");
    assert!(compact(&lake, table()).await > 0);
    assert_eq!(lake.live_files(table()).await.expect("files"), 1);
    let (count, distinct) = places(&lake).await;
    assert_eq!((count, distinct.len()), (100, 100));
    let mut after = lake.offsets(table()).await.expect("offsets");
    assert_eq!(after.remove("kiro/maintenance"), Some(1));
    assert_eq!(after, offsets);
    // Rows lie by time, and the version before is still there for who reads it.
    let times = lake.scan(table(), &["time"]).await.expect("a scan");
    let times: Vec<i64> =
        times.iter().flat_map(|b| b.column(0).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values().to_vec()).collect();
    assert!(times.is_sorted());
    let context = datafusion::prelude::SessionContext::new();
    let old = context.read_table(before.provider().await.expect("a provider")).expect("a table");
    assert_eq!(old.count().await.expect("rows"), 100);
    assert!(matches!(lake.commit(table(), commit(0, 20, 21)).await.expect("a commit"), Committed::Done(_)));
    assert_eq!(compact(&lake, table()).await, 1);
    assert_eq!(places(&lake).await.0, 101);
    assert_eq!(lake.stored(table()).await.expect("an answer").expect("a table").files, 1);
}

#[tokio::test]
async fn of_two_compactors_from_one_snapshot_one_gives_way() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (first, second) = (lake_on(Arc::clone(&store)).await, lake_on(Arc::clone(&store)).await);
    for at in 0..10 {
        first.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    let survey = async |lake: &Lake| lake.table(table()).expect("a table").survey().await.expect("a state").expect("a table");
    let (ours, theirs) = (survey(&first).await, survey(&second).await);
    first.commit(table(), commit(0, 10, 11)).await.expect("an append beside");
    assert!(matches!(first.compact_from(table(), ours, kept()).await, Ok(Compacted::Done { files: 10, .. })));
    let before = data_files(store.as_ref()).await;
    assert_eq!(second.compact_from(table(), theirs, kept()).await.expect("an outcome"), Compacted::Overtaken);
    assert_eq!(data_files(store.as_ref()).await, before, "what it wrote in vain is gone");
    let (count, distinct) = places(&second).await;
    assert_eq!((count, distinct.len()), (11, 11));
    // Two that run freely.
    for at in 11..60 {
        first.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        let (a, b) = tokio::join!(first.compact(table(), kept()), second.compact(table(), kept()));
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    }
    let (count, distinct) = places(&second).await;
    assert_eq!((count, distinct.len()), (60, 60));
}

#[tokio::test]
async fn a_stale_append_stands_beside_compaction_and_a_crash_before_the_commit_leaves_only_a_file() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = Arc::new(Later::default());
    let (lake, behind) = (lake_at(Arc::clone(&store), &clock).await, lake_at(Arc::clone(&store), &clock).await);
    behind.commit(table(), commit(1, 0, 1)).await.expect("a commit");
    for at in 0..10 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    // It is killed when the new file is there and no commit names it.
    let open = lake.table(table()).expect("a table");
    let state = open.survey().await.expect("a state").expect("a table");
    let chosen: Vec<_> = state.files.live.values().cloned().collect();
    let inputs = open.read(&chosen).await.expect("files");
    drop(open.merge(inputs, &chosen, clock.now()).await.expect("a file"));
    assert_eq!(data_files(store.as_ref()).await, 12);
    assert_eq!(places(&lake).await.0, 11);
    assert_eq!(lake.vacuum(table(), kept()).await.expect("vacuum"), Deleted::default(), "it is young and may be committed yet");
    assert_eq!(compact(&lake, table()).await, 1);
    assert!(matches!(behind.commit(table(), commit(1, 1, 3)).await.expect("an outcome"), Committed::Done(_)));
    let (count, distinct) = places(&lake).await;
    assert_eq!((count, distinct.len()), (13, 13));
    clock.pass(2 * HOUR);
    // What it was made of, and what was left.
    assert_eq!(lake.vacuum(table(), kept()).await.expect("vacuum").files, 12);
    assert_eq!(places(&lake_at(store, &clock).await).await.0, 13);
}

/// Whoever sleeps between its file and its commit, for longer than vacuum waits, writes the file again.
#[tokio::test]
async fn a_commit_that_comes_late_has_its_file() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = Arc::new(Later::default());
    let (lake, other) = (lake_at(Arc::clone(&store), &clock).await, lake_at(Arc::clone(&store), &clock).await);
    for at in 0..10 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    let open = lake.table(table()).expect("a table");
    let state = open.survey().await.expect("a state").expect("a table");
    let chosen: Vec<_> = state.files.live.values().cloned().collect();
    let inputs = open.read(&chosen).await.expect("files");
    let written = open.merge(inputs, &chosen, clock.now()).await.expect("a file");
    clock.pass(2 * HOUR);
    assert_eq!(other.vacuum(table(), kept()).await.expect("vacuum").files, 1, "it is taken for what a killed process left");
    assert!(open.committer.rewrite(state.head, &chosen, Some(written), None).await.expect("an outcome"));
    let (count, distinct) = places(&other).await;
    assert_eq!((count, distinct.len(), other.live_files(table()).await.expect("files")), (10, 10, 1));
}

#[tokio::test]
async fn vacuum_takes_what_nobody_needs_and_goes_on_where_it_was_killed() {
    let inner = Arc::new(InMemory::new());
    let store = Arc::new(FaultStore::new(Arc::clone(&inner), 5, Toxics::default()));
    let clock = Arc::new(Later::default());
    let lake = lake_at(Arc::clone(&store) as _, &clock).await;
    for at in 0..30 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    // Files of others are none of our business.
    inner.put(&Path::from(format!("tables/{}/theirs.parquet", table().name)), "x".into()).await.expect("a file");
    let held = lake.lake_snapshot(table()).await.expect("an answer").expect("a snapshot");
    clock.pass(2 * HOUR);
    assert_eq!(lake.vacuum(table(), kept()).await.expect("vacuum"), Deleted::default(), "all of them are needed");
    compact(&lake, table()).await;
    clock.pass(HOUR / 2);
    assert_eq!(lake.vacuum(table(), kept()).await.expect("vacuum"), Deleted::default(), "a reader may hold the version before");
    let context = datafusion::prelude::SessionContext::new();
    assert_eq!(context.read_table(held.provider().await.expect("a provider")).expect("rows").count().await.expect("rows"), 30);
    clock.pass(HOUR);
    store.set(Toxics { before: 0.3, ..Toxics::default() });
    let killed = lake.vacuum(table(), kept()).await.expect_err("the store fails");
    assert_eq!(killed.to_string().split(' ').next(), Some("cannot"), "{killed}");
    store.set(Toxics::default());
    let left = lake.vacuum(table(), kept()).await.expect("vacuum").files;
    assert!((1..30).contains(&left), "{left} were left");
    assert_eq!(lake.vacuum(table(), kept()).await.expect("vacuum"), Deleted::default());
    assert_eq!((data_files(inner.as_ref()).await, places(&lake).await.0), (2, 30));
}

#[tokio::test]
async fn what_a_killed_process_left_half_written_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(Later::default());
    let root = Url::from_directory_path(dir.path()).expect("a url");
    let lake = Lake::open(local_store(dir.path()).expect("a store"), root, Arc::clone(&clock) as _).await.expect("a lake");
    lake.commit(table(), commit(0, 0, 5)).await.expect("a commit");
    let log = dir.path().join("tables").join(table().name).join("_delta_log");
    for left in
        [log.join("00000000000000000007.json#123"), log.join("../part-x.zstd.parquet#9"), dir.path().join("x#y"), dir.path().join("#")]
    {
        std::fs::write(left, "half").expect("a file");
    }
    assert_eq!(lake.sweep(kept()).await.expect("a sweep"), Deleted::default());
    clock.pass(2 * HOUR);
    assert_eq!(lake.sweep(kept()).await.expect("a sweep"), Deleted { files: 2, bytes: 8 });
    assert!(dir.path().join("x#y").exists() && dir.path().join("#").exists());
    assert_eq!(places(&lake).await.0, 5);
}

#[tokio::test]
async fn a_committer_whose_base_was_cleaned_away_loses_nothing() {
    for is_hint_old in [false, true] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (clock, asleep) = (Arc::new(Later::default()), Arc::new(Later::default()));
        let lake = lake_at(Arc::clone(&store), &clock).await;
        let zombie = lake_at(Arc::clone(&store), &asleep).await;
        lake.commit(table(), commit(0, 0, 1)).await.expect("a commit");
        zombie.commit(table(), commit(1, 0, 1)).await.expect("a commit");
        for at in 1..20 {
            lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        }
        compact(&lake, table()).await;
        lake.checkpoint(table()).await.expect("a checkpoint").expect("a version");
        let hint = Path::from(format!("tables/{}/_delta_log/_last_checkpoint", table().name));
        let first = store.get(&hint).await.expect("a hint").bytes().await.expect("bytes");
        for at in 20..30 {
            lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        }
        assert_eq!(lake.clean_log(table(), kept()).await.expect("cleaned"), Deleted::default(), "it is young");
        clock.pass(2 * HOUR);
        let newest = lake.checkpoint(table()).await.expect("a checkpoint").expect("a version");
        let cleaned = lake.clean_log(table(), kept()).await.expect("cleaned");
        assert_eq!(i64::try_from(cleaned.files).expect("few"), newest + 1, "all commits below, and the checkpoint between");
        if is_hint_old {
            // As if the checkpoint before had been slow to say that it is there; the zombie knows how long it slept.
            store.put(&hint, first.into()).await.expect("a hint");
            asleep.pass(2 * HOUR);
        }
        // It stands at version 2, and version 3 is free again.
        let path = Path::from(format!("tables/{}/_delta_log/{:020}.json", table().name, 3));
        assert!(store.head(&path).await.is_err());
        let outcome = zombie.commit(table(), commit(1, 1, 4)).await.expect("an outcome");
        assert_eq!(outcome, Committed::Done(newest + 1), "hint is old: {is_hint_old}");
        let stale = zombie.commit(table(), commit(0, 0, 1)).await.expect("an outcome");
        assert_eq!(stale, Committed::Fenced(vec![(app(0), 30)]));
        let fresh = lake_at(Arc::clone(&store), &clock).await;
        let (count, distinct) = places(&fresh).await;
        assert_eq!((count, distinct.len()), (34, 34));
        // What it left below the checkpoint is nothing to anybody, and goes with the next cleaning.
        clock.pass(2 * HOUR);
        lake.checkpoint(table()).await.expect("a checkpoint");
        lake.clean_log(table(), kept()).await.expect("cleaned");
        let log = files(store.as_ref(), &format!("tables/{}/_delta_log", table().name)).await;
        let below =
            log.iter().filter_map(|name| version_of(&Path::from(name.as_str())).map(|(version, _)| version)).filter(|v| *v <= newest);
        assert_eq!(below.count(), 0, "{log:?}");
        assert_eq!(places(&lake_at(store, &clock).await).await.0, 34);
    }
}

#[tokio::test]
async fn who_reads_on_from_below_a_cleaned_log_begins_anew() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = Arc::new(Later::default());
    let (lake, reader) = (lake_at(Arc::clone(&store), &clock).await, lake_at(Arc::clone(&store), &clock).await);
    lake.commit(table(), commit(0, 0, 1)).await.expect("a commit");
    assert_eq!(reader.live_files(table()).await.expect("files"), 1);
    assert_eq!(reader.compact(table(), kept()).await.expect("an outcome"), Compacted::Idle);
    for at in 1..10 {
        lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    lake.checkpoint(table()).await.expect("a checkpoint");
    clock.pass(2 * HOUR);
    assert!(lake.clean_log(table(), kept()).await.expect("cleaned").files > 9);
    assert_eq!((stands(&reader, 0).await, places(&reader).await.0), (10, 10));
    assert!(matches!(reader.compact(table(), kept()).await, Ok(Compacted::Done { files: 10, .. })));
    assert_eq!(places(&lake).await.0, 10);
}

/// Seeded commits, compactions, checkpoints, vacuums and cleanings over a store that fails often.
#[tokio::test]
async fn faults_of_upkeep_neither_lose_nor_repeat() {
    let (mut compacted, mut deleted) = (0, 0);
    for seed in 0..12 {
        let store = Arc::new(FaultStore::new(InMemory::new(), seed, Toxics::default()));
        let mut random = StdRng::seed_from_u64(seed);
        let lake = async || lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await.trusting(Duration::ZERO);
        let (mut writer, keepers) = (lake().await, [lake().await, lake().await]);
        store.set(Toxics { before: 0.04, after: 0.06, conflict: 0.04, ..Toxics::default() });
        let mut next = 0;
        for _ in 0..250 {
            let keeper = &keepers[random.gen_range(0..2)];
            match random.gen_range(0..20) {
                0 => drop(keeper.checkpoint(table()).await),
                1 => deleted += keeper.clean_log(table(), Retention::exactly(Duration::ZERO)).await.map_or(0, |gone| gone.files),
                2 => deleted += keeper.vacuum(table(), Retention::exactly(Duration::ZERO)).await.map_or(0, |gone| gone.files),
                3..8 => {
                    let outcome = keeper.compact(table(), kept()).await;
                    compacted += usize::from(matches!(outcome, Ok(Compacted::Done { .. })));
                }
                8 => writer = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await.trusting(Duration::ZERO),
                _ => {
                    let count = random.gen_range(1..4);
                    let outcome = writer.commit(table(), commit(0, next, next + count)).await;
                    if let Ok(Committed::Fenced(moved)) = &outcome {
                        panic!("seed {seed}: nobody else commits, and yet {moved:?}");
                    }
                    let stands = stands_at_last(&writer).await;
                    assert!(stands == next + count || (stands == next && outcome.is_err()), "seed {seed}: {outcome:?}, {stands}");
                    next = stands;
                }
            }
        }
        store.set(Toxics::default());
        assert!(store.injected() > 30, "the faults must have struck");
        let lake = lake().await;
        let (count, distinct) = places(&lake).await;
        assert_eq!((count, distinct), (usize::try_from(next).expect("few"), (0..next).map(|o| (0, o)).collect()), "seed {seed}");
    }
    assert!(compacted > 50 && deleted > 100, "{compacted} compactions, {deleted} deleted files");
}

fn versions(key: &str, revs: std::ops::Range<i64>, from: i64, step: i64) -> Vec<RecordBatch> {
    let table = Table::find("pipeline_health").expect("a table");
    revs.map(|rev| {
        let mut rows = Rows::new(table);
        let value = |name: &str, kind: Kind| match (name, kind) {
            ("pipeline", _) => Value::text(key.to_owned()),
            ("_rev", _) => Value::Int(rev),
            ("recorded_at", _) => Value::Time(Micros(from + rev * step)),
            (_, Kind::Text) => Value::text("-"),
            (_, Kind::Time) => Value::Time(Micros(from)),
            (_, Kind::Float) => Value::Float(0.5),
            _ => Value::Int(rev),
        };
        rows.push(&table.columns.iter().map(|c| value(c.name, c.kind)).collect::<Vec<_>>()).expect("a row");
        rows.finish().expect("rows")
    })
    .collect()
}

#[tokio::test]
async fn old_versions_are_thinned_and_young_ones_stay() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = Arc::new(Later::default());
    let lake = lake_at(Arc::clone(&store), &clock).await;
    let table = Table::find("pipeline_health").expect("a table");
    let now = clock.now().0.div_euclid(DAY) * DAY;
    // A version a minute for two hours, each in its own commit.
    for (at, rows) in (0..).zip(versions("a", 0..120, now - 2 * DAY, HOUR / 60).into_iter().chain(versions("b", 0..1, now - 2 * DAY, 0))) {
        let transactions = vec![Transaction { app: app(0), start: at, next: at + 1 }];
        lake.commit(table, Commit { rows: vec![rows], transactions }).await.expect("a commit");
    }
    compact(&lake, table).await;
    let revs = async |lake: &Lake| {
        let found = lake.scan(table, &["pipeline", "_rev", "runs"]).await.expect("a scan");
        let mut rows: Vec<(String, i64, i64)> = Vec::new();
        for batch in &found {
            let int = |at: usize| batch.column(at).as_primitive::<Int64Type>().clone();
            let (names, revs, runs) = (batch.column(0).as_string_view(), int(1), int(2));
            rows.extend((0..batch.num_rows()).map(|row| (names.value(row).to_owned(), revs.value(row), runs.value(row))));
        }
        rows.sort();
        rows
    };
    assert_eq!((revs(&lake).await.len(), lake.live_files(table).await.expect("files")), (121, 1));
    clock.pass(8 * DAY);
    assert_eq!(compact(&lake, table).await, 1);
    let own = |rev: i64, runs: i64| ("a".to_owned(), rev, runs);
    let other = ("b".to_owned(), 0, 0);
    assert_eq!(revs(&lake).await, [own(0, 59), own(1, 119), other.clone()], "one an hour, counted anew");
    clock.pass(90 * DAY);
    assert_eq!(compact(&lake, table).await, 1);
    assert_eq!(revs(&lake).await, [own(0, 119), other], "one a day");
    assert_eq!(compact(&lake, table).await, 0, "it is done");
}

/// What a log tells of files that are gone is bounded by what vacuum keeps, and said once.
#[tokio::test]
async fn checkpoints_forget_files_that_vacuum_has_taken() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = lake_on(Arc::clone(&store)).await;
    let at_once = Retention::exactly(Duration::ZERO);
    for round in 0..3 {
        for at in 0..4 {
            let at = round * 4 + at;
            lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        }
        assert!(matches!(lake.compact(table(), at_once).await, Ok(Compacted::Done { .. })));
    }
    let mut changes = 0;
    for version in 1..=15 {
        let path = Path::from(format!("tables/{}/_delta_log/{version:020}.json", table().name));
        let text = store.get(&path).await.expect("a commit").bytes().await.expect("bytes");
        changes += usize::from(String::from_utf8_lossy(&text).contains("deletedFileRetentionDuration"));
    }
    assert_eq!(changes, 1);
    lake.checkpoint(table()).await.expect("a checkpoint");
    let fresh = lake_on(Arc::clone(&store)).await;
    let state = fresh.table(table()).expect("a table").survey().await.expect("a state").expect("a table");
    assert_eq!((state.files.live.len(), state.files.removed.len()), (1, 0));
    assert_eq!(places(&fresh).await.0, 12);
    assert_eq!(LEAST_RETENTION, Duration::from_hours(1));
}

/// `PyArrow` and a hand-written replay of the log count what the lake counts.
#[tokio::test]
async fn a_reader_of_others_recounts_a_lake_that_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(dir.path()).expect("a store");
    let clock = Arc::new(Later::default());
    let lake = lake_at(Arc::clone(&store), &clock).await;
    for round in 0..3 {
        for at in 0..10 {
            let at = round * 10 + at;
            lake.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        }
        compact(&lake, table()).await;
        lake.checkpoint(table()).await.expect("a checkpoint");
        clock.pass(2 * HOUR);
        assert_eq!(lake.vacuum(table(), kept()).await.expect("vacuum").files, 10 + 2 * usize::from(round > 0));
        assert!(lake.clean_log(table(), kept()).await.expect("cleaned").files > 10);
        lake.commit(table(), commit(1, round, round + 1)).await.expect("a commit");
    }
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    let python = std::process::Command::new("bash").arg(scripts.join("python.sh")).output().expect("bash runs scripts/python.sh");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let python = String::from_utf8(python.stdout).expect("a path");
    let check = std::process::Command::new(python.trim()).arg(scripts.join("check_lake.py")).arg(dir.path()).arg("--dense").output();
    let check = check.expect("Python runs");
    let told = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && told.contains("2 files, rows 33, distinct (topic, partition, offset) 33"), "{told}");
}
