//! The Kafka adapter against a real broker, which these tests start by `scripts/kafka.sh`.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "what a test cannot set up fails it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use kiro_log::conformance::{self, Bench, Broken};
use kiro_log::{KafkaConfig, KafkaLog};
use kiro_ports::{Assignment, EventLog, LogConsumer, LogState, NewRecord, Poll, Record, Subscription, SystemClock};
use kiro_schemas::{Fault, FaultKind, OffsetVector, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const WAIT: std::time::Duration = std::time::Duration::from_secs(20);

struct Broker {
    script: Child,
    stdin: Option<ChildStdin>,
    address: String,
}

impl Broker {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka.sh");
        let mut script =
            Command::new("bash").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash runs scripts/kafka.sh");
        let mut address = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.trim().is_empty(), "scripts/kafka.sh could not start a broker; its stderr says why");
        Self { stdin: script.stdin.take(), script, address: address.trim().to_owned() }
    }

    /// One broker for all tests that run at the same time; it ends with the last of them.
    fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Mutex<Weak<Broker>>> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let broker = Arc::new(Self::start());
            *shared = Arc::downgrade(&broker);
            broker
        })
    }

    fn log(&self) -> Arc<KafkaLog> {
        Arc::new(KafkaLog::connect(KafkaConfig::new(&self.address), Arc::new(SystemClock)).unwrap())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.script.wait().unwrap();
    }
}

#[derive(Debug, Default)]
struct Starts {
    at: Mutex<BTreeMap<TopicPartition, i64>>,
    revoked: Mutex<Vec<TopicPartition>>,
}

impl Assignment for Starts {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>> {
        let at = self.at.lock().unwrap();
        partitions.iter().map(|partition| at.get(partition).copied()).collect()
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        self.revoked.lock().unwrap().extend_from_slice(partitions);
    }
}

fn record(topic: &str, key: &str, value: impl Into<String>) -> NewRecord {
    NewRecord { topic: topic.to_owned(), key: Some(Bytes::from(key.to_owned())), value: Bytes::from(value.into()), headers: Vec::new() }
}

fn subscription(topic: &str, group: Option<&str>) -> Subscription {
    Subscription { topics: vec![topic.to_owned()], group: group.map(ToOwned::to_owned), max_batch_bytes: 1 << 20 }
}

/// Polls until `enough` says so of what came; at most a minute of idle polls.
async fn poll_until(consumer: &mut dyn LogConsumer, mut enough: impl FnMut(&Poll) -> bool) {
    let mut idle = 0;
    while idle < 600 {
        let poll = consumer.poll().await.unwrap();
        idle += usize::from(matches!(poll, Poll::Idle));
        if enough(&poll) {
            return;
        }
    }
    panic!("nothing came for a minute");
}

async fn records(consumer: &mut dyn LogConsumer, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    poll_until(consumer, |poll| {
        if let Poll::Batch(batch) = poll {
            all.extend(batch.records.iter().cloned());
        }
        all.len() >= count
    })
    .await;
    all
}

struct KafkaBench {
    broker: Arc<Broker>,
    log: Arc<KafkaLog>,
}

#[async_trait]
impl Bench for KafkaBench {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(&self.log) as _
    }

    async fn trim(&mut self, topic: &str) -> Result<(), Broken> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(4)).unwrap();
        self.broker.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), Broken> {
        self.log = self.broker.log();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_promises_of_a_log() {
    let broker = Broker::shared();
    let mut bench = KafkaBench { log: broker.log(), broker };
    conformance::run(&mut bench, "t").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_is_a_record_without_a_value() {
    let broker = Broker::shared();
    let log = broker.log();
    log.ensure_topic("tombstone", 1).await.unwrap();
    let producer: BaseProducer = broker.client().create().unwrap();
    producer.send(BaseRecord::<str, str>::to("tombstone").key("gone")).unwrap();
    producer.flush(WAIT).unwrap();
    let mut consumer = log.consume(subscription("tombstone", None), Arc::new(Starts::default())).await.unwrap();
    let all = records(consumer.as_mut(), 1).await;
    assert_eq!((all[0].key.as_deref(), all[0].value.as_deref()), (Some(&b"gone"[..]), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_shares_partitions_and_each_starts_where_the_tables_stand() {
    let broker = Broker::shared();
    let log = broker.log();
    log.ensure_topic("shared", 4).await.unwrap();
    for part in 0..10 {
        log.append((0..40).map(|n| record("shared", &n.to_string(), format!("{part}"))).collect()).await.unwrap();
    }
    let stands = Arc::new(Starts::default());
    let mut first = log.consume(subscription("shared", Some("g")), Arc::clone(&stands) as _).await.unwrap();
    let mut next = BTreeMap::new();
    let mut count = 0;
    poll_until(first.as_mut(), |poll| {
        if let Poll::Batch(batch) = poll {
            next.insert(batch.at.clone(), batch.next);
            count += batch.records.len();
        }
        count == 400
    })
    .await;
    stands.at.lock().unwrap().clone_from(&next);
    let mut second = log.consume(subscription("shared", Some("g")), Arc::clone(&stands) as _).await.unwrap();
    let (mut taken, mut given) = (Vec::new(), Vec::new());
    while taken.len() < 2 || given.len() < 2 {
        match first.poll().await.unwrap() {
            Poll::Revoked(partitions) => given.extend(partitions),
            Poll::Batch(batch) => panic!("{} came again from {}", batch.at, batch.start),
            _ => {}
        }
        match second.poll().await.unwrap() {
            Poll::Assigned(partitions) => taken.extend(partitions),
            Poll::Batch(batch) => panic!("{} came again from {}", batch.at, batch.start),
            _ => {}
        }
    }
    given.sort();
    taken.sort();
    assert_eq!(given, taken, "what one gave the other took");
    assert_eq!(stands.revoked.lock().unwrap().len(), 2);
    log.append((0..40).map(|n| record("shared", &n.to_string(), "new")).collect()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 40 {
        for consumer in [&mut first, &mut second] {
            if let Poll::Batch(batch) = consumer.poll().await.unwrap() {
                assert_eq!(batch.start, next[&batch.at]);
                next.insert(batch.at.clone(), batch.next);
                seen.extend(batch.records);
            }
        }
    }
    assert!(seen.len() == 40 && seen.iter().all(|record| record.value.as_deref() == Some(b"new")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_is_a_gap() {
    let broker = Broker::shared();
    let log = broker.log();
    log.ensure_topic("recreated", 1).await.unwrap();
    log.append((0..10).map(|n| record("recreated", "k", n.to_string())).collect()).await.unwrap();
    broker.admin().delete_topics(&["recreated"], &AdminOptions::new().operation_timeout(Some(WAIT))).await.unwrap();
    // The name is free once no broker knows the topic.
    while log.watermarks("recreated").await.is_ok() {}
    log.ensure_topic("recreated", 1).await.unwrap();
    let at = TopicPartition::new("recreated", 0);
    let starts = Starts { at: Mutex::new(BTreeMap::from([(at.clone(), 10)])), ..Starts::default() };
    let mut consumer = log.consume(subscription("recreated", Some("r")), Arc::new(starts)).await.unwrap();
    let mut gap = None;
    poll_until(consumer.as_mut(), |poll| {
        if let Poll::Gap(found) = poll {
            gap = Some(found.clone());
        }
        gap.is_some()
    })
    .await;
    let gap = gap.unwrap();
    assert_eq!((gap.at, gap.expected, gap.found), (at, 10, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_reach_lag_tools() {
    let broker = Broker::shared();
    let log = broker.log();
    log.ensure_topic("lag", 1).await.unwrap();
    log.append((0..5).map(|n| record("lag", "k", n.to_string())).collect()).await.unwrap();
    let mut consumer = log.consume(subscription("lag", Some("lag-group")), Arc::new(Starts::default())).await.unwrap();
    records(consumer.as_mut(), 5).await;
    let at = TopicPartition::new("lag", 0);
    consumer.report(&OffsetVector::from_iter([(at, 3)])).await.unwrap();
    let tool: BaseConsumer = broker.client().set("group.id", "lag-group").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition("lag", 0);
    let committed = || tool.committed_offsets(list.clone(), WAIT).unwrap().elements()[0].offset();
    for _ in 0..100 {
        consumer.poll().await.unwrap();
        if committed() == Offset::Offset(3) {
            return;
        }
    }
    panic!("committed is {:?}", committed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_loses_nothing() {
    let broker = Broker::shared();
    let log = broker.log();
    log.ensure_topic("slow", 2).await.unwrap();
    let body = "x".repeat(10_000);
    for _ in 0..10 {
        log.append((0..60).map(|n| record("slow", &n.to_string(), &body)).collect()).await.unwrap();
    }
    let mut small = subscription("slow", None);
    small.max_batch_bytes = 20_000;
    let mut consumer = log.consume(small, Arc::new(Starts::default())).await.unwrap();
    let mut next: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut count = 0;
    while count < 600 {
        if let Poll::Batch(batch) = consumer.poll().await.unwrap() {
            let expected = next.entry(batch.at).or_default();
            for record in &batch.records {
                assert_eq!(record.offset, *expected);
                *expected += 1;
            }
            count += batch.records.len();
            if count % 100 < 3 {
                // Not synchronisation: the reader is slow, so that the channel fills and partitions are paused.
                tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_the_log_is_down_and_says_why() {
    let broker = Broker::start();
    let log = broker.log();
    log.ensure_topic("down", 1).await.unwrap();
    log.append(vec![record("down", "k", "0")]).await.unwrap();
    assert_eq!(log.state(), LogState::Up);
    drop(broker);
    let mut reason = None;
    for _ in 0..600 {
        if let LogState::Down { reason: why } = log.state() {
            reason = Some(why);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(reason.is_some_and(|reason| !reason.is_empty()), "it is still up");
    let error = log.append(vec![record("down", "k", "1")]).await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unavailable, "{error}");
}
