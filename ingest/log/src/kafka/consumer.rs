//! A consumer of a Kafka cluster: a thread that polls the client, and a bounded channel to who polls us.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc as commands;
use std::time::Duration;

use async_trait::async_trait;
use kiro_ports::{LogBatch, LogConsumer, Poll, PortError, Record, Subscription};
use kiro_schemas::{Micros, OffsetVector, TopicPartition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::message;
use super::owned::Owned;
use super::{KafkaConfig, partitions};
use crate::error::{Error, Result, is_outage};

/// Batches that wait; each is at most the subscription's bytes, so this bounds memory.
const WAITING: usize = 8;
/// How long one poll of the client waits.
const WAIT: Duration = Duration::from_millis(50);
/// How long a poll of ours waits.
const IDLE: Duration = Duration::from_millis(100);
/// How long a full channel is waited for before the partitions are paused.
const FULL_WAIT: Duration = Duration::from_millis(2);
const FULL_TRIES: u32 = 100;
/// How often a consumer without a group looks for new partitions, in µs.
const LOOK_EVERY: i64 = 5_000_000;

/// The end of a consumer that others poll.
#[derive(Debug)]
pub(super) struct KafkaConsumer {
    polls: mpsc::Receiver<Result<Poll, PortError>>,
    reports: commands::Sender<OffsetVector>,
}

/// Starts the thread; it ends when the consumer is dropped.
pub(super) fn start(config: &KafkaConfig, context: Owned, subscription: Subscription) -> Result<KafkaConsumer> {
    let settings = |source| Error::Settings { source };
    let group = subscription.group.as_deref().unwrap_or("kirolinter-alone");
    let consumer: BaseConsumer<Owned> = config.consumer(group).create_with_context(context).map_err(settings)?;
    if subscription.group.is_some() {
        let topics: Vec<&str> = subscription.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(settings)?;
    }
    let (sender, polls) = mpsc::channel(WAITING);
    let (reports, reported) = commands::channel();
    let worker = Worker {
        consumer,
        sender,
        reported,
        subscription,
        pending: BTreeMap::new(),
        pending_bytes: 0,
        ready: VecDeque::new(),
        paused: false,
        looked_at: Micros(0),
    };
    let named = std::thread::Builder::new().name("kiro-kafka-consumer".to_owned());
    named.spawn(move || worker.run()).map_err(Error::io("kiro-kafka-consumer"))?;
    Ok(KafkaConsumer { polls, reports })
}

#[async_trait]
impl LogConsumer for KafkaConsumer {
    async fn poll(&mut self) -> Result<Poll, PortError> {
        match tokio::time::timeout(IDLE, self.polls.recv()).await {
            Err(_elapsed) => Ok(Poll::Idle),
            Ok(Some(poll)) => poll,
            Ok(None) => Err(PortError::of(Error::Closed { part: "consumer" })),
        }
    }

    async fn report(&mut self, contained: &OffsetVector) -> Result<(), PortError> {
        self.reports.send(contained.clone()).map_err(|_unsent| PortError::of(Error::Closed { part: "consumer" }))
    }
}

struct Worker {
    consumer: BaseConsumer<Owned>,
    sender: mpsc::Sender<Result<Poll, PortError>>,
    reported: commands::Receiver<OffsetVector>,
    subscription: Subscription,
    pending: BTreeMap<TopicPartition, Pending>,
    /// Their bytes: what waits here is one batch at most, however many partitions there are.
    pending_bytes: usize,
    ready: VecDeque<Result<Poll, PortError>>,
    paused: bool,
    looked_at: Micros,
}

/// Records of a partition that are not a batch yet.
struct Pending {
    start: i64,
    records: Vec<Record>,
}

/// What the client brought.
enum Polled {
    Nothing,
    /// A message; `None` when it was not expected.
    Message(Option<(TopicPartition, i64, Record)>),
    Error(KafkaError),
}

impl Worker {
    fn run(mut self) {
        while !self.sender.is_closed() {
            if let Some(contained) = self.reported.try_iter().last() {
                self.commit(&contained);
            }
            if self.subscription.group.is_none() {
                self.look();
            }
            let wait = if self.pending.is_empty() { WAIT } else { Duration::ZERO };
            let polled = match self.consumer.poll(wait) {
                None => Polled::Nothing,
                Some(Ok(message)) => Polled::Message(accept(self.consumer.context(), &message)),
                Some(Err(error)) => Polled::Error(error),
            };
            // The poll itself may have brought an assignment: it is told before the first record of its partitions.
            self.tell();
            let mut fatal = false;
            match polled {
                Polled::Nothing => self.flush_all(),
                Polled::Message(Some((at, start, record))) => self.hold(at, start, record),
                Polled::Message(None) => {}
                Polled::Error(error) => fatal = self.failed(error),
            }
            self.tell();
            self.send();
            if fatal {
                return;
            }
        }
    }

    /// Keeps a record for the next batch of its partition.
    fn hold(&mut self, at: TopicPartition, start: i64, record: Record) {
        let size = message::size(&record);
        if self.pending_bytes.saturating_add(size) > self.subscription.max_batch_bytes {
            self.flush_all();
        }
        self.pending_bytes = self.pending_bytes.saturating_add(size);
        self.pending.entry(at).or_insert_with(|| Pending { start, records: Vec::new() }).records.push(record);
    }

    fn flush(&mut self, at: &TopicPartition) {
        let Some(pending) = self.pending.remove(at) else { return };
        let Some(next) = pending.records.last().map(|record| record.offset + 1) else { return };
        // What is pending of a partition that is taken away is dropped at once: it was read since.
        let generation = self.consumer.context().generation(at);
        let Pending { start, records } = pending;
        self.ready.push_back(Ok(Poll::Batch(LogBatch { at: at.clone(), start, next, generation, records })));
    }

    fn flush_all(&mut self) {
        if !self.pending.is_empty() {
            self.consumer.context().health.up();
        }
        while let Some(at) = self.pending.keys().next().cloned() {
            self.flush(&at);
        }
        self.pending_bytes = 0;
    }

    /// Takes over what the context has to tell, in its order among the batches.
    fn tell(&mut self) {
        let events = std::mem::take(&mut self.consumer.context().state().events);
        for event in events {
            match &event {
                Poll::Revoked(gone) => {
                    self.pending.retain(|at, _| !gone.contains(at));
                    self.ready.retain(|poll| !matches!(poll, Ok(Poll::Batch(batch)) if gone.contains(&batch.at)));
                }
                // What was read before still counts.
                _ => self.flush_all(),
            }
            if matches!(event, Poll::Assigned(_)) {
                // New partitions are not paused; all go the same way, and are paused again if they have to be.
                self.pause(false);
            }
            self.ready.push_back(Ok(event));
        }
    }

    /// Hands over what is ready. When nobody takes it for long, the partitions are paused until somebody does.
    fn send(&mut self) {
        let mut tries = if self.paused { FULL_TRIES } else { 0 };
        while let Some(poll) = self.ready.pop_front() {
            match self.sender.try_send(poll) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(poll)) => {
                    self.ready.push_front(poll);
                    if tries >= FULL_TRIES {
                        return self.pause(true);
                    }
                    tries += 1;
                    std::thread::sleep(FULL_WAIT);
                }
            }
        }
        self.pause(false);
    }

    fn pause(&mut self, pause: bool) {
        if pause == self.paused {
            return;
        }
        let done = self.consumer.assignment().and_then(|all| if pause { self.consumer.pause(&all) } else { self.consumer.resume(&all) });
        match done {
            Ok(()) => self.paused = pause,
            Err(error) => tracing::warn!(%error, pause, "partitions could not be paused or resumed"),
        }
    }

    /// Without a group: assigns all partitions that are there, again when there are more.
    fn look(&mut self) {
        let context = self.consumer.context();
        let now = context.clock.now();
        if now.0.saturating_sub(self.looked_at.0) < LOOK_EVERY && self.looked_at.0 != 0 {
            return;
        }
        let mut fresh = Vec::new();
        let mut all_there = true;
        for topic in &self.subscription.topics {
            match partitions(self.consumer.client(), topic, context.timeout) {
                Ok(ids) => fresh.extend(ids.into_iter().map(|id| TopicPartition::new(topic.as_str(), id))),
                Err(error) => {
                    all_there = false;
                    tracing::debug!(topic, %error, "topic is not there to be read");
                }
            }
        }
        // A topic that is awaited is looked for with each turn; the question itself takes its time.
        self.looked_at = if all_there { now } else { now.plus(1_000_000 - LOOK_EVERY) };
        fresh.retain(|at| !context.is_known(at));
        if fresh.is_empty() {
            return;
        }
        let assigned = context.begin(&self.consumer, &fresh).and_then(|_new| self.consumer.assign(&context.positions(&self.consumer)?));
        if let Err(error) = assigned {
            self.ready.push_back(Err(PortError::of(Error::kafka("assign", &fresh[0].topic, error))));
        }
    }

    /// Handles an error of the client; whether it is the end.
    fn failed(&mut self, error: KafkaError) -> bool {
        let context = self.consumer.context();
        match (error.rdkafka_error_code(), &error) {
            (Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange), _) => {
                context.recheck(&self.consumer);
                return false;
            }
            (Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _) => return false,
            (Some(code), KafkaError::MessageConsumption(_)) if is_outage(code) => {
                context.health.hear(&error, "a consumer lost the brokers");
                return false;
            }
            _ => {}
        }
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        self.ready.push_back(Err(PortError::of(Error::kafka("consume", &self.subscription.topics.join(","), error))));
        fatal
    }

    /// Commits the group's offsets, for lag tools.
    fn commit(&self, contained: &OffsetVector) {
        if self.subscription.group.is_none() {
            return;
        }
        let build = || -> KafkaResult<TopicPartitionList> {
            let mut list = TopicPartitionList::new();
            let state = self.consumer.context().state();
            for (at, next) in contained.iter().filter(|(at, _)| state.expected.contains_key(at)) {
                list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next))?;
            }
            Ok(list)
        };
        let done = build().and_then(|list| if list.count() == 0 { Ok(()) } else { self.consumer.commit(&list, CommitMode::Async) });
        if let Err(error) = done {
            tracing::warn!(%error, "offsets for lag tools not committed");
        }
    }
}

/// Takes a message that was expected: its partition, the offset that was asked for, and the record.
fn accept(owned: &Owned, message: &BorrowedMessage<'_>) -> Option<(TopicPartition, i64, Record)> {
    let at = TopicPartition::new(message.topic(), message.partition());
    let mut state = owned.state();
    let expected = state.expected.get_mut(&at)?;
    if message.offset() < expected.unwrap_or(0) {
        return None;
    }
    let start = expected.replace(message.offset() + 1).unwrap_or(0);
    Some((at, start, message::record(message)))
}

/// Offsets that lie further apart are sought one by one; what lies between closer ones is read and left.
const NEAR: i64 = 2_000;

/// Reads the records of a partition at offsets that rise, with a client of its own; `None` for each that is gone.
pub(super) fn read_each(config: &KafkaConfig, at: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<Record>>> {
    let failed = |error| Error::kafka("read", &at.topic, error);
    let mut settings = config.consumer("kirolinter-read");
    let consumer: BaseConsumer = settings.set("enable.partition.eof", "true").create().map_err(|source| Error::Settings { source })?;
    let (low, high) = consumer.fetch_watermarks(&at.topic, at.partition, config.request_timeout).map_err(failed)?;
    let mut found = Vec::with_capacity(offsets.len());
    // The record that was read last, while nobody has asked for it, and what the client reads next.
    let (mut ahead, mut next) = (None::<Record>, None::<i64>);
    for offset in offsets.iter().copied() {
        if !(low..high).contains(&offset) {
            found.push(None);
            continue;
        }
        if ahead.as_ref().is_none_or(|ahead| ahead.offset < offset) {
            if next.is_none_or(|next| !(next..next.saturating_add(NEAR)).contains(&offset)) {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset)).map_err(failed)?;
                consumer.assign(&list).map_err(failed)?;
            }
            ahead = read_until(config, &consumer, at, offset)?;
            next = ahead.as_ref().map(|ahead| ahead.offset + 1);
        }
        found.push(ahead.take_if(|ahead| ahead.offset == offset));
    }
    Ok(found)
}

/// The first record from an offset on; `None` when there is none: compaction or a transaction took it away.
fn read_until(config: &KafkaConfig, consumer: &BaseConsumer, at: &TopicPartition, offset: i64) -> Result<Option<Record>> {
    let tries = config.request_timeout.as_millis() / WAIT.as_millis();
    let mut idle = 0;
    while idle < tries {
        match consumer.poll(WAIT) {
            Some(Ok(message)) if message.offset() >= offset => return Ok(Some(message::record(&message))),
            Some(Ok(_)) => idle = 0,
            Some(Err(KafkaError::PartitionEOF(_) | KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => return Ok(None),
            Some(Err(error)) if !error.rdkafka_error_code().is_some_and(is_outage) => return Err(Error::kafka("read", &at.topic, error)),
            _ => idle += 1,
        }
    }
    Err(Error::Unreachable { topic: at.topic.to_string(), reason: format!("offset {offset} was not read in time") })
}
