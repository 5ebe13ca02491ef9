//! Owners that follow each other, and versions beside each other, on one log and one lake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use kiro_ingest::decode::Decoder;
use kiro_ingest::engine::{Engine, EngineConfig, EngineError, EngineHandle, EnginePorts, EngineResult, EngineService, FoldPart};
use kiro_lake::{Compacted, Lake, Retention, local_store};
use kiro_log::{EmbeddedLog, EmbeddedOptions};
use kiro_ports::{Clock, EventLog, Folding, NewRecord, Snapshot as _, SystemClock, TableSource as _, Views as _};
use kiro_processors::{FoldConfig, Processors};
use kiro_schemas::Micros;
use kiro_tables::Table;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::run::NoFolds;
use kiro_store::{Store, StoreConfig};

const TOPIC: &str = "events";

struct World {
    dir: tempfile::TempDir,
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
}

type Running = (JoinHandle<EngineResult<()>>, CancellationToken);

impl World {
    async fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().expect("a folder"), Arc::new(SystemClock));
        let log = EmbeddedLog::open(&dir.path().join("log"), EmbeddedOptions::default(), clock.clone()).expect("a log");
        log.ensure_topic(TOPIC, 2).await.expect("a topic");
        Self { dir, log: Arc::new(log), clock }
    }

    async fn lake(&self, version: u32) -> Arc<Lake> {
        let dir = self.dir.path().join("lake");
        std::fs::create_dir_all(&dir).expect("a folder");
        let root = Url::from_directory_path(&dir).expect("absolute");
        let lake = Lake::open(local_store(&dir).expect("a store"), root, Arc::clone(&self.clock)).await.expect("a lake");
        Arc::new(lake.with_version(version, &folds().outputs()))
    }

    async fn engine(&self, config: EngineConfig, folding: Box<dyn Folding>) -> EngineResult<(EngineService, EngineHandle)> {
        let lake = self.lake(config.fold.version).await;
        let store = Store::open(StoreConfig::Sqlite(self.dir.path().join("control.sqlite"))).await.expect("a store");
        let ports = EnginePorts {
            log: Arc::clone(&self.log),
            sink: Arc::clone(&lake) as _,
            source: lake,
            folding,
            decoder: Arc::new(Decoder::new(Vec::new(), Vec::new())),
            anchors: Arc::new(store.clone()),
            persons: Arc::new(store),
            clock: Arc::clone(&self.clock),
            registry: Registry::new(),
        };
        Engine::start(config, ports).await
    }

    fn config(&self) -> EngineConfig {
        let config = EngineConfig::new(vec![TOPIC.to_owned()], "test", self.dir.path().join("quarantine"));
        EngineConfig { commit_interval: Duration::from_millis(50), ..config }
    }

    /// Log to lake.
    async fn ingest(&self) -> Running {
        let config = EngineConfig { commits_derived: false, ..self.config() };
        run(self.engine(config, Box::new(NoFolds)).await.expect("it starts").0)
    }

    /// An owner of the folds.
    async fn owner(&self, version: u32, epoch: i64) -> EngineResult<EngineService> {
        let fold = FoldPart { version, epoch, ..FoldPart::default() };
        let config = EngineConfig { commits_events: false, fold, ..self.config() };
        Ok(self.engine(config, Box::new(folds())).await?.0)
    }

    async fn append(&self, runs: std::ops::Range<usize>) {
        let record = |run: usize| {
            let value = format!(
                "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci/a\",\"subject_id\":\"{run}\",\
                 \"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}}}"
            );
            NewRecord { topic: TOPIC.to_owned(), key: Some(Bytes::from(run.to_string())), value: value.into(), headers: Vec::new() }
        };
        self.log.append(runs.map(record).collect()).await.expect("appended");
    }

    /// How often each run stands in the files with each revision.
    async fn runs(&self, version: u32) -> BTreeMap<(String, i64), usize> {
        let table = Table::find("pipeline_runs").expect("a table");
        let mut counts = BTreeMap::new();
        for batch in self.lake(version).await.scan(table, &["run_id", "_rev"]).await.expect("a scan") {
            let (runs, revs) = (batch.column(0).as_string_view(), batch.column(1).as_primitive::<Int64Type>());
            for (run, rev) in runs.iter().zip(revs.values()) {
                *counts.entry((run.expect("an id").to_owned(), *rev)).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Until ingest has committed so many events.
    async fn wait_for_events(&self, count: usize) {
        let table = Table::find("pipeline_runs_events").expect("a table");
        let all = async {
            while self.lake(1).await.scan(table, &["run_id"]).await.expect("a scan").iter().map(RecordBatch::num_rows).sum::<usize>()
                < count
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("the events come into the files");
    }

    async fn wait_for_runs(&self, version: u32, count: usize) {
        let all = async {
            while self.runs(version).await.len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), all).await;
        let runs = self.runs(version).await;
        assert!(in_time.is_ok(), "{count} runs do not come into the files of version {version}; there are {runs:?}");
        assert!(runs.len() == count && runs.iter().all(|((_, rev), n)| (*rev, *n) == (0, 1)), "{runs:?}");
    }
}

fn folds() -> Processors {
    Processors::new(FoldConfig::default()).expect("folds").0
}

fn run(engine: EngineService) -> Running {
    let stop = CancellationToken::new();
    (tokio::spawn(engine.run(stop.clone())), stop)
}

async fn end((task, stop): Running) -> EngineResult<()> {
    stop.cancel();
    ended(task).await
}

async fn ended(task: JoinHandle<EngineResult<()>>) -> EngineResult<()> {
    tokio::time::timeout(Duration::from_secs(30), task).await.expect("it ends").expect("it does not break")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_followed_is_fenced_and_nothing_stands_twice() {
    let world = World::new().await;
    let ingest = world.ingest().await;
    let (zombie, _stop) = run(world.owner(1, 1).await.expect("it starts"));
    world.append(0..20).await;
    world.wait_for_runs(1, 20).await;
    // The next owner has the tables before it runs: whatever the zombie still derives is refused.
    let next = world.owner(1, 2).await.expect("it takes over");
    world.append(20..40).await;
    assert!(matches!(ended(zombie).await, Err(EngineError::Fenced { .. })), "it ends as soon as it writes");
    world.wait_for_runs(1, 20).await;
    let next = run(next);
    world.wait_for_runs(1, 40).await;
    assert!(matches!(world.owner(1, 1).await, Err(EngineError::Fenced { epoch: 2, .. })), "an older epoch does not start");
    end(next).await.expect("it stops well");
    end(ingest).await.expect("it stops well");
    world.wait_for_runs(1, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_derived_beside_the_old_one() {
    let world = World::new().await;
    let ingest = world.ingest().await;
    let old = run(world.owner(1, 1).await.expect("it starts"));
    world.append(0..20).await;
    world.wait_for_runs(1, 20).await;
    world.wait_for_events(20).await;
    let new = run(world.owner(2, 1).await.expect("it starts"));
    world.wait_for_runs(2, 20).await;
    world.append(20..21).await;
    world.wait_for_runs(2, 21).await;
    world.wait_for_runs(1, 21).await;
    for engine in [old, new, ingest] {
        end(engine).await.expect("none is in the way of another");
    }
    let folders: Vec<_> = ["pipeline_runs", "pipeline_runs.v2", "pipeline_runs_events", "pipeline_runs_events.v2"]
        .into_iter()
        .filter(|folder| world.dir.path().join("lake/tables").join(folder).exists())
        .collect();
    assert_eq!(folders, ["pipeline_runs", "pipeline_runs.v2", "pipeline_runs_events"], "events have no versions");
}

/// Two days later, when the day of all that was recorded is over.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> Micros {
        SystemClock.now().plus(2 * 86_400_000_000)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_commits_follows_upkeep_while_the_log_is_silent() {
    let world = World::new().await;
    let config = EngineConfig { idle_commit_interval: Duration::from_millis(200), ..world.config() };
    let (engine, handle) = world.engine(config, Box::new(folds())).await.expect("it starts");
    let running = run(engine);
    for round in 1..4 {
        world.append((round - 1) * 10..round * 10).await;
        world.wait_for_runs(1, round * 10).await;
    }
    let dir = world.dir.path().join("lake");
    let root = Url::from_directory_path(&dir).expect("absolute");
    let keeper = Lake::open(local_store(&dir).expect("a store"), root, Arc::new(Later)).await.expect("a lake");
    for name in ["pipeline_runs", "pipeline_runs_events"] {
        let table = Table::find(name).expect("a table");
        while keeper.compact(table, Retention::new(Duration::ZERO)).await.expect("compaction") != Compacted::Idle {}
        assert_eq!(keeper.live_files(table).await.expect("files"), 1, "{name}");
        let newest = keeper.lake_snapshot(table).await.expect("an answer").expect("a table").version();
        let follows = async {
            while handle.view().tables[name].snapshot.as_ref().is_none_or(|shown| shown.version() < newest) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), follows).await.expect("it shows the files that are left");
    }
    world.append(30..40).await;
    world.wait_for_runs(1, 40).await;
    end(running).await.expect("it ends");
}
