//! Whose turn it is: so many walks of a platform go at a time. Who waits gives its turn to others meanwhile, and while the platform
//! asks to be left alone nobody has one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The turns at one platform; cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns {
    places: Arc<Semaphore>,
    /// Until then the platform is left alone.
    closed: Arc<Mutex<Option<Instant>>>,
}

impl Turns {
    /// So many at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), closed: Arc::default() }
    }

    /// The turn of one walk, which it does not have yet.
    #[must_use]
    pub fn one(&self) -> Turn {
        Turn { turns: self.clone(), held: Arc::default() }
    }

    fn closed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the platform is left alone, if that is to come.
    fn closed_until(&self) -> Option<Instant> {
        self.closed().filter(|until| *until > Instant::now())
    }
}

/// The turn of one walk, which takes it and gives it back as it goes.
#[derive(Debug, Clone)]
pub struct Turn {
    turns: Turns,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Turn {
    /// Waits until it is its turn.
    pub async fn take(&self) {
        loop {
            if let Some(until) = self.turns.closed_until() {
                tokio::time::sleep_until(until).await;
                continue;
            }
            // It is never closed.
            let permit = Arc::clone(&self.turns.places).acquire_owned().await.ok();
            // It may have been told to wait while this one waited for its turn.
            if self.turns.closed_until().is_none() {
                *self.held() = permit;
                return;
            }
        }
    }

    /// Gives it to others.
    pub fn give(&self) {
        drop(self.held().take());
    }

    /// Leaves the platform alone for a while: nobody takes a turn until then.
    pub(super) fn close(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut closed = self.turns.closed();
        *closed = Some(closed.map_or(until, |before| before.max(until)));
    }

    fn held(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
