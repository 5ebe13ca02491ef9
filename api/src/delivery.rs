//! The body of a delivery: who sends it has proven nothing yet, so it is bounded in bytes, in time and in how many large ones there
//! are at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Error, Result};

/// A delivery with more bytes is large: it needs a place.
const LARGE: usize = 1 << 20;
/// Large deliveries that are taken at a time: this bounds what anybody can make us hold.
const MOST_LARGE: usize = 8;

/// How long a delivery is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until its next byte.
    silence: Duration,
    /// Until its last one.
    whole: Duration,
    /// A large one that comes for longer gives its place to another when there is none.
    grace: Duration,
}

const PATIENCE: Patience = Patience { silence: Duration::from_secs(10), whole: Duration::from_secs(30), grace: Duration::from_secs(5) };

/// The places of large deliveries.
#[derive(Debug)]
pub(crate) struct Places {
    held: Mutex<Held>,
    patience: Patience,
}

#[derive(Debug, Default)]
struct Held {
    /// How many there were so far.
    count: u64,
    /// Those that are taken, in their order; `None` is one that has come whole and is worked on.
    taken: BTreeMap<u64, Option<Coming>>,
}

/// A large delivery that has not come whole.
#[derive(Debug)]
struct Coming {
    since: Instant,
    /// Told when it has to make room.
    pushed: Arc<Notify>,
}

impl Default for Places {
    fn default() -> Self {
        Self { held: Mutex::default(), patience: PATIENCE }
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; that of the one that has come for longest when all are taken and it is slow.
    fn take(&self) -> Result<Place<'_>> {
        let mut held = self.lock();
        if held.taken.len() >= MOST_LARGE {
            let slow = |coming: &Coming| coming.since.elapsed() >= self.patience.grace;
            let slowest = held.taken.iter().find_map(|(number, coming)| coming.as_ref().filter(|c| slow(c)).map(|_| *number));
            let pushed = slowest.and_then(|number| held.taken.remove(&number)).flatten().ok_or(Error::Crowded)?;
            pushed.pushed.notify_one();
        }
        let (number, pushed) = (held.count, Arc::new(Notify::new()));
        held.count += 1;
        held.taken.insert(number, Some(Coming { since: Instant::now(), pushed: Arc::clone(&pushed) }));
        Ok(Place { places: self, number, pushed })
    }
}

/// One of the large deliveries that are taken at a time.
#[derive(Debug)]
pub(crate) struct Place<'p> {
    places: &'p Places,
    number: u64,
    pushed: Arc<Notify>,
}

impl Place<'_> {
    /// It has come whole: it makes room for nobody.
    fn keep(&self) {
        if let Some(coming) = self.places.lock().taken.get_mut(&self.number) {
            *coming = None;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.number);
    }
}

/// Waits until a place has to be given up.
async fn pushed(place: Option<&Place<'_>>) {
    match place {
        Some(place) => place.pushed.notified().await,
        None => std::future::pending().await,
    }
}

/// Reads a body of at most so many bytes; with it the place that it takes, which is held as long as the bytes are.
pub(crate) async fn read(body: Body, limit: usize, places: &Places) -> Result<(Bytes, Option<Place<'_>>)> {
    let patience = places.patience;
    let slow = |what: &str, time: Duration| Error::Slow { what: format!("{what} {} s", time.as_secs_f32()) };
    let whole = tokio::time::sleep(patience.whole);
    tokio::pin!(whole);
    let (mut pieces, mut bytes, mut place) = (body.into_data_stream(), BytesMut::new(), None);
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(patience.silence, pieces.next()) => next,
            () = &mut whole => return Err(slow("it was not whole after", patience.whole)),
            () = pushed(place.as_ref()) => return Err(slow("others wait for its place, and it has come for longer than", patience.grace)),
        };
        let Some(piece) = next.map_err(|_elapsed| slow("nothing came for", patience.silence))? else { break };
        let piece = piece.map_err(|error| Error::BadRequest { what: format!("the body cannot be read: {error}") })?;
        let size = bytes.len() + piece.len();
        if size > limit {
            return Err(Error::TooLarge { size, limit });
        }
        if size > LARGE && place.is_none() {
            place = Some(places.take()?);
        }
        bytes.extend_from_slice(&piece);
    }
    if let Some(place) = &place {
        place.keep();
    }
    Ok((bytes.freeze(), place))
}

#[cfg(test)]
mod tests;
