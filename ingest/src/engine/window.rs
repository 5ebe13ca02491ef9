//! Repeats: the newest event ids, and where each was seen first.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashTable;
use kiro_schemas::TopicPartition;

/// Any place within a record: rows of the lake do not tell theirs.
const ANYWHERE: u32 = u32::MAX;

/// Where an event stands in the log: partition (by its number here), offset, place within the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    offset: i64,
    partition: u32,
    index: u32,
}

impl Place {
    /// Whether both are one place, as far as they tell.
    fn is_same(self, other: Self) -> bool {
        let is_near = self.partition == other.partition && self.offset == other.offset;
        is_near && (self.index == other.index || self.index == ANYWHERE || other.index == ANYWHERE)
    }
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
///
/// There are a million of them by default: 32 bytes for each, and 10 for finding it.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    /// What was seen; full, it is written anew from its beginning.
    entries: Vec<(Key, Place)>,
    oldest: usize,
    /// Where in `entries` a key is.
    found: HashTable<u32>,
    partitions: HashMap<TopicPartition, u32>,
}

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, u32::MAX as usize);
        Self { limit, entries: Vec::new(), oldest: 0, found: HashTable::new(), partitions: HashMap::new() }
    }

    pub(super) fn place(&mut self, at: &TopicPartition, offset: i64, index: Option<usize>) -> Place {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let partition = match self.partitions.get(at) {
            Some(number) => *number,
            None => *self.partitions.entry(at.clone()).or_insert(count),
        };
        Place { partition, offset, index: index.map_or(ANYWHERE, |i| u32::try_from(i).unwrap_or(ANYWHERE)) }
    }

    /// Whether the event was seen at another place; remembers it if not.
    pub(super) fn is_repeat(&mut self, key: Key, place: Place) -> bool {
        let Self { entries, found, .. } = self;
        if let Some(at) = found.find(key.0, |at| entries[*at as usize].0 == key) {
            return !entries[*at as usize].1.is_same(place);
        }
        if entries.len() < self.limit {
            entries.push((key, place));
            self.remember(self.entries.len() - 1);
        } else {
            self.forget();
            self.entries[self.oldest] = (key, place);
            self.remember(self.oldest);
            self.oldest = (self.oldest + 1) % self.limit;
        }
        false
    }

    /// Forgets what was seen of a partition from an offset on: its rows were dropped before they were committed, so the next
    /// place that has the event is its first.
    pub(super) fn forget_from(&mut self, at: &TopicPartition, offset: i64) {
        let Some(partition) = self.partitions.get(at).copied() else { return };
        let Self { entries, found, .. } = self;
        found.retain(|at| {
            let (_, place) = entries[*at as usize];
            place.partition != partition || place.offset < offset
        });
    }

    fn remember(&mut self, at: usize) {
        let Self { entries, found, .. } = self;
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        found.insert_unique(entries[at].0.0, number, |at| entries[*at as usize].0.0);
    }

    fn forget(&mut self) {
        let oldest = self.oldest;
        if let Ok(entry) = self.found.find_entry(self.entries[oldest].0.0, |at| *at as usize == oldest) {
            let (_number, _place) = entry.remove();
        }
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
    fn it_is_right_over_many_rounds() {
        let (mut window, at) = (Window::new(100), TopicPartition::new("events", 0));
        for number in 0..1_000_i64 {
            let (place, elsewhere) = (window.place(&at, number, Some(0)), window.place(&at, number + 5_000, Some(0)));
            let key = |number: i64| Key::of("t", "s", &number.to_string());
            assert!(!window.is_repeat(key(number), place));
            for (back, is_known) in [(0, true), (99, true), (50, true)] {
                assert_eq!(number < back || window.is_repeat(key(number - back), elsewhere), is_known, "{number} - {back}");
            }
        }
    }

    #[test]
    fn what_was_dropped_with_its_partition_was_not_seen() {
        let (mut window, one, two) = (Window::new(3), TopicPartition::new("events", 1), TopicPartition::new("events", 2));
        let key = |id| Key::of("t", "s", id);
        for (id, at, offset) in [("a", &one, 4), ("b", &one, 5), ("c", &two, 5)] {
            let place = window.place(at, offset, Some(0));
            assert!(!window.is_repeat(key(id), place));
        }
        window.forget_from(&one, 5);
        let (elsewhere, first) = (window.place(&two, 9, Some(0)), window.place(&one, 5, Some(0)));
        assert!(window.is_repeat(key("a"), elsewhere), "its row is in the lake");
        assert!(window.is_repeat(key("c"), first), "another partition's");
        assert!(!window.is_repeat(key("b"), elsewhere), "nobody has its row");
        assert!(window.is_repeat(key("b"), first), "now it stands elsewhere");
        assert!(!window.is_repeat(key("d"), elsewhere) && !window.is_repeat(key("e"), elsewhere));
        assert!(window.is_repeat(key("b"), first), "what was forgotten makes room first");
    }

    #[test]
    fn it_forgets_the_oldest() {
        let (mut window, at) = (Window::new(2), TopicPartition::new("events", 0));
        for (offset, id) in ["a", "b", "c"].into_iter().enumerate() {
            let place = window.place(&at, i64::try_from(offset).expect("small"), None);
            assert!(!window.is_repeat(Key::of("t", "s", id), place));
        }
        let place = window.place(&at, 9, None);
        assert!(window.is_repeat(Key::of("t", "s", "b"), place));
        assert!(window.is_repeat(Key::of("t", "s", "c"), place));
        assert!(!window.is_repeat(Key::of("t", "s", "a"), place));
        assert!(!window.is_repeat(Key::of("u", "s", "c"), place), "another tenant's");
    }
}
