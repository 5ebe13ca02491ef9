//! A consumer of the embedded log: all partitions of its topics, in turn.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiro_ports::{Assignment, Gap, LogBatch, LogConsumer, Poll, PortError, Subscription};
use kiro_schemas::{OffsetVector, TopicPartition, invariant};

use super::topic::{Found, Topic};
use super::{Shared, blocking};
use crate::error::Error;

/// How long a poll waits for an append.
const WAIT: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    subscription: Subscription,
    assignment: Arc<dyn Assignment>,
    /// Topics whose partitions were assigned.
    known: BTreeSet<Arc<str>>,
    cursors: VecDeque<Cursor>,
    ready: VecDeque<Poll>,
}

#[derive(Debug)]
struct Cursor {
    topic: Arc<Topic>,
    at: TopicPartition,
    /// The offset that the next batch starts with; `None` is the beginning, wherever that is by then.
    start: Option<i64>,
}

impl EmbeddedConsumer {
    pub(super) fn new(shared: Arc<Shared>, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Self {
        Self { shared, subscription, assignment, known: BTreeSet::new(), cursors: VecDeque::new(), ready: VecDeque::new() }
    }

    /// Assigns the partitions of topics that are new.
    async fn assign(&mut self) -> Result<(), PortError> {
        let wanted = self.subscription.topics.iter().filter(|name| !self.known.contains(name.as_str()));
        let topics: Vec<Arc<Topic>> = wanted.filter_map(|name| self.shared.topic(name).ok()).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = topics.iter().flat_map(|topic| topic.partitions()).collect();
        let (assignment, asked) = (Arc::clone(&self.assignment), partitions.clone());
        let starts = blocking(move || Ok(assignment.start(&asked))).await?;
        self.known.extend(topics.iter().map(|topic| Arc::clone(&topic.name)));
        self.ready.push_back(Poll::Assigned(partitions.clone()));
        let mut starts = starts.into_iter();
        for topic in topics {
            for at in topic.partitions() {
                let start = starts.next().flatten();
                let marks = topic.watermarks(&at).map_err(PortError::of)?;
                match crate::gap::check(&at, start, marks) {
                    Some(gap) => self.ready.push_back(Poll::Gap(gap)),
                    None => self.cursors.push_back(Cursor { topic: Arc::clone(&topic), at, start }),
                }
            }
        }
        Ok(())
    }

    /// The next batch, if there is one; each partition in turn.
    async fn next_batch(&mut self) -> Result<Option<Poll>, PortError> {
        for _ in 0..self.cursors.len() {
            // The cursor stays in its place while this waits, so that a poll can be given up at any time.
            let Some(cursor) = self.cursors.front() else { break };
            let polled = read(cursor, self.subscription.max_batch_bytes, self.assignment.as_ref()).await?;
            match &polled {
                Some(Poll::Gap(_)) => drop(self.cursors.pop_front()),
                Some(Poll::Batch(batch)) => {
                    invariant!(OffsetsRise, batch.next > batch.start);
                    if let Some(cursor) = self.cursors.front_mut() {
                        cursor.start = Some(batch.next);
                    }
                    self.cursors.rotate_left(1);
                }
                _ => self.cursors.rotate_left(1),
            }
            if polled.is_some() {
                return Ok(polled);
            }
        }
        Ok(None)
    }
}

async fn read(cursor: &Cursor, max_bytes: usize, assignment: &dyn Assignment) -> Result<Option<Poll>, PortError> {
    let (topic, at, start) = (Arc::clone(&cursor.topic), cursor.at.clone(), cursor.start);
    let marks = topic.watermarks(&at).map_err(PortError::of)?;
    let from = start.unwrap_or(marks.low);
    if from >= marks.high {
        return Ok(None);
    }
    let found = blocking(move || topic.read(&at, from, max_bytes)).await?;
    let at = cursor.at.clone();
    match found {
        Found::Records(records) => {
            let Some(last) = records.last() else { return Err(PortError::of(missing(at, from))) };
            let next = last.offset + 1;
            let generation = assignment.generation(&at);
            Ok(Some(Poll::Batch(LogBatch { at, start: start.unwrap_or(0), next, generation, records })))
        }
        Found::Trimmed(low) => {
            // Retention came between the two looks; from the beginning on, the next poll finds the new one.
            let Some(start) = start else { return Ok(None) };
            let reason = format!("retention deleted the offsets {start} to {} before they were read", low - 1);
            Ok(Some(Poll::Gap(Gap { at, expected: start, found: Some(low), reason })))
        }
    }
}

fn missing(at: TopicPartition, offset: i64) -> Error {
    Error::Corrupt { at, offset, reason: "it is below the high watermark and not there" }
}

#[async_trait]
impl LogConsumer for EmbeddedConsumer {
    async fn poll(&mut self) -> Result<Poll, PortError> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Registered before the look, so that no append is missed between look and wait.
            let mut appended = std::pin::pin!(shared.appended.notified());
            appended.as_mut().enable();
            self.assign().await?;
            if let Some(ready) = self.ready.pop_front() {
                return Ok(ready);
            }
            if let Some(batch) = self.next_batch().await? {
                return Ok(batch);
            }
            if tokio::time::timeout(WAIT, appended).await.is_err() {
                return Ok(Poll::Idle);
            }
        }
    }

    /// The watermarks tell lag here; there is no tool to tell it to.
    async fn report(&mut self, _contained: &OffsetVector) -> Result<(), PortError> {
        Ok(())
    }
}
