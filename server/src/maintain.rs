//! Upkeep of the lake: checkpoints, so that a table is opened without its whole log. Committers leave it to this.

use std::sync::Arc;
use std::time::Duration;

use kiro_lake::Lake;
use kiro_tables::Table;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Commits from one checkpoint to the next.
const CHECKPOINT_EVERY: i64 = 50;
/// How often the tables are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keeps the tables until it is cancelled.
pub(crate) async fn keep(lake: Arc<Lake>, over: CancellationToken) {
    loop {
        for table in Table::all() {
            match lake.checkpoint_when_due(table, CHECKPOINT_EVERY).await {
                Ok(Some(version)) => info!(table = table.name, version, "checkpoint made"),
                Ok(None) => {}
                Err(error) => warn!(table = table.name, %error, "a table was not kept; trying again"),
            }
            if over.is_cancelled() {
                return;
            }
        }
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
