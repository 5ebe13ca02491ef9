//! Which partitions a consumer has, and what comes next from each. Changes while the client rebalances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiro_ports::{Assignment, Clock, Poll, Watermarks};
use kiro_schemas::TopicPartition;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::health::Health;
use crate::gap;

/// The context of a consumer.
pub(super) struct Owned {
    assignment: Arc<dyn Assignment>,
    pub(super) health: Arc<Health>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The next offset of each partition that is read; `None` until the first record of one that is read from its beginning.
    pub(super) expected: BTreeMap<TopicPartition, Option<i64>>,
    /// The partitions that the client fetches, those that were stopped since included.
    held: BTreeSet<TopicPartition>,
    /// The partitions that were assigned once, for a consumer without a group.
    known: BTreeSet<TopicPartition>,
    /// What the consumer is to be told, in order.
    pub(super) events: Vec<Poll>,
}

impl Owned {
    pub(super) fn new(assignment: Arc<dyn Assignment>, health: Arc<Health>, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        Self { assignment, health, clock, timeout, state: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the partition was assigned before, stopped or not.
    pub(super) fn is_known(&self, at: &TopicPartition) -> bool {
        self.state().known.contains(at)
    }

    /// Finds where new partitions start, and gives the list to assign. Those with a gap are not in it.
    pub(super) fn begin(&self, consumer: &BaseConsumer<Self>, partitions: &[TopicPartition]) -> KafkaResult<TopicPartitionList> {
        let starts = self.assignment.start(partitions);
        {
            let mut state = self.state();
            state.known.extend(partitions.iter().cloned());
            state.events.push(Poll::Assigned(partitions.to_vec()));
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (at, start) in partitions.iter().zip(starts) {
            if let Some(offset) = self.place(consumer, at, start) {
                list.add_partition_offset(&at.topic, at.partition, offset)?;
                let mut state = self.state();
                state.expected.insert(at.clone(), start);
                state.held.insert(at.clone());
            }
        }
        Ok(list)
    }

    pub(super) fn generation(&self, at: &TopicPartition) -> u64 {
        self.assignment.generation(at)
    }

    /// The offset to fetch from; `None` when there is a gap, which is told.
    fn place(&self, consumer: &BaseConsumer<Self>, at: &TopicPartition, start: Option<i64>) -> Option<Offset> {
        match consumer.fetch_watermarks(&at.topic, at.partition, self.timeout) {
            Ok((low, high)) => match gap::check(at, start, Watermarks { low, high }) {
                Some(gap) => {
                    tracing::error!(partition = %at, expected = gap.expected, found = gap.found, reason = gap.reason, "partition stopped");
                    self.state().events.push(Poll::Gap(gap));
                    None
                }
                None => Some(Offset::Offset(start.unwrap_or(low))),
            },
            // The fetch finds out: an offset that is not there is an error then, since nothing resets it.
            Err(error) => {
                tracing::warn!(partition = %at, %error, "watermarks not read at the assignment");
                Some(start.map_or(Offset::Beginning, Offset::Offset))
            }
        }
    }

    /// All that is fetched without a group, each at its next offset.
    pub(super) fn positions(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        let expected = self.state().expected.clone();
        for (at, next) in expected {
            if let Some(offset) = self.place(consumer, &at, next) {
                list.add_partition_offset(&at.topic, at.partition, offset)?;
            } else {
                self.state().expected.remove(&at);
            }
        }
        Ok(list)
    }

    /// Stops the partitions that the log no longer fits, after the client said that an offset is out of range.
    pub(super) fn recheck(&self, consumer: &BaseConsumer<Self>) {
        let expected = self.state().expected.clone();
        for (at, next) in expected {
            let Some(Offset::Offset(offset)) = self.place(consumer, &at, next) else {
                self.state().expected.remove(&at);
                continue;
            };
            if next.is_none() && self.place_anew(consumer, &at, offset).is_err() {
                tracing::warn!(partition = %at, "partition cannot be placed at the beginning that moved");
            }
        }
    }

    /// Retention moved the beginning before the first fetch.
    fn place_anew(&self, consumer: &BaseConsumer<Self>, at: &TopicPartition, offset: i64) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                consumer.incremental_unassign(&list)?;
                consumer.incremental_assign(&list)
            }
            _ => consumer.assign(&self.positions(consumer)?),
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[TopicPartition]) -> KafkaResult<()> {
        let list = self.begin(consumer, partitions)?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            _ => consumer.assign(&list),
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: Vec<TopicPartition>) -> KafkaResult<()> {
        self.assignment.revoked(&partitions);
        let mut list = TopicPartitionList::new();
        {
            let mut state = self.state();
            for at in &partitions {
                state.expected.remove(at);
                if state.held.remove(at) {
                    list.add_partition(&at.topic, at.partition);
                }
            }
            state.events.push(Poll::Revoked(partitions));
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&list),
            _ => consumer.unassign(),
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| TopicPartition::new(element.topic(), element.partition())).collect()
}

impl ClientContext for Owned {
    fn error(&self, error: KafkaError, reason: &str) {
        self.health.hear(&error, reason);
    }
}

impl ConsumerContext for Owned {
    /// Offsets are set here, before the first fetch, so that no record from elsewhere ever arrives.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partitions_of(list);
        tracing::info!(?what, ?partitions, "partitions change");
        let done = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, &partitions)
        } else {
            self.revoke(consumer, partitions)
        };
        if let Err(error) = done {
            tracing::error!(%error, "partitions could not be changed");
        }
    }
}
