//! Upkeep of the lake: checkpoints, compaction, vacuum and cleaning of logs. Committers leave it to this.
//!
//! It works in small pieces, one table at a time, and rests after each for as long as it worked: ingest never waits for it.
//! What it did it writes down beside the tables, for `kirolinter status`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiro_lake::{Compacted, KeptTable, Lake, Retention, UpkeepNote};
use kiro_ports::Clock;
use kiro_tables::Table;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::{Telemetry, Trash};

mod followed;
mod told;

pub(crate) use told::told;

/// Commits from one checkpoint to the next.
const CHECKPOINT_EVERY: i64 = 50;
/// How often the tables are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often what is old is looked for.
const DELETE_EVERY: Duration = Duration::from_mins(10);
/// How often it is written down what was done.
const NOTE_EVERY: Duration = Duration::from_secs(30);
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
    /// How long tables of an older version of the folds are kept after a newer one took their place.
    pub(crate) old_versions: Duration,
}

/// Keeps the tables of a lake.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) lake: Arc<Lake>,
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    /// Names the process.
    pub(crate) by: String,
}

impl Keeper {
    /// Keeps the tables until it is told to stop; what it is at then is dropped, as if the process had been killed.
    pub(crate) async fn run(self, over: CancellationToken) {
        tokio::select! { biased; () = over.cancelled() => {} () = self.keep() => {} }
    }

    async fn keep(&self) {
        let mut note = self.lake.upkeep_note().await.ok().flatten().unwrap_or_default();
        let mut deleted_at = HashMap::<_, Instant>::new();
        let (mut swept_at, mut noted_at) = (None::<Instant>, None::<Instant>);
        let is_past = |at: Option<Instant>, span: Duration| at.is_none_or(|at| at.elapsed() >= span);
        self.write(&mut note).await;
        loop {
            let mut is_well = true;
            for table in Table::all() {
                // A table that comes later than the process does has its turn then, not with the tables that were there.
                let is_due = is_past(deleted_at.get(table.name).copied(), DELETE_EVERY);
                match self.keep_noting(table, is_due, &mut note).await {
                    Ok(is_there) if is_there && is_due => drop(deleted_at.insert(table.name, Instant::now())),
                    outcome => is_well &= outcome.is_ok(),
                }
                if noted_at.is_some() && is_past(noted_at, NOTE_EVERY) {
                    noted_at = Some(Instant::now());
                    self.write(&mut note).await;
                }
            }
            if is_past(swept_at, DELETE_EVERY) {
                swept_at = Some(Instant::now());
                match self.lake.sweep(self.plan.files).await {
                    Ok(deleted) => self.telemetry.deleted(Trash::Staged, deleted),
                    Err(error) => warn!(%error, "what killed processes left behind was not deleted; trying again"),
                }
            }
            if is_well {
                self.telemetry.kept(self.clock.now());
            }
            if is_past(noted_at, NOTE_EVERY) {
                noted_at = Some(Instant::now());
                self.write(&mut note).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Writes down what was done; upkeep goes on without.
    async fn write(&self, note: &mut UpkeepNote) {
        (note.by, note.at, note.compaction) = (self.by.clone(), self.clock.now(), self.plan.compaction);
        if let Err(error) = self.lake.note_upkeep(note).await {
            warn!(%error, "what upkeep did was not written down; trying again");
        }
    }

    /// Keeps a table, and notes how that went; whether it is there.
    async fn keep_noting(&self, table: &'static Table, is_delete_due: bool, note: &mut UpkeepNote) -> kiro_lake::Result<bool> {
        let mut kept = note.tables.remove(table.name).unwrap_or_default();
        let outcome = self.keep_table(table, is_delete_due, &mut kept).await;
        kept.error = outcome.as_ref().err().map(ToString::to_string);
        if let Err(error) = &outcome {
            self.telemetry.upkeep_failed(table.name, error);
        }
        if !matches!(outcome, Ok(false)) {
            note.tables.insert(table.name.to_owned(), kept);
        }
        outcome
    }

    /// Whether the table is there.
    async fn keep_table(&self, table: &'static Table, is_delete_due: bool, kept: &mut KeptTable) -> kiro_lake::Result<bool> {
        if let Some(version) = self.lake.checkpoint_when_due(table, CHECKPOINT_EVERY).await? {
            kept.checkpointed_at = Some(self.clock.now());
            info!(table = table.name, version, "checkpoint made");
        }
        if self.plan.compaction {
            self.compact(table, kept).await?;
        }
        let Some(stored) = self.lake.stored(table).await? else { return Ok(false) };
        self.telemetry.stored(table.name, stored);
        kept.has(stored);
        if is_delete_due {
            self.telemetry.deleted(Trash::Data, self.lake.vacuum(table, self.plan.files).await?);
            kept.vacuumed_at = Some(self.clock.now());
            self.telemetry.deleted(Trash::Log, self.lake.clean_log(table, self.plan.logs).await?);
            kept.log_cleaned_at = Some(self.clock.now());
            if let Err(error) = self.remove_followed(table).await {
                warn!(table = table.name, %error, "an older version of the folds was not removed; trying again");
            }
        }
        Ok(true)
    }

    /// Removes what an older version of the folds derived, long after a newer one took its place.
    async fn remove_followed(&self, table: &'static Table) -> kiro_lake::Result<()> {
        let versions = self.lake.table_versions(table).await?;
        for version in followed::followed(&versions, kiro_processors::VERSION, self.plan.old_versions) {
            let deleted = self.lake.remove_old_version(table, version).await?;
            info!(table = table.name, version, "the table of an older version of the folds is removed");
            self.telemetry.deleted(Trash::Version, deleted);
        }
        Ok(())
    }

    async fn compact(&self, table: &'static Table, kept: &mut KeptTable) -> kiro_lake::Result<()> {
        for _ in 0..PIECES {
            let began = Instant::now();
            match self.lake.compact(table, self.plan.files).await? {
                Compacted::Done { files, bytes } => {
                    kept.compacted_at = Some(self.clock.now());
                    self.telemetry.compacted(table.name, files, bytes);
                }
                Compacted::Overtaken => {}
                Compacted::Idle => return Ok(()),
            }
            sleep(began.elapsed().max(REST)).await;
        }
        Ok(())
    }
}
