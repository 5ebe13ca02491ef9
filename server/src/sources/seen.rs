//! Deliveries that were taken, so that one that is sent again is not appended again. Only the newest are remembered, and no
//! other door nor the next life of the process knows them: that costs a repeat in the log, and no row, since the ids of events
//! follow from their content.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use kiro_ports::Headers;
use sha2::{Digest as _, Sha256};

/// Deliveries that are remembered: about ten megabytes.
const MOST: usize = 200_000;

/// A digest of a delivery.
pub(crate) type Key = [u8; 16];

/// The newest deliveries; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Seen(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    known: HashSet<Key>,
    order: VecDeque<Key>,
    most: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self::with_room(MOST)
    }
}

impl Seen {
    fn with_room(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Ring { known: HashSet::new(), order: VecDeque::new(), most })))
    }

    /// What a delivery is known by. An id alone does not do: no platform signs it, so that whoever has one could keep another
    /// delivery out with it.
    pub(crate) fn key(source: &str, id: &str, headers: &Headers, body: &[u8]) -> Key {
        let mut hasher = Sha256::new();
        let parts = [source.as_bytes(), id.as_bytes()].into_iter();
        for part in parts.chain(headers.iter().map(|(_, value)| value.as_ref())).chain([body]) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let mut key = Key::default();
        key.iter_mut().zip(digest).for_each(|(byte, of)| *byte = of);
        key
    }

    /// Whether it was taken.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.contains(key)
    }

    /// Remembers one that is in the log, and forgets the oldest when there is no room.
    pub(crate) fn remember(&self, key: Key) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ring.known.insert(key) {
            return;
        }
        ring.order.push_back(key);
        if ring.order.len() > ring.most
            && let Some(oldest) = ring.order.pop_front()
        {
            ring.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiro_ports::Headers;

    use super::Seen;

    #[test]
    fn a_delivery_is_known_by_all_that_it_says() {
        let headers = |event: &'static str| -> Headers { vec![("x-event".to_owned(), Bytes::from_static(event.as_bytes()))] };
        let key = Seen::key("a", "1", &headers("push"), b"{}");
        assert_eq!(key, Seen::key("a", "1", &headers("push"), b"{}"));
        for other in [
            Seen::key("b", "1", &headers("push"), b"{}"),
            Seen::key("a", "2", &headers("push"), b"{}"),
            Seen::key("a", "1", &headers("status"), b"{}"),
            Seen::key("a", "1", &headers("push"), b"[]"),
            Seen::key("a1", "", &headers("push"), b"{}"),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let seen = Seen::with_room(3);
        let key = |id: usize| Seen::key("a", &id.to_string(), &Headers::new(), b"");
        for id in [0, 1, 1, 2] {
            seen.remember(key(id));
        }
        assert!((0..3).all(|id| seen.has(&key(id))));
        seen.remember(key(3));
        assert!(!seen.has(&key(0)) && (1..4).all(|id| seen.has(&key(id))));
        let ring = seen.0.lock().expect("a lock");
        assert_eq!((ring.known.len(), ring.order.len()), (3, 3));
    }
}
