//! Reads a log for the checks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kiro_ports::{Assignment, EventLog, Gap, LogConsumer, NewRecord, Poll, Record, Subscription};
use kiro_schemas::TopicPartition;

use super::Broken;

/// Polls of 100 ms that may pass without anything; a broker needs some seconds for a group.
const PATIENCE: usize = 600;

/// Starts at fixed offsets, and keeps what was taken away.
#[derive(Debug, Default)]
pub(super) struct Starts {
    pub(super) at: BTreeMap<TopicPartition, i64>,
    pub(super) revoked: Mutex<Vec<TopicPartition>>,
}

impl Assignment for Starts {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>> {
        partitions.iter().map(|at| self.at.get(at).copied()).collect()
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(partitions);
    }
}

pub(super) struct Reader {
    consumer: Box<dyn LogConsumer>,
    pub(super) assigned: Vec<TopicPartition>,
    pub(super) records: BTreeMap<TopicPartition, Vec<Record>>,
    pub(super) gaps: Vec<Gap>,
    pub(super) batches: usize,
    next: BTreeMap<TopicPartition, i64>,
}

impl Reader {
    pub(super) async fn open(
        log: &Arc<dyn EventLog>,
        topics: &[&str],
        group: Option<String>,
        at: &[(TopicPartition, i64)],
    ) -> Result<Self, Broken> {
        Self::open_sized(
            log,
            Subscription { topics: topics.iter().map(ToString::to_string).collect(), group, max_batch_bytes: 1 << 20 },
            at,
        )
        .await
    }

    pub(super) async fn open_sized(
        log: &Arc<dyn EventLog>,
        subscription: Subscription,
        at: &[(TopicPartition, i64)],
    ) -> Result<Self, Broken> {
        let at: BTreeMap<_, _> = at.iter().cloned().collect();
        let starts = Arc::new(Starts { at: at.clone(), ..Starts::default() });
        let consumer = log.consume(subscription, starts).await?;
        Ok(Self { consumer, assigned: Vec::new(), records: BTreeMap::new(), gaps: Vec::new(), batches: 0, next: at })
    }

    pub(super) fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    /// Polls until `enough`, checking what holds of every batch.
    pub(super) async fn until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<(), Broken> {
        let mut idle = 0;
        while !enough(self) {
            if self.poll().await? {
                idle = 0;
            } else {
                idle += 1;
            }
            expect(idle < PATIENCE, || format!("nothing came, after {} records and {} gaps", self.count(), self.gaps.len()))?;
        }
        Ok(())
    }

    /// Polls once; whether anything came.
    pub(super) async fn poll(&mut self) -> Result<bool, Broken> {
        match self.consumer.poll().await? {
            Poll::Idle => return Ok(false),
            Poll::Assigned(partitions) => self.assigned.extend(partitions),
            Poll::Revoked(partitions) => self.assigned.retain(|at| !partitions.contains(at)),
            Poll::Gap(gap) => self.gaps.push(gap),
            Poll::Batch(batch) => {
                expect(self.assigned.contains(&batch.at), || format!("a batch of {} came before its assignment", batch.at))?;
                let asked = self.next.get(&batch.at).copied().unwrap_or(0);
                expect(batch.start == asked, || format!("{} was to go on at {asked}, not at {}", batch.at, batch.start))?;
                let last = batch.records.last().map_or(batch.start - 1, |record| record.offset);
                expect(batch.next > last && batch.next > batch.start, || format!("{} ends at {last}, next is {}", batch.at, batch.next))?;
                let rise = batch.records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
                let within = batch.records.iter().all(|record| record.offset >= batch.start);
                expect(rise && within, || format!("offsets of {} do not rise from {}", batch.at, batch.start))?;
                self.batches += 1;
                self.next.insert(batch.at.clone(), batch.next);
                self.records.entry(batch.at).or_default().extend(batch.records);
            }
        }
        Ok(true)
    }

    /// The values of a partition as text.
    pub(super) fn values(&self, at: &TopicPartition) -> Vec<String> {
        self.records.get(at).into_iter().flatten().map(|record| text(record.value.as_ref())).collect()
    }
}

pub(super) fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::Promise(what())) }
}

pub(super) fn text(bytes: Option<&Bytes>) -> String {
    bytes.map_or_else(|| "none".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub(super) fn record(topic: &str, key: Option<&str>, value: impl Into<String>) -> NewRecord {
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    NewRecord { topic: topic.to_owned(), key, value: Bytes::from(value.into()), headers: Vec::new() }
}
