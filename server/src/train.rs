//! Trains a model whenever enough new labels have come.

use std::sync::Arc;
use std::time::Duration;

use kiro_lake::Lake;
use kiro_ports::PortError;
use kiro_tables::Table;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::models::Shelf;

/// How often the table of runs is looked at; what is seen of it without reading decides whether it is read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a training it rests so many times as long as that took: while a history comes in, most labels are new again and again.
const REST: u32 = 9;
/// New labels that are worth a training, beside what was trained on: at least so many, and at least this share.
const LEAST: u64 = 20;
const SHARE: u64 = 4;

/// Whether so many labels are worth a training after one on `before`.
pub(crate) fn is_worth(labels: u64, before: u64) -> bool {
    labels.saturating_sub(before) >= LEAST.max(before / SHARE)
}

/// The loop around training.
#[derive(Debug, Clone)]
pub(crate) struct Trainer {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) lake: Arc<Lake>,
}

impl Trainer {
    /// Trains until cancelled.
    pub(crate) async fn run(self, over: CancellationToken) {
        let mut looked_at = 0;
        loop {
            let began = Instant::now();
            match self.look(&mut looked_at).await {
                Ok(()) => {}
                Err(error) => warn!(%error, "training failed; the model before goes on serving"),
            }
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                () = sleep(began.elapsed().saturating_mul(REST).max(LOOK_EVERY)) => {}
            }
        }
    }

    /// Looks at the labels when the table of runs has grown by what a training needs.
    async fn look(&self, looked_at: &mut u64) -> Result<(), PortError> {
        let Some(table) = Table::find("pipeline_runs") else { return Ok(()) };
        let Some(snapshot) = self.lake.lake_snapshot(table).await.map_err(PortError::of)? else { return Ok(()) };
        let rows = snapshot.rows().await.map_err(PortError::of)?;
        if is_worth(rows, *looked_at) {
            *looked_at = rows;
            self.shelf.train_all().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_worth;

    #[test]
    fn a_few_labels_at_first_and_a_share_later() {
        assert!(!is_worth(0, 0) && !is_worth(19, 0) && is_worth(20, 0));
        assert!(!is_worth(39, 20) && is_worth(40, 20));
        assert!(!is_worth(1_249, 1_000) && is_worth(1_250, 1_000));
        assert!(!is_worth(10, 20), "labels that went away are none");
    }
}
