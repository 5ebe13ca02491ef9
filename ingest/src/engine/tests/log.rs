//! A log in memory: partitions that members share, retention, topics that are recreated.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiro_ports::{
    Assignment, Clock, EventLog, Gap, LogBatch, LogConsumer, LogState, NewRecord, Poll, PortError, Position, Record, Subscription,
    Watermarks,
};
use kiro_schemas::{Micros, OffsetVector, TopicPartition};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::crash::{CrashPoint, Life};
use super::lake::failure;
use super::time::{SimClock, sleep};

pub(super) const TOPIC: &str = "events";

#[derive(Debug, Default)]
struct Partition {
    records: BTreeMap<i64, Record>,
    low: i64,
    high: i64,
    owner: Option<usize>,
}

/// What all processes see of the log.
#[derive(Debug)]
pub(super) struct SimLog {
    partitions: Mutex<Vec<Partition>>,
    clock: Arc<SimClock>,
}

pub(super) fn at(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

impl SimLog {
    pub(super) fn new(partitions: i32, clock: Arc<SimClock>) -> Self {
        Self { partitions: Mutex::new((0..partitions).map(|_| Partition::default()).collect()), clock }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record, or leaves its offset out as transactions do.
    pub(super) fn append(&self, partition: i32, value: Option<Bytes>, is_left_out: bool) -> i64 {
        let mut all = self.lock();
        let partition = &mut all[index(partition)];
        let offset = partition.high;
        partition.high += 1;
        if !is_left_out {
            let recorded_at = self.clock.now();
            partition.records.insert(offset, Record { offset, recorded_at, key: None, value, headers: Vec::new() });
        }
        offset
    }

    pub(super) fn owners(&self) -> Vec<Option<usize>> {
        self.lock().iter().map(|p| p.owner).collect()
    }

    pub(super) fn give(&self, partition: i32, owner: Option<usize>) {
        self.lock()[index(partition)].owner = owner;
    }

    pub(super) fn marks(&self, partition: i32) -> Watermarks {
        let all = self.lock();
        Watermarks { low: all[index(partition)].low, high: all[index(partition)].high }
    }

    /// Retention deletes what is below.
    pub(super) fn trim(&self, partition: i32, low: i64) {
        let mut all = self.lock();
        let partition = &mut all[index(partition)];
        partition.low = partition.low.max(low.min(partition.high));
        partition.records = partition.records.split_off(&partition.low);
    }

    /// The topic is deleted and made again; the partition holds so many other records then.
    pub(super) fn recreate(&self, partition: i32, count: i64) {
        let mut all = self.lock();
        let partition = &mut all[index(partition)];
        let recorded_at = Micros(self.clock.now().0 + 1);
        let record = |offset| Record { offset, recorded_at, key: None, value: Some(Bytes::from_static(b"{")), headers: Vec::new() };
        partition.records = (0..count).map(|offset| (offset, record(offset))).collect();
        (partition.low, partition.high) = (0, count);
    }
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).expect("a partition")
}

/// The log as one process sees it.
#[derive(Debug)]
pub(super) struct MemberLog {
    pub(super) log: Arc<SimLog>,
    pub(super) life: Arc<Life>,
    /// Whether it reads all partitions, whoever owns them.
    pub(super) reads_all: bool,
    pub(super) seed: u64,
}

#[async_trait]
impl EventLog for MemberLog {
    async fn ensure_topic(&self, _topic: &str, _partitions: i32) -> Result<(), PortError> {
        Ok(())
    }

    async fn append(&self, _records: Vec<NewRecord>) -> Result<Vec<Position>, PortError> {
        Err(failure("the engine appends nothing"))
    }

    async fn consume(&self, _subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError> {
        let random = StdRng::seed_from_u64(self.seed);
        let (log, life, reads_all) = (Arc::clone(&self.log), Arc::clone(&self.life), self.reads_all);
        Ok(Box::new(SimConsumer { log, life, reads_all, assignment, known: BTreeMap::new(), told: VecDeque::new(), random, sleepy: 0 }))
    }

    async fn watermarks(&self, _topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError> {
        let count = i32::try_from(self.log.lock().len()).expect("few");
        Ok((0..count).map(|p| (at(p), self.log.marks(p))).collect())
    }

    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError> {
        sleep(Duration::from_millis(1)).await;
        Ok(self.log.lock()[index(at.partition)].records.get(&offset).cloned())
    }

    fn state(&self) -> LogState {
        LogState::Up
    }
}

/// Where a partition is read.
#[derive(Debug, Clone, Copy)]
enum Cursor {
    /// `None` is the beginning.
    At(Option<i64>),
    Stopped,
}

struct SimConsumer {
    log: Arc<SimLog>,
    life: Arc<Life>,
    reads_all: bool,
    assignment: Arc<dyn Assignment>,
    /// Partitions that were assigned.
    known: BTreeMap<i32, Cursor>,
    told: VecDeque<Poll>,
    random: StdRng,
    /// For so many polls it does not hear of rebalances: the others go on without it.
    sleepy: u32,
}

impl SimConsumer {
    /// Gives up what is no longer its own.
    async fn give_up(&mut self, owned: &[i32]) -> Option<Poll> {
        let gone: Vec<i32> = self.known.keys().filter(|p| !owned.contains(p)).copied().collect();
        if gone.is_empty() {
            return None;
        }
        self.life.pass(CrashPoint::Revoked).await;
        let partitions: Vec<_> = gone.iter().map(|p| at(*p)).collect();
        self.assignment.revoked(&partitions);
        self.known.retain(|p, _| !gone.contains(p));
        self.life.trace.note(format_args!("member {} gives up {gone:?}", self.life.member));
        Some(Poll::Revoked(partitions))
    }

    async fn take_over(&mut self, owned: &[i32]) -> Option<Poll> {
        let new: Vec<i32> = owned.iter().filter(|p| !self.known.contains_key(p)).copied().collect();
        if new.is_empty() {
            return None;
        }
        self.life.pass(CrashPoint::BeforeAssignment).await;
        let partitions: Vec<_> = new.iter().map(|p| at(*p)).collect();
        let starts = self.assignment.start(&partitions);
        self.life.trace.note(format_args!("member {} takes {new:?} from {starts:?}", self.life.member));
        self.life.pass(CrashPoint::AfterAssignment).await;
        for (partition, start) in new.into_iter().zip(starts) {
            let marks = self.log.marks(partition);
            let gap = start.and_then(|start| {
                let is_beyond = start > marks.high;
                let found = (!is_beyond).then_some(marks.low);
                let reason = if is_beyond { "recreated" } else { "retention" }.to_owned();
                (is_beyond || start < marks.low).then(|| Gap { at: at(partition), expected: start, found, reason })
            });
            self.known.insert(partition, if gap.is_none() { Cursor::At(start) } else { Cursor::Stopped });
            self.told.extend(gap.map(Poll::Gap));
        }
        Some(Poll::Assigned(partitions))
    }

    /// A few records of some partition that has any.
    fn read(&mut self) -> Option<Poll> {
        let log = self.log.lock();
        let with_news: Vec<(i32, Option<i64>)> = self
            .known
            .iter()
            .filter_map(|(p, cursor)| match cursor {
                Cursor::At(next) => Some((*p, *next)),
                Cursor::Stopped => None,
            })
            .filter(|(p, next)| next.unwrap_or(log[index(*p)].low) < log[index(*p)].high)
            .collect();
        let (partition, start) = *with_news.get(self.random.gen_range(0..with_news.len().max(1)))?;
        let found = &log[index(partition)];
        if let Some(expected) = start.filter(|start| *start < found.low) {
            self.known.insert(partition, Cursor::Stopped);
            return Some(Poll::Gap(Gap { at: at(partition), expected, found: Some(found.low), reason: "retention".to_owned() }));
        }
        let from = start.unwrap_or(found.low);
        let records: Vec<Record> = found.records.range(from..).map(|(_, r)| r.clone()).take(self.random.gen_range(1..6)).collect();
        // Offsets that are left out at the end come with the record after them.
        let next = records.last()?.offset + 1;
        self.known.insert(partition, Cursor::At(Some(next)));
        let generation = self.assignment.generation(&at(partition));
        Some(Poll::Batch(LogBatch { at: at(partition), start: start.unwrap_or(0), next, generation, records }))
    }
}

#[async_trait]
impl LogConsumer for SimConsumer {
    async fn poll(&mut self) -> Result<Poll, PortError> {
        sleep(Duration::from_micros(self.random.gen_range(500..20_000))).await;
        if self.life.is_dead() {
            std::future::pending::<()>().await;
        }
        if self.random.gen_bool(0.01) {
            return Err(failure("a poll that fails"));
        }
        if self.sleepy == 0 {
            let owners = self.log.owners();
            let is_owned = |owner: &Option<usize>| self.reads_all || *owner == Some(self.life.member);
            let owned: Vec<i32> = (0..).zip(&owners).filter(|(_, owner)| is_owned(owner)).map(|(p, _)| p).collect();
            let is_robbed = self.known.keys().any(|p| !owned.contains(p));
            if is_robbed && self.random.gen_bool(0.2) {
                self.sleepy = self.random.gen_range(5..40);
            } else if let Some(poll) = self.give_up(&owned).await {
                return Ok(poll);
            } else if let Some(poll) = self.take_over(&owned).await {
                return Ok(poll);
            }
        }
        self.sleepy = self.sleepy.saturating_sub(1);
        if let Some(poll) = self.told.pop_front() {
            return Ok(poll);
        }
        if let Some(poll) = self.read() {
            self.life.pass(CrashPoint::BatchRead).await;
            return Ok(poll);
        }
        sleep(Duration::from_millis(self.random.gen_range(1..30))).await;
        Ok(Poll::Idle)
    }

    async fn report(&mut self, _contained: &OffsetVector) -> Result<(), PortError> {
        self.life.pass(CrashPoint::Report).await;
        Ok(())
    }
}
