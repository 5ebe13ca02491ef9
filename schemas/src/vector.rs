//! Offset vectors: which part of the log something contains.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// For each partition the *next* offset: everything below it is contained. A partition that is absent stands at 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetVector(BTreeMap<TopicPartition, i64>);

impl OffsetVector {
    /// The next offset of a partition.
    #[must_use]
    pub fn next(&self, at: &TopicPartition) -> i64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// The next offset of a partition; `None` when it is absent.
    #[must_use]
    pub fn get(&self, at: &TopicPartition) -> Option<i64> {
        self.0.get(at).copied()
    }

    /// Sets the next offset of a partition.
    pub fn set(&mut self, at: TopicPartition, next: i64) {
        self.0.insert(at, next);
    }

    /// Moves a partition forward; never backwards.
    pub fn advance(&mut self, at: &TopicPartition, next: i64) {
        match self.0.get_mut(at) {
            Some(now) => *now = (*now).max(next),
            None => {
                self.0.insert(at.clone(), next);
            }
        }
    }

    /// The partitions in order with their next offsets.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.0.iter().map(|(at, next)| (at, *next))
    }

    /// Whether `self` contains all that `other` contains.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(at, next)| self.next(at) >= next)
    }
}

impl FromIterator<(TopicPartition, i64)> for OffsetVector {
    fn from_iter<I: IntoIterator<Item = (TopicPartition, i64)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Serialize for OffsetVector {
    /// As an object: `{"events/0": 1042}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (at, next) in &self.0 {
            map.serialize_entry(&at.to_string(), next)?;
        }
        map.end()
    }
}
