//! Writers, two who keep the table without knowing of each other, and readers that hold old versions, all at once and for a while.
//! `KIRO_UPKEEP_SECONDS` says for how long.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use kiro_ports::SystemClock;
use tokio::task::JoinSet;

use super::*;
use crate::{Compacted, Retention};

/// Rows of a commit, and of a day.
const ROWS: i64 = 20;
const DAY_ROWS: i64 = 2_000;
const DAY: i64 = 86_400_000_000;
/// The most files of a day that is over.
const MOST_FILES: usize = 16;

#[expect(clippy::disallowed_methods, reason = "a test that is asked to last longer")]
fn seconds() -> u64 {
    std::env::var("KIRO_UPKEEP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

#[expect(clippy::disallowed_methods, reason = "a test that measures")]
fn now() -> Instant {
    Instant::now()
}

/// Rows whose days are over: a day has so many of them.
fn batch(partition: i32, offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut collected = EventRows::default();
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", partition));
    let first = subject::spec(Subject::PipelineRun).transitions[0].transition;
    for offset in offsets {
        let time = Micros(offset * (DAY / DAY_ROWS));
        let event = Event::new(Subject::PipelineRun, first, "https://ci/a", format!("{partition}-{offset}"), time);
        collected.push(&event, Stamp { tenant: &tenant, recorded_at: time, at: &at, offset }).expect("a row");
    }
    collected.finish().expect("batches").pop().expect("one table").1
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    is_over: AtomicBool,
    committed: [AtomicI64; 2],
    compacted: AtomicU64,
    deleted: AtomicU64,
    read: AtomicU64,
    retention: Retention,
}

impl Shared {
    async fn lake(&self) -> Lake {
        let root = Url::parse("memory:///").expect("a url");
        Lake::open(Arc::clone(&self.store), root, Arc::new(SystemClock))
            .await
            .expect("a lake")
            .without_checkpoints()
            .trusting(Duration::ZERO)
    }

    async fn write(self: Arc<Self>, partition: i32) {
        let lake = self.lake().await;
        let mut next = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let transactions = vec![Transaction { app: app(partition), start: next, next: next + ROWS }];
            let commit = Commit { rows: vec![batch(partition, next..next + ROWS)], transactions };
            assert!(matches!(lake.commit(table(), commit).await.expect("a commit"), Committed::Done(_)));
            next += ROWS;
            self.committed[usize::try_from(partition).expect("small")].store(next, Ordering::SeqCst);
        }
    }

    async fn keep(self: Arc<Self>) {
        let lake = self.lake().await;
        while !self.is_over.load(Ordering::SeqCst) {
            lake.checkpoint_when_due(table(), 50).await.expect("a checkpoint");
            for _ in 0..8 {
                match lake.compact(table(), self.retention).await.expect("compaction") {
                    Compacted::Done { files, .. } => drop(self.compacted.fetch_add(files as u64, Ordering::SeqCst)),
                    Compacted::Overtaken => {}
                    Compacted::Idle => break,
                }
            }
            let data = lake.vacuum(table(), self.retention).await.expect("vacuum");
            let log = lake.clean_log(table(), self.retention).await.expect("cleaned");
            self.deleted.fetch_add((data.files + log.files) as u64, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    }

    /// Takes a version, waits until others have changed much, and reads it.
    async fn read(self: Arc<Self>, seed: u64) {
        let (lake, mut random) = (self.lake().await, StdRng::seed_from_u64(seed));
        while !self.is_over.load(Ordering::SeqCst) {
            let taken = now();
            let Some(snapshot) = lake.lake_snapshot(table()).await.expect("a version") else { continue };
            tokio::time::sleep(Duration::from_millis(random.gen_range(0..1_000))).await;
            let context = datafusion::prelude::SessionContext::new();
            let frame = context.read_table(snapshot.provider().await.expect("a provider")).expect("a table");
            let rows = frame.select_columns(&["_partition", "_offset"]).expect("columns").collect().await;
            // A machine so busy that a version was held for longer than files are kept tells nothing.
            if rows.is_err() && taken.elapsed() >= kept() {
                continue;
            }
            let rows = rows.expect("no file is missing");
            let mut places = HashSet::new();
            for batch in &rows {
                let (partitions, offsets) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
                for place in partitions.values().iter().zip(offsets.values()) {
                    assert!(places.insert((*place.0, *place.1)), "{place:?} stands twice");
                }
            }
            let contained: i64 = snapshot.offsets().iter().filter(|(app, _)| app.starts_with("kiro/test/")).map(|(_, next)| next).sum();
            assert_eq!(i64::try_from(places.len()).expect("few"), contained, "version {}", snapshot.version());
            self.read.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// How long files are kept that no version needs.
fn kept() -> Duration {
    Duration::from_secs((seconds() / 3).clamp(4, 20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_keepers_and_readers_of_old_versions() {
    let dir = tempfile::tempdir().expect("a folder");
    let seconds = seconds();
    let shared = Arc::new(Shared {
        store: local_store(dir.path()).expect("a store"),
        is_over: AtomicBool::new(false),
        committed: [const { AtomicI64::new(0) }; 2],
        compacted: AtomicU64::new(0),
        deleted: AtomicU64::new(0),
        read: AtomicU64::new(0),
        // Longer than a reader holds a version, and than a commit lasts.
        retention: Retention::exactly(kept()),
    });
    let mut tasks = JoinSet::new();
    for partition in 0..2 {
        tasks.spawn(Arc::clone(&shared).write(partition));
        tasks.spawn(Arc::clone(&shared).keep());
    }
    for seed in 0..4 {
        tasks.spawn(Arc::clone(&shared).read(seed));
    }
    let began = now();
    while began.elapsed() < Duration::from_secs(seconds) {
        // A task that ends has failed.
        if let Ok(Some(ended)) = tokio::time::timeout(Duration::from_millis(100), tasks.join_next()).await {
            shared.is_over.store(true, Ordering::SeqCst);
            ended.expect("no task fails");
        }
    }
    shared.is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
    let lake = shared.lake().await;
    while lake.compact(table(), shared.retention).await.expect("compaction") != Compacted::Idle {}
    let committed: i64 = shared.committed.iter().map(|next| next.load(Ordering::SeqCst)).sum();
    let (count, distinct) = places(&lake).await;
    assert_eq!((i64::try_from(count).expect("few"), i64::try_from(distinct.len()).expect("few")), (committed, committed));
    let state = lake.table(table()).expect("a table").survey().await.expect("a state").expect("a table");
    let mut days = std::collections::BTreeMap::<i64, usize>::new();
    for content in state.files.live.values().map(|file| file.content.expect("statistics")) {
        for day in content.from.0.div_euclid(DAY)..=content.to.0.div_euclid(DAY) {
            *days.entry(day).or_default() += 1;
        }
    }
    let most = days.values().max().copied().unwrap_or(0);
    let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
    println!(
        "{seconds} s: version {}, {count} rows, {} files of {} days (at most {most} a day), {} compacted, {} deleted, {} versions read",
        state.head.version,
        state.files.live.len(),
        days.len(),
        of(&shared.compacted),
        of(&shared.deleted),
        of(&shared.read)
    );
    assert!(most <= MOST_FILES, "{days:?}");
    assert!(of(&shared.compacted) > 50 && of(&shared.deleted) > 50 && of(&shared.read) > 8, "hardly anything was done");
}

/// What a start costs after many commits: before logs are cleaned, and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_loaded_fast_after_ten_thousand_commits() {
    const COMMITS: i64 = 10_000;
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(dir.path()).expect("a store");
    let root = Url::parse("memory:///").expect("a url");
    let open = async || Lake::open(Arc::clone(&store), root.clone(), Arc::new(SystemClock)).await.expect("a lake").without_checkpoints();
    let lake = open().await;
    let at_once = Retention::exactly(Duration::ZERO);
    for at in 0..COMMITS {
        let transactions = vec![Transaction { app: app(0), start: at, next: at + 1 }];
        // Most commits of most tables only move offsets.
        let rows = if at % 10 == 0 { vec![batch(0, at..at + 10)] } else { vec![] };
        lake.commit(table(), Commit { rows, transactions }).await.expect("a commit");
        if at % 200 == 199 {
            lake.checkpoint_when_due(table(), 50).await.expect("a checkpoint");
            while lake.compact(table(), at_once).await.expect("compaction") != Compacted::Idle {}
        }
    }
    let load = async || {
        let mut times = Vec::new();
        for _ in 0..7 {
            let (lake, began) = (open().await, now());
            let snapshot = lake.lake_snapshot(table()).await.expect("a version").expect("a table");
            assert_eq!((snapshot.rows().await.expect("rows"), snapshot.offsets().get(&app(0))), (10_000, Some(&COMMITS)));
            times.push(began.elapsed());
        }
        times.sort();
        times[3]
    };
    let whole = load().await;
    lake.checkpoint(table()).await.expect("a checkpoint");
    let cleaned = lake.clean_log(table(), at_once).await.expect("cleaned").files;
    let short = load().await;
    let files = lake.stored(table()).await.expect("an answer").expect("a table").files;
    println!("after {COMMITS} commits: {files} files, loaded in {whole:?} with the whole log, in {short:?} after cleaning {cleaned} files");
    assert!(files < 50 && cleaned > 10_000);
    assert!(short < Duration::from_secs(1) && whole < Duration::from_secs(2), "it was to be 200 ms on a machine that does nothing else");
}
