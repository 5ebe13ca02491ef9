//! Who keeps the lake of a world: compaction beside everything, by two who do not know of each other and are killed too, and
//! checkpoints with logs that are cleaned at once.

use std::sync::Arc;
use std::time::Duration;

use kiro_lake::{Compacted, Lake, Retention};
use kiro_ports::{Clock, SystemClock};
use kiro_schemas::Micros;
use kiro_tables::Table;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinHandle, spawn_local};
use url::Url;

use super::crash::{CrashPoint, Life, Trace};
use super::fold::output;
use super::ledger::event_tables;
use super::store::{CrashStore, Faulty};
use super::time::SimClock;
use super::witness::Witness;

/// Where a piece of compaction may die.
const POINTS: [CrashPoint; 4] = [CrashPoint::BeforeRows, CrashPoint::AfterRows, CrashPoint::BeforeCommit, CrashPoint::AfterCommit];
const DAY: i64 = 86_400_000_000;

pub(super) fn kept() -> Retention {
    Retention::exactly(Duration::ZERO)
}

/// A clock that is ahead of the world's: its days are over, or its versions old.
#[derive(Debug)]
struct Ahead(Arc<SimClock>, i64);

impl Clock for Ahead {
    fn now(&self) -> Micros {
        self.0.now().plus(self.1)
    }
}

pub(super) struct Keeper {
    pub(super) faults: Arc<Faulty>,
    pub(super) store: Arc<InMemory>,
    pub(super) witness: Arc<Witness>,
    pub(super) trace: Arc<Trace>,
    pub(super) clock: Arc<SimClock>,
    random: StdRng,
    ahead: i64,
    at_work: [Option<(Arc<Life>, JoinHandle<()>)>; 2],
    /// Files that were made one with others, and files of logs that were cleaned away.
    pub(super) counts: Arc<std::sync::Mutex<(usize, usize)>>,
}

impl Keeper {
    pub(super) fn new(
        seed: u64,
        (faults, store): (Arc<Faulty>, Arc<InMemory>),
        witness: Arc<Witness>,
        trace: Arc<Trace>,
        clock: Arc<SimClock>,
    ) -> Self {
        let ahead = if seed.is_multiple_of(4) { 100 * DAY } else { 2 * DAY };
        let random = StdRng::seed_from_u64(seed ^ 0x6b65_6570);
        Self { faults, store, witness, trace, clock, random, ahead, at_work: [None, None], counts: Arc::default() }
    }

    /// Does something, or nothing.
    pub(super) async fn step(&mut self) {
        for _ in 0..3 {
            match self.random.gen_range(0..10) {
                0..6 => self.begin().await,
                6 => self.clean(),
                7 => self.kill().await,
                _ => {}
            }
        }
    }

    /// Ends what is under way, and makes everything one.
    pub(super) async fn finish(&mut self) {
        for (life, task) in self.at_work.iter_mut().filter_map(Option::take) {
            life.spare();
            if life.is_dead() {
                task.abort();
            }
            drop(task.await);
        }
        for table in event_tables().chain([output()]) {
            let lake = lake(Arc::clone(&self.store) as _, Arc::new(Ahead(Arc::clone(&self.clock), self.ahead))).await;
            for _ in 0..1_000 {
                if lake.compact(table, kept()).await.expect("nothing fails any more") == Compacted::Idle {
                    break;
                }
            }
        }
        self.clean();
    }

    /// A piece of compaction begins; perhaps it is killed on the way.
    async fn begin(&mut self) {
        let Some(at) = self.at_work.iter().position(|slot| slot.as_ref().is_none_or(|(life, task)| task.is_finished() || life.is_dead()))
        else {
            return;
        };
        if let Some((_, task)) = self.at_work[at].take() {
            task.abort();
            drop(task.await);
        }
        let plan = self.random.gen_bool(0.3).then(|| (POINTS[self.random.gen_range(0..4)], 0));
        let life = Life::new(8 + at, Arc::clone(&self.trace), plan);
        let store = CrashStore::new(Arc::clone(&self.faults), Arc::clone(&life), self.random.r#gen());
        let clock = Arc::new(Ahead(Arc::clone(&self.clock), self.ahead));
        let tables: Vec<_> = event_tables().chain([output()]).collect();
        let table = tables[self.random.gen_range(0..tables.len())];
        let (trace, counts) = (Arc::clone(&self.trace), Arc::clone(&self.counts));
        let task = spawn_local(async move {
            let outcome = lake(Arc::new(store), clock).await.compact(table, kept()).await;
            if let Ok(Compacted::Done { files, .. }) = &outcome {
                counts.lock().expect("counts").0 += files;
            }
            trace.note(format_args!("keeper {at}: {} {:?}", table.name, outcome.map_err(|error| error.to_string())));
        });
        self.at_work[at] = Some((life, task));
    }

    async fn kill(&mut self) {
        let at = self.random.gen_range(0..2);
        if let Some((life, task)) = self.at_work[at].take() {
            life.end();
            task.abort();
            drop(task.await);
        }
    }

    /// Between two moments of the world: checkpoints of some tables, and their logs are cleaned up to these.
    fn clean(&mut self) {
        let tables: Vec<&'static Table> = event_tables().chain([output()]).filter(|_| self.random.gen_bool(0.5)).collect();
        // It reads all commits before they go.
        for table in &tables {
            drop(self.witness.read(table));
        }
        let store = Arc::clone(&self.store);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
            runtime.block_on(async {
                let (lake, mut cleaned) = (lake(store, Arc::new(SystemClock)).await, 0);
                for table in tables {
                    lake.checkpoint(table).await.expect("a checkpoint");
                    cleaned += lake.clean_log(table, kept()).await.expect("cleaned").files;
                }
                cleaned
            })
        };
        let cleaned = std::thread::scope(|scope| scope.spawn(work).join().expect("it is cleaned"));
        self.trace.note(format_args!("{cleaned} files of logs are cleaned away"));
        self.counts.lock().expect("counts").1 += cleaned;
    }
}

async fn lake(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Lake {
    let root = Url::parse("memory:///").expect("a url");
    let lake = loop {
        if let Ok(lake) = Lake::open_with(Arc::clone(&store), root.clone(), Arc::clone(&clock), Duration::ZERO).await {
            break lake;
        }
    };
    lake.without_checkpoints().trusting(Duration::ZERO)
}
