use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiro_ports::{Assignment, Clock, EventLog, NewRecord, Poll, PortError, Subscription};
use kiro_schemas::{Fault, FaultKind, Micros, TopicPartition};

use super::{EmbeddedLog, EmbeddedOptions};
use crate::conformance::{self, Bench, Broken};
use crate::error::Error;

const DAY: Duration = Duration::from_hours(24);

#[derive(Debug)]
struct Hand(AtomicI64);

impl Hand {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_700_000_000_000_000)))
    }

    fn forward(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Debug)]
struct Beginning;

impl Assignment for Beginning {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>> {
        vec![None; partitions.len()]
    }

    fn revoked(&self, _partitions: &[TopicPartition]) {}
}

fn record(topic: &str, value: impl Into<Bytes>) -> NewRecord {
    NewRecord { topic: topic.to_owned(), value: value.into(), ..NewRecord::default() }
}

fn open(folder: &Path, options: EmbeddedOptions) -> EmbeddedLog {
    EmbeddedLog::open(folder, options, Hand::new()).unwrap()
}

struct EmbeddedBench {
    folder: tempfile::TempDir,
    clock: Arc<Hand>,
    log: Option<Arc<EmbeddedLog>>,
}

impl EmbeddedBench {
    fn open(&mut self) {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        self.log = Some(Arc::new(EmbeddedLog::open(self.folder.path(), EmbeddedOptions::default(), clock).unwrap()));
    }
}

#[async_trait]
impl Bench for EmbeddedBench {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(self.log.as_ref().unwrap()) as _
    }

    async fn trim(&mut self, topic: &str) -> Result<(), Broken> {
        self.clock.forward(8 * DAY);
        let log = self.log.as_ref().unwrap();
        log.append(vec![record(topic, "rolls")]).await?;
        log.enforce_retention().await?;
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), Broken> {
        self.log = None;
        self.open();
        Ok(())
    }
}

#[tokio::test]
async fn it_keeps_the_promises_of_a_log() {
    let mut bench = EmbeddedBench { folder: tempfile::tempdir().unwrap(), clock: Hand::new(), log: None };
    bench.open();
    conformance::run(&mut bench, "t").await.unwrap();
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), EmbeddedOptions::default());
    let second = EmbeddedLog::open(folder.path(), EmbeddedOptions::default(), Hand::new()).unwrap_err();
    assert!(matches!(second, Error::InUse { .. }), "{second}");
    assert!(second.to_string().contains("in use"), "{second}");
    drop(first);
    open(folder.path(), EmbeddedOptions::default());
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), EmbeddedOptions::default()));
    std::fs::write(folder.path().join("FORMAT"), "2\n").unwrap();
    let error = EmbeddedLog::open(folder.path(), EmbeddedOptions::default(), Hand::new()).unwrap_err();
    assert!(matches!(&error, Error::Format { found, known: 1, .. } if found == "2"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.path().join("FORMAT")).unwrap(), "2\n");
}

#[tokio::test]
async fn bad_topics_and_large_records_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), EmbeddedOptions { max_record_bytes: 100, ..EmbeddedOptions::default() });
    for (topic, partitions) in [("", 1), ("..", 1), ("a/b", 1), ("ok", 0), ("ok", 1025)] {
        assert_eq!(log.ensure_topic(topic, partitions).await.unwrap_err().kind(), FaultKind::Invalid, "{topic:?} {partitions}");
    }
    log.ensure_topic("ok", 1).await.unwrap();
    let mixed = vec![record("ok", "fits"), record("ok", vec![0; 101])];
    assert_eq!(log.append(mixed).await.unwrap_err().kind(), FaultKind::TooLarge);
    assert_eq!(log.watermarks("ok").await.unwrap()[0].1.high, 0, "a request is taken whole or not at all");
}

#[tokio::test]
async fn retention_deletes_whole_segments_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { segment_bytes: 1000, retention_bytes: Some(3000), ..EmbeddedOptions::default() };
    let log = open(folder.path(), options.clone());
    log.ensure_topic("t", 2).await.unwrap();
    for n in 0..40_u8 {
        log.append(vec![record("t", vec![n; 500])]).await.unwrap();
    }
    log.enforce_retention().await.unwrap();
    let marks = log.watermarks("t").await.unwrap();
    let files = || std::fs::read_dir(folder.path().join("topics/t")).unwrap().count();
    assert!(marks.iter().all(|(_, m)| m.low > 0 && m.low < m.high && m.high == 20), "{marks:?}");
    assert!((2..=4).contains(&files()), "{} files", files());
    drop(log);
    let log = open(folder.path(), options);
    assert_eq!(log.watermarks("t").await.unwrap(), marks);
    let at = TopicPartition::new("t", 1);
    let kept = log.read(&at, marks[1].1.low).await.unwrap().unwrap();
    assert_eq!(kept.offset, marks[1].1.low);
    assert!(log.read(&at, marks[1].1.low - 1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_consumer_that_retention_overtakes_gets_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { segment_bytes: 1, retention_bytes: Some(200), ..EmbeddedOptions::default() };
    let log = open(folder.path(), options);
    log.ensure_topic("t", 1).await.unwrap();
    log.append(vec![record("t", "0")]).await.unwrap();
    let subscription = Subscription { topics: vec!["t".to_owned()], group: None, max_batch_bytes: 1 };
    let mut consumer = log.consume(subscription, Arc::new(Beginning)).await.unwrap();
    assert!(matches!(consumer.poll().await.unwrap(), Poll::Assigned(_)));
    assert!(matches!(consumer.poll().await.unwrap(), Poll::Batch(batch) if batch.next == 1));
    for _ in 0..10 {
        log.append(vec![record("t", vec![0; 100])]).await.unwrap();
    }
    log.enforce_retention().await.unwrap();
    let Poll::Gap(gap) = consumer.poll().await.unwrap() else { panic!("no gap") };
    assert_eq!((gap.expected, gap.found), (1, Some(log.watermarks("t").await.unwrap()[0].1.low)));
    assert!(matches!(consumer.poll().await.unwrap(), Poll::Idle));
}

#[tokio::test]
async fn a_topic_that_comes_later_is_assigned_then() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), EmbeddedOptions::default());
    let subscription = Subscription { topics: vec!["late".to_owned()], group: None, max_batch_bytes: 1 };
    let mut consumer = log.consume(subscription, Arc::new(Beginning)).await.unwrap();
    assert!(matches!(consumer.poll().await.unwrap(), Poll::Idle));
    log.ensure_topic("late", 2).await.unwrap();
    assert!(matches!(consumer.poll().await.unwrap(), Poll::Assigned(partitions) if partitions.len() == 2));
}

#[tokio::test]
async fn an_interrupted_creation_of_a_segment_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), EmbeddedOptions::default());
    log.ensure_topic("t", 1).await.unwrap();
    log.append(vec![record("t", "0")]).await.unwrap();
    drop(log);
    drop(redb::Database::create(folder.path().join("topics/t/00000000000000000001.redb")).unwrap());
    let log = open(folder.path(), EmbeddedOptions::default());
    let positions = log.append(vec![record("t", "1")]).await.unwrap();
    assert_eq!(positions[0].offset, 1);
}

#[tokio::test]
async fn appends_that_wait_share_one_transaction() -> Result<(), PortError> {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(open(folder.path(), EmbeddedOptions { segment_bytes: 1, ..EmbeddedOptions::default() }));
    log.ensure_topic("t", 1).await?;
    let calls = (0..64).map(|n| {
        let log = Arc::clone(&log);
        async move { log.append(vec![record("t", n.to_string())]).await }
    });
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    // With segments of one byte each transaction has a segment of its own.
    let transactions = std::fs::read_dir(folder.path().join("topics/t")).unwrap().count();
    assert!(transactions < 32, "64 appends took {transactions} transactions");
    Ok(())
}
