//! What is held in the outbox by a process that died, or whose log did not answer: sent when its decision is in the log after
//! all, dropped when it is not, since nobody was told of it then.

use std::sync::Arc;
use std::time::Duration;

use kiro_ports::{Clock, NewDelivery, Operations, Outbox, PortError, SqlEngine, SqlRequest};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::rows;

/// An append that was begun this long ago has ended, one way or the other, in microseconds.
const SETTLED_AFTER: i64 = 30_000_000;
/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);

/// The key of what a decision starts at a target.
pub(crate) fn key(decision_id: &str, target: &str) -> String {
    format!("{decision_id}/{target}")
}

/// Looks after what is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) sql: Arc<dyn SqlEngine>,
    pub(crate) operations: Arc<dyn Operations>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Wakes who sends.
    pub(crate) wake: Arc<Notify>,
}

impl Held {
    /// Runs until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.round().await {
                warn!(%error, "it is not known yet what became of held deliveries");
            }
        }
    }

    async fn round(&self) -> Result<(), PortError> {
        let held = self.outbox.held(self.clock.now().plus(-SETTLED_AFTER), 100).await?;
        if held.is_empty() {
            return Ok(());
        }
        // Whatever the log has taken is seen by the queries below.
        self.operations.settle().await?;
        for delivery in held {
            if self.is_recorded(&delivery).await? {
                info!(key = delivery.key, "its decision is recorded: it is sent");
                self.outbox.release(&delivery.key, self.clock.now()).await?;
                self.wake.notify_one();
            } else {
                info!(key = delivery.key, "its decision was never recorded: it is dropped");
                self.outbox.failed(&delivery.key, "its decision was never recorded", None).await?;
            }
        }
        Ok(())
    }

    async fn is_recorded(&self, delivery: &NewDelivery) -> Result<bool, PortError> {
        let Some((decision, _target)) = delivery.key.split_once('/') else { return Ok(false) };
        let mut question = SqlRequest::new(delivery.tenant.clone(), "SELECT 1 FROM gate_decisions WHERE decision_id = $1 LIMIT 1");
        question.parameters = vec![Some(decision.to_owned())];
        Ok(!rows::ask(&self.sql, question).await?.rows.is_empty())
    }
}
