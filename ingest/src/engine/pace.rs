//! Waiting: by the machine's time, and in tests by the time of a simulated world.

use std::time::Duration;

#[cfg(test)]
pub(super) use super::tests::time::{Instant, sleep};
#[cfg(not(test))]
pub(super) use tokio::time::{Instant, sleep};

/// Ticks at least this far apart; late ticks are not made up for.
#[derive(Debug)]
pub(super) struct Ticker {
    every: Duration,
    due: Instant,
}

impl Ticker {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, due: Instant::now() + every }
    }

    /// The next tick. It can be given up at any time.
    pub(super) async fn tick(&mut self) {
        sleep(self.due.saturating_duration_since(Instant::now())).await;
        self.due = Instant::now() + self.every;
    }
}
