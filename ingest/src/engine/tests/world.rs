//! A world: a log, a lake, a clock, and processes that are killed and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use bytes::Bytes;
use kiro_lake::{FaultStore, Lake, Toxics};
use kiro_ports::{Headers, Snapshot as _, TableView, View};
use kiro_schemas::Event;
use kiro_tables::{Table, Trail};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::super::{Decode, Engine, EngineConfig, EnginePorts};
use super::Watcher;
use super::crash::{CrashPoint, Life, Trace};
use super::fold::{CountFold, counts, output};
use super::keeper::Keeper;
use super::lake::{SimAnchors, SimSink, SimSource};
use super::ledger::{Fed, Ledger, event_tables};
use super::log::{MemberLog, SimLog, TOPIC, at};
use super::persons::{MemberPersons, SimPersons};
use super::store::{CrashStore, Faulty};
use super::time::{self, SimClock, sleep};
use super::witness::{Version, Witness, rows};

const PARTITIONS: i32 = 3;
const STEPS: u32 = 40;
/// Events are of so many runs, and each so many-th of them lies in the future for a while.
const RUNS: u32 = 13;
const FUTURE: u32 = 11;
const CLUSTER: &str = "sim";
/// Events are of so many persons.
const PERSONS: u32 = 17;
/// How long a store answers nothing, and how often it may be asked meanwhile, by all tables of a process together.
const STALL_SECONDS: u64 = 120;
const MOST_CALLS_A_SECOND: u64 = 60;

/// What a world tells when it has ended well.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) trace: Vec<String>,
    pub(super) struck: BTreeMap<CrashPoint, u32>,
    pub(super) views: usize,
    pub(super) rows: usize,
    pub(super) repeats: usize,
    pub(super) faults: u64,
    pub(super) gaps: usize,
    pub(super) recreated: usize,
    /// Files that compaction took out, and files of logs that were cleaned away.
    pub(super) kept: (usize, usize),
    /// Rows that name persons, and persons that were forgotten.
    pub(super) persons: (usize, i64),
    pub(super) store: Arc<InMemory>,
    pub(super) witness: Arc<Witness>,
}

/// Lives through the world of a seed. Panics with the seed where something is wrong.
pub(super) fn live(seed: u64, folder: &Path) -> Told {
    live_with(seed, folder, (false, None))
}

/// The same world, with somebody who keeps its lake.
pub(super) fn live_kept(seed: u64, folder: &Path) -> Told {
    live_with(seed, folder, (true, None))
}

/// The same while everything that can be wrong with a store is, until there are so many commits.
pub(super) fn storm(seed: u64, folder: &Path, commits: u64) -> Told {
    live_with(seed, folder, (false, Some(commits)))
}

fn live_with(seed: u64, folder: &Path, (is_kept, commits): (bool, Option<u64>)) -> Told {
    time::begin();
    let trace = Arc::new(Trace::default());
    let runtime = tokio::runtime::Builder::new_current_thread().on_thread_park(time::advance).build().expect("a runtime");
    let world = World { storm: commits, ..World::new(seed, folder, Arc::clone(&trace), is_kept) };
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| LocalSet::new().block_on(&runtime, world.live())));
    let problem = match lived {
        Ok(Ok(told)) => return told,
        Ok(Err(problem)) => problem,
        Err(panic) => panic.downcast_ref::<String>().map_or_else(|| "a panic, see above".to_owned(), Clone::clone),
    };
    let lines = trace.lines();
    let last = lines[lines.len().saturating_sub(25)..].join("\n");
    panic!("seed {seed}: {problem}\n{last}");
}

/// What the processes of a world share.
struct Shared {
    clock: Arc<SimClock>,
    log: Arc<SimLog>,
    faults: Arc<Faulty>,
    store: Arc<InMemory>,
    witness: Arc<Witness>,
    ledger: Mutex<Ledger>,
    trace: Arc<Trace>,
    /// What was found wrong with a view.
    problem: Mutex<Option<String>>,
    views: Mutex<usize>,
    quarantine: PathBuf,
    is_kept: bool,
    /// Retention took records, or a topic was made anew: what was derived of a partition that is stopped then stays as it is.
    is_disturbed: AtomicBool,
    anchors: Arc<SimAnchors>,
    persons: Arc<SimPersons>,
}

struct Process {
    life: Arc<Life>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Commits events, and what is derived from them if it is alone.
    Member,
    /// Commits what is derived, where members commit events.
    Owner,
    /// Commits nothing and answers.
    Reader,
}

struct World {
    seed: u64,
    random: StdRng,
    shared: Arc<Shared>,
    /// The members come first, the reader last.
    processes: Vec<Option<Process>>,
    members: usize,
    count: u32,
    births: u64,
    trimmed: BTreeSet<i32>,
    recreated: BTreeSet<i32>,
    /// In a storm: until how many commits it lasts.
    storm: Option<u64>,
    keeper: Option<Keeper>,
}

struct SimDecoder {
    decoder: crate::decode::Decoder,
    life: Arc<Life>,
    was_poison: Mutex<bool>,
}

impl Decode for SimDecoder {
    fn headers_read(&self, headers: &Headers) -> Headers {
        self.decoder.headers_read(headers)
    }

    /// One event a line.
    fn decode<'a>(&self, topic: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, String> {
        self.life.strike(CrashPoint::Decode);
        let mut was_poison = self.was_poison.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *was_poison) {
            self.life.strike(CrashPoint::LetterKept);
        }
        let mut events = Vec::new();
        for line in bytes.split(|b| *b == b'\n') {
            let decoded = self.decoder.decode(topic, headers, line).map_err(|error| error.to_string());
            *was_poison = decoded.is_err();
            events.extend(decoded?);
        }
        Ok(events)
    }
}

impl World {
    fn new(seed: u64, folder: &Path, trace: Arc<Trace>, is_kept: bool) -> Self {
        let clock = Arc::new(SimClock::default());
        let store = Arc::new(InMemory::new());
        let members = 1 + usize::from(seed % 2 == 1);
        let shared = Shared {
            log: Arc::new(SimLog::new(PARTITIONS, Arc::clone(&clock))),
            clock,
            faults: Arc::new(FaultStore::new(Arc::clone(&store), seed, Toxics::default())),
            witness: Arc::new(Witness::new(Arc::clone(&store))),
            store,
            ledger: Mutex::new(Ledger::new(members > 1)),
            trace,
            problem: Mutex::default(),
            views: Mutex::default(),
            quarantine: folder.join(seed.to_string()),
            is_kept,
            is_disturbed: AtomicBool::new(false),
            anchors: Arc::default(),
            persons: Arc::default(),
        };
        let stores = (Arc::clone(&shared.faults), Arc::clone(&shared.store));
        let keeper = || Keeper::new(seed, stores, Arc::clone(&shared.witness), Arc::clone(&shared.trace), Arc::clone(&shared.clock));
        Self {
            keeper: is_kept.then(keeper),
            seed,
            random: StdRng::seed_from_u64(seed),
            shared: Arc::new(shared),
            processes: (0..members + 1 + usize::from(members > 1)).map(|_| None).collect(),
            members,
            count: 0,
            births: 0,
            trimmed: BTreeSet::new(),
            recreated: BTreeSet::new(),
            storm: None,
        }
    }

    async fn live(mut self) -> Result<Told, String> {
        for partition in 0..PARTITIONS {
            self.shared.log.give(partition, Some(usize::try_from(partition).expect("small") % self.members));
        }
        for step in 0.. {
            if self.storm.map_or(step >= STEPS, |commits| self.commits() >= commits) {
                break;
            }
            self.raise(true).await;
            if self.storm.is_some() {
                self.rage(step).await;
            } else {
                self.step(step).await;
            }
            if let Some(keeper) = &mut self.keeper {
                keeper.step().await;
            }
            self.wait_up_to(200).await;
            self.complain()?;
        }
        if self.disk_is_full() {
            self.turn_disk(true);
        }
        if self.storm.is_some() {
            self.stall().await?;
        }
        self.settle().await?;
        if let Some(keeper) = &mut self.keeper {
            keeper.finish().await;
        }
        self.examine()
    }

    fn complain(&self) -> Result<(), String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    async fn wait_up_to(&mut self, millis: u64) {
        sleep(Duration::from_millis(self.random.gen_range(1..=millis))).await;
    }

    /// Buries the dead and starts new processes in their place.
    async fn raise(&mut self, may_die: bool) {
        for member in 0..self.processes.len() {
            if let Some(process) = self.processes[member].take_if(|p| p.life.is_dead() || p.task.is_finished()) {
                process.life.end();
                process.task.abort();
                drop(process.task.await);
                self.wait_up_to(60).await;
            }
            if self.processes[member].is_none() {
                let plan = if may_die { self.plan() } else { None };
                self.start(member, plan);
            }
        }
    }

    /// The first life of a world ends at the point of its seed, the others at any or none.
    fn plan(&mut self) -> Option<(CrashPoint, u32)> {
        let all = CrashPoint::ALL;
        if self.births == 0 {
            let at = usize::try_from(self.seed).expect("small") % all.len();
            return Some((all[at], self.random.gen_range(0..2)));
        }
        if self.is_gappy() && self.random.gen_bool(0.4) {
            return Some((CrashPoint::AfterGap, 0));
        }
        let point = all[self.random.gen_range(0..all.len())];
        self.random.gen_bool(0.7).then(|| (point, self.random.gen_range(0..8)))
    }

    /// Whether retention takes what nobody has read.
    const fn is_gappy(&self) -> bool {
        self.seed.is_multiple_of(5)
    }

    fn start(&mut self, member: usize, plan: Option<(CrashPoint, u32)>) {
        self.births += 1;
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.births);
        let life = Life::new(member, Arc::clone(&self.shared.trace), plan);
        self.shared.trace.note(format_args!("member {member} starts, to die at {plan:?}"));
        let stop = CancellationToken::new();
        let part = match member {
            at if at < self.members => Part::Member,
            at if at + 1 == self.processes.len() => Part::Reader,
            _ => Part::Owner,
        };
        let birth = Birth { seed, part, is_alone: self.members == 1, epoch: i64::try_from(self.births).expect("few") };
        let process = run(Arc::clone(&self.shared), Arc::clone(&life), stop.clone(), birth);
        let (trace, ended) = (Arc::clone(&self.shared.trace), Arc::clone(&life));
        let task = spawn_local(async move {
            let outcome = process.await;
            trace.note(format_args!("member {member} ends: {outcome:?}"));
            ended.end();
        });
        self.processes[member] = Some(Process { life, stop, task });
    }

    async fn step(&mut self, step: u32) {
        match self.random.gen_range(0..100) {
            0..60 => self.feed(),
            60..70 if self.members > 1 => self.rebalance(),
            70..78 => self.shared.faults.set(Toxics { before: 0.05, after: 0.08, conflict: 0.05, ..Toxics::default() }),
            78..84 => self.shared.faults.set(Toxics::default()),
            84..88 => self.shared.clock.set_ahead(self.random.gen_range(-3_600..3_600) * 1_000_000),
            88..94 => self.restart().await,
            94..96 if !self.is_gappy() => self.forget(),
            94..97 if self.is_gappy() && step > STEPS / 3 => self.trim(),
            97..99 => self.turn_disk(self.disk_is_full()),
            _ => self.wait_up_to(1_500).await,
        }
    }

    /// Where dead letters are kept while they cannot be kept where they should.
    fn quarantine_aside(&self) -> PathBuf {
        self.shared.quarantine.with_extension("aside")
    }

    fn disk_is_full(&self) -> bool {
        self.shared.quarantine.is_file()
    }

    /// No dead letter can be kept any more, or all can again. Who has one waits with everything, and partitions come and go
    /// meanwhile.
    fn turn_disk(&self, is_on: bool) {
        let (place, aside) = (&self.shared.quarantine, self.quarantine_aside());
        self.shared.trace.note(format_args!("dead letters can be kept: {is_on}"));
        if is_on {
            std::fs::remove_file(place).expect("the file in its place");
        }
        if (if is_on { &aside } else { place }).exists() {
            if is_on { std::fs::rename(&aside, place) } else { std::fs::rename(place, &aside) }.expect("a folder");
        }
        if !is_on {
            std::fs::write(place, "full").expect("a file in its place");
        }
    }

    /// How many commits all tables have.
    fn commits(&self) -> u64 {
        let version = |table: &'static Table| self.shared.witness.read(table).map_or(0, |v| v.version());
        Table::all().iter().map(|table| u64::try_from(version(table)).unwrap_or(0)).sum()
    }

    /// A step in a storm: each toxic strikes one call in twenty.
    async fn rage(&mut self, step: u32) {
        if step == 0 {
            let (before, after, conflict, reset, stale) = (0.05, 0.05, 0.05, 0.05, 0.05);
            self.shared.faults.set(Toxics { before, after, conflict, reset, stale, ..Toxics::default() });
        }
        match self.random.gen_range(0..100) {
            0..85 => self.feed(),
            85..93 if self.members > 1 => self.rebalance(),
            93..95 => self.restart().await,
            95..97 => self.turn_disk(self.disk_is_full()),
            // A store that is slow: what was asked comes long after.
            _ => sleep(Duration::from_secs(2)).await,
        }
    }

    /// The store answers nothing for some minutes: it is asked again and again, but not without measure, and the alarm of
    /// commits that fail goes off, which needs four in ten minutes.
    async fn stall(&mut self) -> Result<(), String> {
        self.raise(false).await;
        self.processes.iter().flatten().for_each(|p| p.life.spare());
        sleep(Duration::from_secs(5)).await;
        self.shared.faults.set(Toxics { before: 1.0, ..Toxics::default() });
        let (calls, lines) = (self.shared.faults.injected(), self.shared.trace.lines().len());
        for _ in 0..STALL_SECONDS {
            self.feed();
            sleep(Duration::from_secs(1)).await;
        }
        let calls = self.shared.faults.injected() - calls;
        let failed = self.shared.trace.lines()[lines..].iter().filter(|line| line.contains("Err(")).count();
        let most = STALL_SECONDS * MOST_CALLS_A_SECOND * self.processes.len() as u64;
        if failed < 4 || calls > most {
            return Err(format!("in a stall of {STALL_SECONDS} s {failed} commits failed, with {calls} calls of at most {most}"));
        }
        Ok(())
    }

    /// Appends a few records.
    fn feed(&mut self) {
        for _ in 0..self.random.gen_range(1..8) {
            let partition = self.random.gen_range(0..PARTITIONS);
            if self.recreated.contains(&partition) {
                continue;
            }
            let (fed, value) = self.record();
            let offset = self.shared.log.append(partition, value, fed == Fed::LeftOut);
            self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).feed(partition, offset, fed);
        }
    }

    fn record(&mut self) -> (Fed, Option<Bytes>) {
        match self.random.gen_range(0..20) {
            0 => return (Fed::Poison, None),
            1 => return (Fed::Poison, Some(Bytes::from_static(b"{\"subject\":"))),
            2 => return (Fed::LeftOut, None),
            _ => {}
        }
        let (mut events, mut lines) = (BTreeMap::new(), Vec::new());
        let more = self.random.gen_range(0..8) / 6;
        for _ in 0..=more {
            self.count += 1;
            // Some events come again.
            let number = if self.random.gen_bool(0.12) { self.random.gen_range(1..=self.count) } else { self.count };
            let (subject, transition, table) = match number % 6 {
                0 | 3 => ("task_run", "started", "task_runs_events"),
                1 => ("audit_entry", "recorded", "audit_log"),
                _ => ("pipeline_run", "started", "pipeline_runs_events"),
            };
            // Some lie in the future for a while.
            let minute = if number.is_multiple_of(FUTURE) { "2026-05-28T20:36:00Z" } else { "2026-05-28T10:00:00Z" };
            let person = match subject {
                "pipeline_run" => format!(",\"fields\":{{\"actor\":\"{}\"}}", person(number)),
                "task_run" => format!(",\"attributes\":{{\"requested_by\":\"{}\"}}", person(number)),
                _ => String::new(),
            };
            lines.push(format!(
                "{{\"subject\":\"{subject}\",\"transition\":\"{transition}\",\"id\":\"e{number}\",\"source\":\"https://ci/a\",\
                 \"subject_id\":\"r{}\",\"time\":\"{minute}\"{person}}}",
                number % RUNS
            ));
            events.insert(format!("e{number}"), table);
        }
        let events = events.into_iter().map(|(id, table)| (table, id)).collect();
        (Fed::Events(events), Some(Bytes::from(lines.join("\n"))))
    }

    /// Forgets somebody, whoever still remembers the pseudonym.
    fn forget(&mut self) {
        if let Some(name) = self.shared.persons.forget_one(self.random.gen_range(0..100)) {
            self.shared.trace.note(format_args!("{name} is forgotten"));
        }
    }

    /// Gives each partition to somebody, or to nobody for a while.
    fn rebalance(&mut self) {
        for partition in 0..PARTITIONS {
            let member = self.random.gen_range(0..=self.members);
            let is_nobodys = member == self.members;
            self.shared.log.give(partition, if is_nobodys { None } else { Some(member) });
        }
        self.shared.trace.note(format_args!("owners are {:?}", self.shared.log.owners()));
    }

    /// A process is told to end, and may die on the way.
    async fn restart(&mut self) {
        let member = self.random.gen_range(0..self.processes.len());
        if let Some(process) = &self.processes[member] {
            self.shared.trace.note(format_args!("member {member} is told to stop"));
            process.stop.cancel();
        }
        self.wait_up_to(400).await;
    }

    /// Retention takes records, perhaps some that nobody has read.
    fn trim(&mut self) {
        let partition = self.random.gen_range(0..PARTITIONS);
        let marks = self.shared.log.marks(partition);
        if self.recreated.contains(&partition) || marks.high == 0 {
            return;
        }
        let low = marks.high - self.random.gen_range(0..marks.high.min(3));
        self.shared.trace.note(format_args!("retention takes partition {partition} up to {low}"));
        self.shared.is_disturbed.store(true, Ordering::Relaxed);
        self.shared.log.trim(partition, low);
        self.trimmed.insert(partition);
        if self.stands(partition).is_none() {
            self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).excuse(partition, low);
        }
    }

    /// Where all tables stand that hold events; `None` when no table has heard of the partition.
    fn stands(&self, partition: i32) -> Option<(i64, i64)> {
        let app = format!("kiro/{CLUSTER}/{TOPIC}/{partition}");
        let all: Vec<Option<i64>> = event_tables().map(|table| self.shared.witness.stands(table, &app)).collect();
        let seen = all.iter().flatten().max()?;
        Some((all.iter().map(|s| s.unwrap_or(0)).min()?, *seen))
    }

    fn gaps(&self, partition: i32) -> Vec<i64> {
        let table = Table::find("ingest_gaps").expect("a table");
        let rows = self.shared.witness.read(table).map_or_else(Arc::default, |v| Arc::clone(&v.rows));
        rows.iter().filter(|row| row.0 == partition).map(|row| row.1).collect()
    }

    /// No more faults and no more deaths: all of the log comes into the lake.
    async fn settle(&mut self) -> Result<(), String> {
        self.shared.faults.set(Toxics::default());
        self.shared.clock.set_ahead(7_200_000_000);
        self.processes.iter().flatten().for_each(|p| p.life.spare());
        for partition in 0..PARTITIONS {
            self.shared.log.give(partition, Some(self.random.gen_range(0..self.members)));
        }
        if self.seed % 7 == 3 {
            self.recreate().await?;
        }
        for _ in 0..600 {
            self.raise(false).await;
            sleep(Duration::from_millis(100)).await;
            self.complain()?;
            if (0..PARTITIONS).all(|p| self.is_settled(p)) {
                break;
            }
        }
        // What was held back is folded, too, as soon as all live for a while.
        let mut calm = 0;
        while calm < 10 {
            self.raise(false).await;
            sleep(Duration::from_millis(100)).await;
            let all_live = self.processes.iter().flatten().all(|p| !p.task.is_finished());
            calm = if all_live { calm + 1 } else { 0 };
        }
        for process in self.processes.iter().flatten() {
            process.stop.cancel();
        }
        for _ in 0..600 {
            sleep(Duration::from_millis(100)).await;
            if self.processes.iter().flatten().all(|p| p.task.is_finished()) {
                return self.complain();
            }
        }
        Err("the processes do not end".to_owned())
    }

    fn is_settled(&self, partition: i32) -> bool {
        let end = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).end(partition);
        let is_through = !self.recreated.contains(&partition) && self.stands(partition).is_some_and(|(low, _)| low >= end);
        is_through || self.gaps(partition).iter().any(|gap| Some(*gap) == self.stands(partition).map(|(low, _)| low))
    }

    /// All tables take in a partition; then its topic is made anew, with more records, while nobody reads.
    async fn recreate(&mut self) -> Result<(), String> {
        for _ in 0..600 {
            self.raise(false).await;
            sleep(Duration::from_millis(100)).await;
            if (0..PARTITIONS).all(|p| self.is_settled(p)) {
                break;
            }
        }
        for process in self.processes.iter().flatten() {
            process.stop.cancel();
        }
        for _ in 0..600 {
            if self.processes.iter().flatten().all(|p| p.task.is_finished()) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.complain()?;
        let partition = self.random.gen_range(0..PARTITIONS);
        if let Some((next, _)) = self.stands(partition).filter(|(next, _)| *next > 0 && self.gaps(partition).is_empty()) {
            // Beyond the offset, at it, or short of it.
            let count = next + self.random.gen_range(-1..3);
            self.shared.trace.note(format_args!("partition {partition} is made anew with {count} records, {next} were read"));
            self.shared.is_disturbed.store(true, Ordering::Relaxed);
            self.shared.log.recreate(partition, count);
            if count != next {
                self.recreated.insert(partition);
            }
        }
        Ok(())
    }

    /// The lake against the ledger.
    fn examine(self) -> Result<Told, String> {
        let ledger = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stands = BTreeMap::new();
        let mut gaps = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = self.stands(partition).unwrap_or_default();
            let found = self.gaps(partition);
            gaps += found.len();
            let distinct: BTreeSet<_> = found.iter().collect();
            let is_stopped = !found.is_empty();
            // Where it is stopped, some tables may have what the others cannot read any more.
            if low != high && !is_stopped {
                return Err(format!("tables stand between {low} and {high} in partition {partition}"));
            }
            if distinct.len() != found.len() {
                return Err(format!("gaps of partition {partition} stand twice: {found:?}"));
            }
            if is_stopped && !self.trimmed.contains(&partition) && !self.recreated.contains(&partition) {
                return Err(format!("partition {partition} has gaps {found:?} for no reason"));
            }
            if self.recreated.contains(&partition) && !is_stopped {
                return Err(format!("nobody noticed that partition {partition} was made anew"));
            }
            if !is_stopped && low != ledger.end(partition) {
                return Err(format!("partition {partition} stands at {low}, the log ends at {}", ledger.end(partition)));
            }
            stands.insert(partition, (low, high));
        }
        ledger.check_lake(&self.shared.witness, &stands)?;
        self.check_chain()?;
        let named = self.check_persons()?;
        // Who derives may have stopped where members went on.
        if self.members == 1 || !self.shared.is_disturbed.load(Ordering::Relaxed) {
            self.check_fold()?;
        }
        let rows = event_tables().filter_map(|t| self.shared.witness.read(t)).map(|v| v.rows.len()).sum();
        let views = *self.shared.views.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Told {
            trace: self.shared.trace.lines(),
            struck: self.shared.trace.struck(),
            views,
            rows,
            repeats: ledger.repeats().len(),
            faults: self.shared.faults.injected(),
            gaps,
            recreated: self.recreated.len(),
            persons: (named, self.shared.persons.forgotten()),
            kept: self.keeper.as_ref().map_or((0, 0), |keeper| *keeper.counts.lock().unwrap_or_else(PoisonError::into_inner)),
            store: Arc::clone(&self.shared.store),
            witness: Arc::clone(&self.shared.witness),
        })
    }

    /// No row of the lake tells a name, and each tells whom its event told; how many rows tell somebody.
    fn check_persons(&self) -> Result<usize, String> {
        let tables = ["pipeline_runs_events", "task_runs_events"].map(|name| Table::find(name).expect("a table"));
        let versions: Vec<_> = tables.iter().filter_map(|table| self.shared.witness.read(table)).collect();
        let number = |id: &str| id.trim_start_matches('e').parse::<u32>().unwrap_or(0);
        self.shared.persons.check(versions.iter().flat_map(|version| &version.batches), |id| person(number(id)))
    }

    /// The chain of the audit log holds, and so does what was remembered of its end.
    fn check_chain(&self) -> Result<(), String> {
        let mut trail = Trail::default();
        for batch in &self.shared.witness.read(Table::find("audit_log").expect("a table")).map(|v| v.batches.clone()).unwrap_or_default() {
            trail.add(batch).map_err(|e| e.to_string())?;
        }
        let anchors = self.shared.anchors.0.lock().unwrap_or_else(PoisonError::into_inner);
        for report in trail.verify(&anchors) {
            if !report.breaks.is_empty() || report.unchained > 0 {
                return Err(format!("the chain of the audit log is broken: {report:?}, anchored is {:?}", anchors.get(&report.at)));
            }
        }
        Ok(())
    }

    /// Each run stands with all of its events in the newest of its revisions, and no revision stands twice.
    fn check_fold(&self) -> Result<(), String> {
        let mut revisions = BTreeMap::<String, BTreeMap<i64, i64>>::new();
        for batch in &self.shared.witness.read(output()).map(|v| v.batches.clone()).unwrap_or_default() {
            for (run, rev, count) in counts(batch) {
                if let Some(twice) = revisions.entry(run.clone()).or_default().insert(rev, count) {
                    return Err(format!("run {run}: revision {rev} stands twice, with {twice} and {count}"));
                }
            }
        }
        // Who keeps the lake thins old versions.
        if !self.shared.is_kept
            && let Some((run, sparse)) =
                revisions.iter().find(|(_, revs)| revs.keys().copied().ne(0..i64::try_from(revs.len()).unwrap_or(0)))
        {
            return Err(format!("revisions of run {run} are not dense: {sparse:?}"));
        }
        let events = self.shared.witness.read(Table::find("pipeline_runs_events").expect("a table"));
        let runs = events_of_runs(events.iter().flat_map(|v| &v.batches), |_, _| true);
        let runs: BTreeMap<String, i64> = runs.into_iter().map(|(run, ids)| (run, i64::try_from(ids.len()).unwrap_or(0))).collect();
        let found: BTreeMap<String, i64> = revisions.into_iter().filter_map(|(run, mut revs)| Some((run, revs.pop_last()?.1))).collect();
        if found == runs { Ok(()) } else { Err(format!("the fold says {found:?}, the events say {runs:?}")) }
    }
}

/// Who is told by an event.
fn person(number: u32) -> String {
    format!("ada-{}", number % PERSONS)
}

/// How a process begins.
#[derive(Debug, Clone, Copy)]
struct Birth {
    seed: u64,
    part: Part,
    /// Whether there is one member.
    is_alone: bool,
    /// Of an owner.
    epoch: i64,
}

/// One process, from the opening of its lake to its end.
async fn run(shared: Arc<Shared>, life: Arc<Life>, stop: CancellationToken, birth: Birth) -> Result<(), String> {
    let Birth { seed, part, is_alone, epoch } = birth;
    let store = CrashStore::new(Arc::clone(&shared.faults), Arc::clone(&life), seed);
    let root = Url::parse("memory:///").expect("a url");
    let lake = Lake::open_with(Arc::new(store), root, Arc::clone(&shared.clock) as _, Duration::ZERO).await;
    let mut lake = lake.map_err(|e| e.to_string())?.without_checkpoints();
    if shared.is_kept {
        // Logs are cleaned at once.
        lake = lake.trusting(Duration::ZERO);
    }
    let mut config = EngineConfig::new(vec![TOPIC.to_owned()], CLUSTER, &shared.quarantine);
    config.group = (!is_alone && part == Part::Member).then(|| "sim".to_owned());
    config.commits_events = part == Part::Member;
    config.commits_derived = if is_alone { part == Part::Member } else { part == Part::Owner };
    if part == Part::Owner {
        config.fold.epoch = epoch;
    }
    config.commit_interval = Duration::from_millis(150);
    config.idle_commit_interval = Duration::from_millis(2_500);
    let decoder =
        SimDecoder { decoder: crate::decode::Decoder::new(vec![], vec![]), life: Arc::clone(&life), was_poison: Mutex::default() };
    let ports = EnginePorts {
        log: Arc::new(MemberLog { log: Arc::clone(&shared.log), life: Arc::clone(&life), reads_all: part != Part::Member, seed }),
        sink: Arc::new(SimSink { lake, life: Arc::clone(&life), stop: stop.clone(), last: Mutex::default() }),
        source: Arc::new(SimSource::new(Arc::clone(&shared.witness), Arc::clone(&life), seed)),
        folding: Box::new(CountFold::new(Arc::clone(&life))),
        decoder: Arc::new(decoder),
        anchors: Arc::clone(&shared.anchors) as _,
        persons: Arc::new(MemberPersons { persons: Arc::clone(&shared.persons), life: Arc::clone(&life) }),
        clock: Arc::clone(&shared.clock) as _,
        registry: prometheus::Registry::new(),
    };
    let (service, _handle) = Engine::start(config, ports).await.map_err(|e| e.to_string())?;
    let watcher = Watcher(Box::new(move |view| {
        if life.is_dead() {
            return;
        }
        *shared.views.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = match part {
            Part::Member => ledger.check_view(view),
            Part::Reader if !shared.is_disturbed.load(Ordering::Relaxed) => check_derived(view, &ledger.repeats()),
            Part::Reader | Part::Owner => Ok(()),
        };
        if let Err(problem) = checked {
            let problem = format!("a view of member {} at {:?}: {problem}", life.member, view.vector);
            shared.problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
        }
    }));
    drop(service.shared.watcher.set(watcher));
    service.run_with(stop, |worker, queue| Ok(worker.run(queue))).await.map_err(|e| e.to_string())
}

/// The ids of the events of each run, as far as their places are wanted.
fn events_of_runs<'b>(
    batches: impl Iterator<Item = &'b RecordBatch>,
    is_wanted: impl Fn(i32, i64) -> bool,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut runs = BTreeMap::<String, BTreeSet<String>>::new();
    for batch in batches {
        let run = batch.column_by_name("run_id").expect("a column").as_string_view();
        for ((partition, offset, id), run) in rows(batch).into_iter().zip(run.iter().flatten()) {
            if is_wanted(partition, offset) {
                runs.entry(run.to_owned()).or_default().insert(id);
            }
        }
    }
    runs
}

/// What is derived is that of the events of the same view, unless the view says that it is not yet. Of an event that came more than
/// once a member may keep another place than the one where the reader met it first: it is counted before the view has its row.
fn check_derived(view: &View, repeats: &BTreeSet<&str>) -> Result<(), String> {
    let (Some(events), Some(derived)) = (view.tables.get("pipeline_runs_events"), view.tables.get(output().name)) else {
        return Err("a table is not in the view".to_owned());
    };
    if derived.is_ahead {
        return Ok(());
    }
    let batches = |shown: &TableView| {
        let version = shown.snapshot.as_ref().and_then(|s| s.as_any().downcast_ref::<Version>());
        let files = version.map_or_else(Vec::new, |v| v.batches.clone());
        files.into_iter().chain(shown.tail.iter().map(|b| b.rows.clone())).collect::<Vec<_>>()
    };
    let told = events_of_runs(batches(events).iter(), |partition, offset| offset < view.vector.next(&at(partition)));
    let mut found = BTreeMap::<String, (i64, i64)>::new();
    for (run, rev, count) in batches(derived).iter().flat_map(counts) {
        let last = found.entry(run).or_default();
        *last = (*last).max((rev, count));
    }
    let number = |id: &str| id.trim_start_matches('e').parse::<u32>().unwrap_or(0);
    for run in told.keys().chain(found.keys()) {
        let ids = told.get(run).cloned().unwrap_or_default();
        let again = repeats.iter().filter(|id| format!("r{}", number(id) % RUNS) == *run && !ids.contains(**id)).count();
        // What lies in the future is held back for a while.
        let is_held = ids.iter().any(|id| number(id).is_multiple_of(FUTURE));
        let count = usize::try_from(found.get(run).map_or(0, |(_, count)| *count)).unwrap_or(0);
        if !is_held && !(ids.len()..=ids.len() + again).contains(&count) {
            return Err(format!("run {run} counts {count} where its events are {ids:?}"));
        }
    }
    Ok(())
}
