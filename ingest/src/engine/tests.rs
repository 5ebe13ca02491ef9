//! The engine in simulated worlds: the real committers on a store that fails, processes that die at named points, a log
//! that is shared, trimmed and recreated. A ledger of what was fed is the oracle; a world is a function of its seed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kiro_lake::Lake;
use kiro_ports::{Commit, Snapshot as _, SystemClock, TableSink as _, TableSource as _, Transaction, View};
use kiro_tables::Table;
use url::Url;

mod crash;
mod fold;
mod keeper;
mod lake;
mod ledger;
mod log;
mod persons;
mod store;
pub(super) mod time;
mod witness;
mod world;

use crash::CrashPoint;
pub(super) use lake::SimAnchors;

const WORLDS: u64 = 200;
/// Commits of one storm.
const COMMITS: u64 = 500;
/// Worlds whose lakes are kept.
const KEPT_WORLDS: u64 = 40;

/// Looks at each view before it is published.
pub(super) struct Watcher(Box<dyn Fn(&View) + Send + Sync>);

impl Watcher {
    pub(super) fn look(&self, view: &View) {
        (self.0)(view);
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// A number that the environment may say otherwise.
#[expect(clippy::disallowed_methods, reason = "a test that is asked for one seed, or for many")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

/// The seeds to live through: one, if the environment names it, to look into a failure; `make soak` asks for more.
fn seeds(worlds: u64) -> std::ops::Range<u64> {
    asked("KIRO_SIM_SEED").map_or_else(|| 0..asked("SOAK_COUNT").unwrap_or(worlds), |seed| seed..seed + 1)
}

/// Under faults of the store of every kind, each at one call in twenty: nothing is lost, nothing stands twice, and a store
/// that answers nothing is not asked without measure.
#[test]
fn hundreds_of_commits_outlive_a_store_that_fails_in_every_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut left, mut seed, mut faults, mut rows) = (asked("SOAK_COUNT").unwrap_or(COMMITS), 1_000, 0, 0);
    while left > 0 {
        let commits = left.min(COMMITS);
        let world = std::thread::scope(|scope| scope.spawn(|| world::storm(seed, folder.path(), commits)).join());
        let world = world.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (left, seed, faults, rows) = (left - commits, seed + 1, faults + world.faults, rows + world.rows);
    }
    println!("commits under faults: {faults} faults, {rows} rows, seeds from 1000 to {}", seed - 1);
    assert!(faults > 100, "the store was too kind");
}

/// Lives through worlds, two at a time.
fn live_all(worlds: u64, live: fn(u64, &std::path::Path) -> world::Told) -> Vec<world::Told> {
    let folder = tempfile::tempdir().expect("a folder");
    let seeds = seeds(worlds);
    let (next, told) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let live = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| seeds.contains(seed)) {
            let world = live(seed, folder.path());
            told.lock().expect("no world failed").push(world);
        }
    };
    std::thread::scope(|scope| {
        for worker in [scope.spawn(live), scope.spawn(live)] {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    told.into_inner().expect("no world failed")
}

#[test]
fn whatever_dies_nothing_is_lost_and_nothing_stands_twice() {
    let told = live_all(WORLDS, world::live);
    let mut struck = BTreeMap::<CrashPoint, u32>::new();
    for (point, count) in told.iter().flat_map(|world| &world.struck) {
        *struck.entry(*point).or_default() += count;
    }
    let sum = |of: fn(&world::Told) -> usize| told.iter().map(of).sum::<usize>();
    let (rows, views, repeats) = (sum(|w| w.rows), sum(|w| w.views), sum(|w| w.repeats));
    let (gaps, recreated) = (sum(|w| w.gaps), sum(|w| w.recreated));
    let faults: u64 = told.iter().map(|w| w.faults).sum();
    println!("{} worlds, {rows} rows, {views} views, {repeats} repeats, {faults} faults, {gaps} gaps, {recreated} recreated", told.len());
    println!("deaths: {struck:?}");
    let (named, forgotten) = told.iter().fold((0, 0), |sum, world| (sum.0 + world.persons.0, sum.1 + world.persons.1));
    println!("{named} rows name persons, {forgotten} were forgotten");
    if told.len() > 1 {
        let missed: Vec<_> = CrashPoint::ALL.iter().filter(|point| !struck.contains_key(point)).collect();
        assert!(missed.is_empty(), "nobody died at {missed:?}");
        assert!(faults > 100 && gaps > 10 && recreated > 5 && repeats > 100, "the worlds are too kind");
        assert!(named > 1_000 && forgotten > 20, "the worlds are too empty");
    }
}

/// Files are made one, versions thinned, logs cleaned, all beside the committers: the ledger does not see a difference.
#[test]
fn who_keeps_the_lake_disturbs_nobody() {
    let told = live_all(KEPT_WORLDS, world::live_kept);
    let (files, logs) = told.iter().map(|world| world.kept).fold((0, 0), |sum, kept| (sum.0 + kept.0, sum.1 + kept.1));
    let views: usize = told.iter().map(|world| world.views).sum();
    println!("{} worlds, {views} views, {files} files made one with others, {logs} files of logs cleaned away", told.len());
    assert!(files > 20 * told.len() && logs > 20 * told.len(), "the worlds were hardly kept");
}

/// The lake's own readers see what the witness sees, before a checkpoint and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_reads_what_the_witness_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    for (seed, is_kept) in [(3, false), (40, false), (3, true), (40, true)] {
        let live = if is_kept { world::live_kept } else { world::live };
        let lived = std::thread::scope(|scope| scope.spawn(|| live(seed, folder.path())).join());
        let world = lived.expect("it lives");
        for name in ["pipeline_runs_events", "task_runs_events", "dead_letters"] {
            let table = Table::find(name).expect("a table");
            let version = world.witness.read(table).expect("a version");
            for every in [1, i64::MAX] {
                let root = Url::parse("memory:///").expect("a url");
                let lake = Lake::open(Arc::clone(&world.store) as _, root, Arc::new(SystemClock)).await.expect("a lake");
                let rows = lake.scan(table, &[]).await.expect("rows");
                let mut places: Vec<witness::Row> = rows.iter().flat_map(witness::rows).collect();
                let mut seen = version.rows.to_vec();
                places.sort();
                seen.sort();
                assert_eq!(places, seen, "seed {seed}: {name}");
                assert_eq!(lake.offsets(table).await.expect("offsets"), *version.offsets(), "seed {seed}: {name}");
                let made = lake.checkpoint_when_due(table, every).await.expect("a checkpoint");
                // Who keeps the lake may have made one just before.
                assert!(made.is_some() == (every == 1) || is_kept, "seed {seed}: {name}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 0..8 {
        let live = || std::thread::scope(|scope| scope.spawn(|| world::live(seed, folder.path()).trace).join().expect("it lives"));
        let (first, second) = (live(), live());
        let other = first.iter().zip(&second).find(|(a, b)| a != b);
        assert!(other.is_none() && first.len() == second.len(), "seed {seed}: {other:?}, {} and {} lines", first.len(), second.len());
    }
}

/// A lake of an older program: of a table that it did not know nothing is missing, so nothing is read again for it.
#[tokio::test]
async fn a_new_table_begins_where_the_others_stand() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let open = || async {
        let root = Url::parse("memory:///").expect("a url");
        Arc::new(Lake::open(Arc::clone(&store) as _, root, Arc::new(SystemClock)).await.expect("a lake"))
    };
    let (lake, new) = (open().await, Table::find("metrics").expect("a table"));
    let app = "kiro/c/events/0";
    for table in ledger::event_tables().filter(|table| table.name != new.name) {
        let next = if table.name == "changes_events" { 5 } else { 7 };
        let transactions = vec![Transaction { app: app.to_owned(), start: 0, next }];
        lake.commit(table, Commit { rows: Vec::new(), transactions }).await.expect("a commit");
    }
    object_store::ObjectStoreExt::put(store.as_ref(), &"lake.json".into(), r#"{"format":1}"#.into()).await.expect("a file");
    let start = |lake: Arc<Lake>, commits_events| async move {
        let mut config = super::EngineConfig::new(vec!["events".to_owned()], "c", "quarantine");
        config.commits_events = commits_events;
        let telemetry = crate::telemetry::Telemetry::register(&prometheus::Registry::new()).expect("metrics");
        let shared = super::shared::Shared::open(&config, Vec::new(), (Arc::clone(&lake) as _, lake as _), telemetry).await.expect("open");
        shared.view().vector.next(&log::at(0))
    };
    assert_eq!(start(Arc::clone(&lake), false).await, 5, "who only reads");
    assert_eq!(lake.newcomers().await.expect("names").len(), 1, "has not written");
    assert_eq!(start(Arc::clone(&lake), true).await, 5, "who commits");
    assert_eq!(lake.offsets(new).await.expect("offsets").get(app), Some(&5));
    let again = open().await;
    assert!(again.newcomers().await.expect("names").is_empty());
    assert_eq!(start(again, true).await, 5, "after a restart");
}
