use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiro_ports::{
    Assignment, Clock, EventLog, LogConsumer, LogState, NewRecord, Poll, PortError, Position, Record, Subscription, SystemClock, Watermarks,
};
use kiro_schemas::{Fault, FaultKind, Micros, TopicPartition};

use super::{SpillLog, SpillOptions};
use crate::conformance::{self, Bench, Broken};
use crate::error::Error;
use crate::{EmbeddedLog, EmbeddedOptions};

/// How the log behind answers appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    Up,
    /// Refuses at once.
    Down,
    /// Does not answer in time.
    Silent,
    /// Takes the append, and says that it did not.
    Unsure,
}

const MOODS: [Mood; 4] = [Mood::Up, Mood::Down, Mood::Silent, Mood::Unsure];

/// A real log that can be away.
#[derive(Debug)]
struct Behind {
    log: EmbeddedLog,
    mood: AtomicU8,
    tried: AtomicU64,
}

impl Behind {
    fn new(folder: &Path) -> Arc<Self> {
        let options = EmbeddedOptions { max_record_bytes: 1000, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(&folder.join("log"), options, Arc::new(SystemClock)).unwrap();
        Arc::new(Self { log, mood: AtomicU8::new(0), tried: AtomicU64::new(0) })
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// All values of a topic with one partition.
    async fn values(&self, topic: &str) -> Vec<String> {
        let at = TopicPartition::new(topic, 0);
        let high = self.log.watermarks(topic).await.unwrap()[0].1.high;
        let mut all = Vec::new();
        for offset in 0..high {
            let record = self.log.read(&at, offset).await.unwrap().unwrap();
            all.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
        all
    }

    async fn tried(&self, times: u64) {
        let goal = self.tried.load(Ordering::SeqCst) + times;
        until(|| self.tried.load(Ordering::SeqCst) >= goal).await;
    }
}

async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited 10 s");
}

#[async_trait]
impl EventLog for Behind {
    async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<(), PortError> {
        self.log.ensure_topic(topic, partitions).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, PortError> {
        let away = || PortError::of(Error::Unreachable { topic: "t".to_owned(), reason: "it is away".to_owned() });
        self.tried.fetch_add(1, Ordering::SeqCst);
        match MOODS[usize::from(self.mood.load(Ordering::SeqCst))] {
            Mood::Up => self.log.append(records).await,
            Mood::Down => Err(away()),
            Mood::Silent => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Err(away())
            }
            Mood::Unsure => self.log.append(records).await.and_then(|_| Err(away())),
        }
    }

    async fn consume(&self, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError> {
        self.log.consume(subscription, assignment).await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError> {
        self.log.watermarks(topic).await
    }

    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError> {
        self.log.read(at, offset).await
    }

    fn state(&self) -> LogState {
        self.log.state()
    }
}

/// Opens what was closed: it holds its folder until its tasks have ended.
fn patiently<T>(open: impl Fn() -> Result<T, Error>) -> T {
    for _ in 0..2_000 {
        match open() {
            Err(Error::InUse { .. }) => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the folder is in use for 10 s");
}

fn open(folder: &Path, behind: &Arc<Behind>, options: &SpillOptions) -> SpillLog {
    patiently(|| SpillLog::open(&folder.join("spill"), Arc::clone(behind) as _, Arc::new(SystemClock), options.clone()))
}

fn quick() -> SpillOptions {
    SpillOptions { patience: Duration::from_millis(100), ..SpillOptions::default() }
}

fn record(value: impl Into<String>) -> NewRecord {
    let headers = vec![("kiro-tenant".to_owned(), Bytes::from_static(b"acme"))];
    NewRecord { topic: "t".to_owned(), key: Some(Bytes::from_static(b"k")), value: Bytes::from(value.into()), headers }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder.join("spill")).unwrap().flatten().map(|entry| entry.path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "spill"));
    all.sort();
    all
}

#[derive(Debug)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}

struct SpillBench {
    folder: tempfile::TempDir,
    clock: Arc<Hand>,
    behind: Option<Arc<Behind>>,
    log: Option<Arc<SpillLog>>,
}

impl SpillBench {
    fn open(&mut self) {
        let folder = self.folder.path().join("log");
        let log = patiently(|| EmbeddedLog::open(&folder, EmbeddedOptions::default(), Arc::clone(&self.clock) as _));
        let behind = Arc::new(Behind { log, mood: AtomicU8::new(0), tried: AtomicU64::new(0) });
        self.log = Some(Arc::new(open(self.folder.path(), &behind, &SpillOptions::default())));
        self.behind = Some(behind);
    }
}

#[async_trait]
impl Bench for SpillBench {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(self.log.as_ref().unwrap()) as _
    }

    async fn trim(&mut self, topic: &str) -> Result<(), Broken> {
        self.clock.0.fetch_add(8 * 86_400_000_000, Ordering::SeqCst);
        let log = &self.behind.as_ref().unwrap().log;
        log.append(vec![NewRecord { topic: topic.to_owned(), ..record("rolls") }]).await?;
        log.enforce_retention().await?;
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), Broken> {
        (self.log, self.behind) = (None, None);
        self.open();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_promises_of_a_log() {
    let mut bench = SpillBench {
        folder: tempfile::tempdir().unwrap(),
        clock: Arc::new(Hand(AtomicI64::new(1_700_000_000_000_000))),
        behind: None,
        log: None,
    };
    bench.open();
    conformance::run(&mut bench, "t").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_the_log_is_away_is_there_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    let log = open(folder.path(), &behind, &quick());
    let mut n = 0;
    for mood in [Mood::Down, Mood::Silent, Mood::Unsure] {
        assert_eq!(log.append(vec![record(n.to_string())]).await.unwrap().len(), 1, "the log is there: a position is told");
        behind.set(mood);
        for _ in 0..5 {
            n += 1;
            let began = tokio::time::Instant::now();
            assert_eq!(log.append(vec![record(n.to_string())]).await.unwrap(), [], "{mood:?}");
            assert!(began.elapsed() < Duration::from_secs(2), "{mood:?}: {:?}", began.elapsed());
        }
        let status = log.status();
        assert!(status.since.is_some() && status.bytes > 0 && status.spilled > status.drained, "{status:?}");
        behind.tried(1).await;
        behind.set(Mood::Up);
        log.drained().await;
        let status = log.status();
        assert_eq!((status.bytes, status.since, status.aside), (0, None, 0));
        n += 1;
    }
    let values = behind.values("t").await;
    let mut seen = BTreeSet::new();
    let firsts: Vec<&String> = values.iter().filter(|value| seen.insert(value.as_str())).collect();
    let expected: Vec<String> = (0..n).map(|n| n.to_string()).collect();
    assert!(firsts.into_iter().eq(&expected), "{values:?}");
    assert!(files(folder.path()).is_empty());
}

/// How much each caller appends.
const EACH: u32 = 400;

/// Callers that append one after the other, while the log comes and goes: each one's records are all there, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_log_does_nothing_is_lost_and_the_order_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    let options = SpillOptions { patience: Duration::from_millis(20), ..SpillOptions::default() };
    let log = Arc::new(open(folder.path(), &behind, &options));
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                for n in 0..EACH {
                    log.append(vec![record(format!("{caller} {n}"))]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    for turn in 0..40_usize {
        behind.set([Mood::Up, Mood::Down, Mood::Up, Mood::Unsure][turn % 4]);
        behind.tried(4).await;
    }
    behind.set(Mood::Up);
    for caller in callers {
        caller.await.unwrap();
    }
    log.drained().await;
    let values = behind.values("t").await;
    let mut of_caller: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for value in values.iter().filter(|value| seen.insert(value.as_str())) {
        let (caller, n) = value.split_once(' ').unwrap();
        of_caller.entry(caller).or_default().push(n.parse().unwrap());
    }
    assert_eq!(of_caller.len(), 16);
    for (caller, numbers) in of_caller {
        assert!(numbers.iter().copied().eq(0..EACH), "caller {caller}: {numbers:?}");
    }
    let status = log.status();
    let twice = values.len() - 16 * EACH as usize;
    eprintln!("{} of {} records were spilled, {twice} came twice", status.spilled, 16 * EACH as usize);
    assert!(status.spilled > 100 && status.spilled < 16 * u64::from(EACH) && status.spilled == status.drained && twice > 0, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spill_refuses_and_takes_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    behind.set(Mood::Down);
    let log = open(folder.path(), &behind, &SpillOptions { limit_bytes: 2_000, ..quick() });
    let mut taken = 0;
    let refused = loop {
        match log.append(vec![record(taken.to_string())]).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused.kind, refused.code), (FaultKind::Unavailable, "KIR-0114"), "{refused}");
    assert!((10..25).contains(&taken), "{taken} records have 2,000 bytes");
    let on_disk: u64 = files(folder.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(on_disk <= 2_000 && log.status().bytes == on_disk && log.status().refused == 1, "{on_disk} and {:?}", log.status());
    let large = log.append(vec![record("x".repeat(2_000_000))]).await.unwrap_err();
    assert_eq!(large.kind, FaultKind::TooLarge, "{large}");
    behind.set(Mood::Up);
    log.drained().await;
    log.append(vec![record("again")]).await.unwrap();
    let values = behind.values("t").await;
    assert_eq!((values.len(), values.last().unwrap().as_str()), (taken + 1, "again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_written_refuses_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    behind.set(Mood::Down);
    let log = open(folder.path(), &behind, &quick());
    let (spill, away) = (folder.path().join("spill"), folder.path().join("away"));
    std::fs::rename(&spill, &away).unwrap();
    let refused = log.append(vec![record("0")]).await.unwrap_err();
    assert_eq!((refused.kind, refused.code), (FaultKind::Unavailable, "KIR-0115"), "{refused}");
    std::fs::rename(&away, &spill).unwrap();
    log.append(vec![record("1")]).await.unwrap();
    behind.set(Mood::Up);
    log.drained().await;
    assert_eq!(behind.values("t").await, ["1"]);
}

/// Spills values in one append, and closes.
async fn spilled(folder: &Path, behind: &Arc<Behind>, values: &[&str]) {
    behind.set(Mood::Down);
    let log = open(folder, behind, &quick());
    log.append(values.iter().map(|value| record(*value)).collect()).await.unwrap();
    drop(log);
    behind.set(Mood::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_drains_what_is_whole_and_puts_aside_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    spilled(folder.path(), &behind, &["first", "second", "third", "fourth"]).await;
    let file = files(folder.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    let damaged = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[damaged] = b'S';
    // The process died while it wrote the fifth.
    let torn = bytes.len() / 4 - 3;
    bytes.extend_from_within(..torn);
    std::fs::write(&file, &bytes).unwrap();
    let log = open(folder.path(), &behind, &quick());
    log.drained().await;
    assert_eq!(behind.values("t").await, ["first", "third", "fourth"]);
    assert_eq!(log.status().aside, 1);
    let aside: Vec<_> = std::fs::read_dir(folder.path().join("spill/aside")).unwrap().flatten().collect();
    let kept = std::fs::read(aside[0].path()).unwrap();
    assert!(aside.len() == 1 && kept.windows(6).any(|window| window == b"Second"), "{aside:?}");
    assert!(files(folder.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_log_never_takes_is_put_aside_alone() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    let large = "x".repeat(1_500);
    spilled(folder.path(), &behind, &["first", "second", &large, "third"]).await;
    let log = open(folder.path(), &behind, &quick());
    log.drained().await;
    assert_eq!(behind.values("t").await, ["first", "second", "third"]);
    assert_eq!((log.status().aside, log.status().drained), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_has_one_owner_and_a_known_format() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    let first = open(folder.path(), &behind, &quick());
    let dir = folder.path().join("spill");
    let again = || SpillLog::open(&dir, Arc::clone(&behind) as _, Arc::new(SystemClock), quick());
    assert!(matches!(again(), Err(Error::InUse { .. })));
    drop(first);
    until(|| again().is_ok()).await;
    std::fs::write(dir.join("FORMAT"), "2\n").unwrap();
    let error = loop {
        match again() {
            Err(Error::InUse { .. }) | Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Format { .. }), "{error}");
}

/// What an import or a decision is told does not change: the log behind is another than the one with a spill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_the_log_behind() {
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::new(folder.path());
    behind.ensure_topic("t", 1).await.unwrap();
    let log = open(folder.path(), &behind, &quick());
    behind.set(Mood::Down);
    log.append(vec![record("0")]).await.unwrap();
    assert_eq!(log.watermarks("t").await.unwrap()[0].1.high, 0, "what is spilled is not in the log yet");
    assert_eq!(behind.append(vec![record("1")]).await.unwrap_err().kind(), FaultKind::Unavailable);
    assert!(matches!(log.state(), LogState::Up));
    let nobody = Subscription { topics: vec!["t".to_owned()], group: None, max_batch_bytes: 1 };
    let mut consumer = log.consume(nobody, Arc::new(Beginning)).await.unwrap();
    assert!(matches!(consumer.poll().await.unwrap(), Poll::Assigned(_)));
}

#[derive(Debug)]
struct Beginning;

impl Assignment for Beginning {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>> {
        vec![None; partitions.len()]
    }

    fn revoked(&self, _partitions: &[TopicPartition]) {}
}
