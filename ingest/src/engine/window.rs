//! Repeats: the newest event ids, and where each was seen first.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use kiro_schemas::TopicPartition;

/// Where an event stands in the log: partition (by its number here), offset, place within the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    partition: u32,
    offset: i64,
    /// `None` is any place: rows of the lake do not tell theirs.
    index: Option<u32>,
}

/// A digest of tenant, source and event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64, u64);

impl Key {
    pub(super) fn of(tenant: &str, source: &str, id: &str) -> Self {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, tenant, source, id).hash(&mut hasher);
            hasher.finish()
        };
        Self(half(1), half(2))
    }
}

/// A bounded set of event ids. An event that is read a second time from the *same* place is no repeat: its rows may
/// have been dropped with its partition before they were committed.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    seen: HashMap<Key, Place>,
    order: VecDeque<Key>,
    partitions: HashMap<TopicPartition, u32>,
}

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), seen: HashMap::new(), order: VecDeque::new(), partitions: HashMap::new() }
    }

    pub(super) fn place(&mut self, at: &TopicPartition, offset: i64, index: Option<usize>) -> Place {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let partition = match self.partitions.get(at) {
            Some(number) => *number,
            None => *self.partitions.entry(at.clone()).or_insert(count),
        };
        Place { partition, offset, index: index.map(|i| u32::try_from(i).unwrap_or(u32::MAX)) }
    }

    /// Whether the event was seen at another place; remembers it if not.
    pub(super) fn is_repeat(&mut self, key: Key, place: Place) -> bool {
        if let Some(first) = self.seen.get(&key) {
            let same = first.partition == place.partition && first.offset == place.offset;
            return !(same && first.index.is_none_or(|i| place.index.is_none_or(|j| i == j)));
        }
        if self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(key, place);
        self.order.push_back(key);
        false
    }
}

#[cfg(test)]
mod tests {
    use kiro_schemas::TopicPartition;

    use super::{Key, Window};

    #[test]
    fn the_same_place_is_no_repeat_and_another_is() {
        let (mut window, at) = (Window::new(2), TopicPartition::new("events", 0));
        let key = Key::of("default", "https://ci/a", "1");
        let first = window.place(&at, 5, Some(0));
        assert!(!window.is_repeat(key, first));
        assert!(!window.is_repeat(key, first), "read again after a rebalance");
        let (twice, later) = (window.place(&at, 5, Some(1)), window.place(&at, 6, Some(0)));
        assert!(window.is_repeat(key, twice), "twice in one record");
        assert!(window.is_repeat(key, later));
        let elsewhere = window.place(&TopicPartition::new("events", 1), 5, Some(0));
        assert!(window.is_repeat(key, elsewhere));
    }

    #[test]
    fn it_forgets_the_oldest() {
        let (mut window, at) = (Window::new(2), TopicPartition::new("events", 0));
        for (offset, id) in ["a", "b", "c"].into_iter().enumerate() {
            let place = window.place(&at, i64::try_from(offset).expect("small"), None);
            assert!(!window.is_repeat(Key::of("t", "s", id), place));
        }
        let place = window.place(&at, 9, None);
        assert!(window.is_repeat(Key::of("t", "s", "c"), place));
        assert!(!window.is_repeat(Key::of("t", "s", "a"), place));
        assert!(!window.is_repeat(Key::of("u", "s", "c"), place), "another tenant's");
    }
}
