//! Upkeep of the lake: checkpoints, compaction, vacuum and cleaning of logs. Committers leave it to this.
//!
//! It works in small pieces, one table at a time, and rests after each for as long as it worked: ingest never waits for it.

use std::sync::Arc;
use std::time::Duration;

use kiro_lake::{Compacted, Lake, Retention};
use kiro_ports::Clock;
use kiro_tables::Table;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::{Telemetry, Trash};

/// Commits from one checkpoint to the next.
const CHECKPOINT_EVERY: i64 = 50;
/// How often the tables are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often what is old is looked for.
const DELETE_EVERY: Duration = Duration::from_mins(10);
/// Pieces of work on one table before the next table has its turn.
const PIECES: usize = 16;
/// The shortest rest after a piece of work.
const REST: Duration = Duration::from_millis(50);

/// How the lake is to be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Whether small files are made large ones.
    pub(crate) compaction: bool,
    /// How long files that no version needs are kept.
    pub(crate) files: Retention,
    /// How long commits below a checkpoint are kept.
    pub(crate) logs: Retention,
}

/// Keeps the tables of a lake.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) lake: Arc<Lake>,
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
}

impl Keeper {
    /// Keeps the tables until it is told to stop; what it is at then is dropped, as if the process had been killed.
    pub(crate) async fn run(self, over: CancellationToken) {
        tokio::select! { biased; () = over.cancelled() => {} () = self.keep() => {} }
    }

    async fn keep(&self) {
        let mut deleted_at = None::<Instant>;
        loop {
            let is_due = deleted_at.is_none_or(|at| at.elapsed() >= DELETE_EVERY);
            let mut is_well = true;
            for table in Table::all() {
                if let Err(error) = self.keep_table(table, is_due).await {
                    is_well = false;
                    self.telemetry.upkeep_failed(table.name, &error);
                }
            }
            if is_due {
                deleted_at = Some(Instant::now());
                match self.lake.sweep(self.plan.files).await {
                    Ok(deleted) => self.telemetry.deleted(Trash::Staged, deleted),
                    Err(error) => warn!(%error, "what killed processes left behind was not deleted; trying again"),
                }
            }
            if is_well {
                self.telemetry.kept(self.clock.now());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn keep_table(&self, table: &'static Table, is_delete_due: bool) -> kiro_lake::Result<()> {
        if let Some(version) = self.lake.checkpoint_when_due(table, CHECKPOINT_EVERY).await? {
            info!(table = table.name, version, "checkpoint made");
        }
        if self.plan.compaction {
            self.compact(table).await?;
        }
        if is_delete_due {
            self.telemetry.deleted(Trash::Data, self.lake.vacuum(table, self.plan.files).await?);
            self.telemetry.deleted(Trash::Log, self.lake.clean_log(table, self.plan.logs).await?);
        }
        self.telemetry.stored(table.name, self.lake.stored(table).await?);
        Ok(())
    }

    async fn compact(&self, table: &'static Table) -> kiro_lake::Result<()> {
        for _ in 0..PIECES {
            let began = Instant::now();
            match self.lake.compact(table, self.plan.files).await? {
                Compacted::Done { files, bytes } => self.telemetry.compacted(table.name, files, bytes),
                Compacted::Overtaken => {}
                Compacted::Idle => return Ok(()),
            }
            sleep(began.elapsed().max(REST)).await;
        }
        Ok(())
    }
}
