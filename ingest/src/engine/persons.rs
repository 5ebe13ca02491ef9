//! Names that nobody has met: asked for together, while what waits for them waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiro_ports::{Persons, Record};
use kiro_schemas::{Event, Tenant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::commit::Pauses;
use super::pace::sleep;
use super::shared::Shared;
use super::worker::{Draft, Worker};
use super::{EngineError, EngineResult};

/// How often it is looked whether somebody was forgotten.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many records wait at most to be asked for together: some megabytes of events.
pub(super) const MOST_WAITING: usize = 4_096;

/// What a record says, and whose it is; else why it is a dead letter.
pub(super) struct Told<'b> {
    pub(super) record: &'b Record,
    pub(super) tenant: Tenant,
    pub(super) events: Result<Vec<Event<'b>>, String>,
}

impl Worker {
    /// Gives persons their pseudonyms as far as they are known here; whether all are.
    pub(super) fn rename(&mut self, told: &mut Told<'_>) -> bool {
        told.events.as_mut().map_or(true, |events| self.pseudonyms.rename(&told.tenant, events))
    }

    /// Forgets pseudonyms when somebody was forgotten.
    pub(super) fn heed_forgotten(&mut self) {
        let forgotten = self.shared.forgotten.load(Ordering::Acquire);
        if forgotten != self.forgotten {
            self.forgotten = forgotten;
            self.pseudonyms.forget();
        }
    }

    /// Each takes the pseudonyms that are known; whether all are.
    fn rename_all(&mut self, waiting: &mut [Told<'_>]) -> bool {
        let mut is_done = true;
        for told in waiting {
            is_done &= self.rename(told);
        }
        is_done
    }

    /// Asks who is meant by the names that are new, however often it has to be tried, and goes on with what waits for it.
    pub(super) async fn meet(&mut self, draft: &mut Draft<'_>, waiting: &mut Vec<Told<'_>>) -> EngineResult<()> {
        let mut pauses = Pauses::default();
        while !self.rename_all(waiting) {
            while let Err(error) = self.pseudonyms.ask(self.clock.now()).await {
                self.shared.telemetry.person_error(&error);
                // What came before is shown meanwhile.
                self.publish().await?;
                if pauses.pause(&self.stop).await.is_none() {
                    return Err(EngineError::Persons(error));
                }
            }
        }
        waiting.drain(..).try_for_each(|told| self.record(draft, told))
    }
}

/// Looks now and then whether somebody was forgotten, perhaps by another process.
pub(super) async fn follow_forgotten(persons: Arc<dyn Persons>, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        match tokio::select! { biased; () = stop.cancelled() => return, count = persons.forgotten() => count } {
            Ok(count) => shared.forgotten.store(count, Ordering::Release),
            Err(error) => warn!(%error, "it cannot be seen whether persons were forgotten; trying again"),
        }
        tokio::select! { biased; () = stop.cancelled() => return, () = sleep(LOOK_EVERY) => {} }
    }
}
