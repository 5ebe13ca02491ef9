//! The event log: the only way in.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiro_schemas::{Micros, OffsetVector, TopicPartition};

use crate::{Headers, PortError};

/// The header by which a record is known when it comes twice, since the log may take an append and not say so: when a door took
/// it, in microseconds since the epoch and for no other record of that door, `-`, and the door.
pub const RECORD_ID: &str = "kiro-record";

/// A record to append.
#[derive(Debug, Clone, Default)]
pub struct NewRecord {
    /// The topic.
    pub topic: String,
    /// Records with the same key keep their order; without one they are spread.
    pub key: Option<Bytes>,
    /// The bytes.
    pub value: Bytes,
    /// Names and values beside the bytes.
    pub headers: Headers,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub at: TopicPartition,
    /// The offset.
    pub offset: i64,
}

/// A record of the log.
#[derive(Debug, Clone)]
pub struct Record {
    /// The offset in its partition.
    pub offset: i64,
    /// When the log took it.
    pub recorded_at: Micros,
    /// The key.
    pub key: Option<Bytes>,
    /// The bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Names and values beside the bytes.
    pub headers: Headers,
}

/// Records of one partition, in order.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// The partition.
    pub at: TopicPartition,
    /// The offset that was asked for: the batch contains all that is there from it on.
    pub start: i64,
    /// The offset to ask for next; larger than the last record's by one, or by more where the log skips.
    pub next: i64,
    /// [`Assignment::generation`] when it was read.
    pub generation: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// A part of the log that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The partition, which is stopped.
    pub at: TopicPartition,
    /// The offset that was to come next.
    pub expected: i64,
    /// The first offset that is there, if one is.
    pub found: Option<i64>,
    /// Why, in a sentence.
    pub reason: String,
}

/// What a poll brings.
#[derive(Debug)]
pub enum Poll {
    /// Records.
    Batch(LogBatch),
    /// Partitions were assigned; they start where [`Assignment::start`] said.
    Assigned(Vec<TopicPartition>),
    /// Partitions were taken away; nothing more comes from them.
    Revoked(Vec<TopicPartition>),
    /// A partition was stopped.
    Gap(Gap),
    /// Nothing for now.
    Idle,
}

/// Which partitions a consumer wants.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The topics.
    pub topics: Vec<String>,
    /// The consumer group that shares the partitions; `None` reads all partitions alone.
    pub group: Option<String>,
    /// Records of one poll hold at most this many bytes, or one record.
    pub max_batch_bytes: usize,
}

/// Tells a consumer where to start. Called from the consumer's own thread, which may block.
pub trait Assignment: Send + Sync + std::fmt::Debug {
    /// The next offset of each partition, from what the tables hold; `None` where they know nothing of it: from the beginning,
    /// wherever that is. An offset that is not there any more is a gap, 0 like any other.
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>>;
    /// The partitions are taken away: nothing of theirs may be committed from now on.
    fn revoked(&self, partitions: &[TopicPartition]);
    /// How often the partition was taken away so far. A batch says it, so that one that was read before is known when the
    /// partition has come back meanwhile, to be read from elsewhere. Who is never given a partition twice need not count.
    fn generation(&self, _partition: &TopicPartition) -> u64 {
        0
    }
}

/// How the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// It answers.
    Up,
    /// It does not answer; appends are refused, polls are idle, and it is tried again.
    Down {
        /// Why, in a sentence.
        reason: String,
    },
}

/// The first and the next offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset that is there.
    pub low: i64,
    /// Offset that the next record will get.
    pub high: i64,
}

/// The event log.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// Makes sure that a topic is there, with this many partitions if it has to be created.
    async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<(), PortError>;
    /// Appends records; they are durable when this returns, and their positions are in the order of the records. There are no
    /// positions when the records are kept for a log that is away, and go into it later.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, PortError>;
    /// Begins to consume.
    async fn consume(&self, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError>;
    /// The watermarks of each partition of a topic.
    async fn watermarks(&self, topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError>;
    /// One record, for replay of a dead letter; `None` when it is gone.
    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError>;
    /// The records of a partition at offsets that rise; `None` for each that is gone.
    async fn read_each(&self, at: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<Record>>, PortError> {
        let mut found = Vec::with_capacity(offsets.len());
        for offset in offsets {
            found.push(self.read(at, *offset).await?);
        }
        Ok(found)
    }
    /// How it is.
    fn state(&self) -> LogState;
}

/// One consumer of the log.
#[async_trait]
pub trait LogConsumer: Send {
    /// Waits for what comes next, at most about 100 ms.
    async fn poll(&mut self) -> Result<Poll, PortError>;
    /// Tells lag tools how far we are; the truth is in the tables.
    async fn report(&mut self, contained: &OffsetVector) -> Result<(), PortError>;
}
