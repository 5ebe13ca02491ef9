//! Committers: one a table that we write, and one follower for those that others write.

use std::sync::Arc;
use std::time::Duration;

use kiro_ports::{Clock, Committed, Snapshot, TableSink, TableSource};
use kiro_tables::Table;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::pace::{Instant, Ticker, sleep};
use super::seal::{Ends, Seal};
use super::shared::Shared;
use super::table::Cut;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Short enough that a store that is well again is written to within ten seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The version of a commit that is in the table, whoever made it.
const UNSEEN: i64 = 0;
/// Tries after the order to stop; what is not committed then is read from the log again.
const LAST_TRIES: u32 = 3;

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) sink: Arc<dyn TableSink>,
    pub(super) source: Arc<dyn TableSource>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) index: usize,
    pub(super) table: &'static Table,
    /// Of the audit log.
    pub(super) seal: Option<Seal>,
    pub(super) stop: CancellationToken,
}

impl Committer {
    pub(super) async fn run(mut self, busy: Duration, idle: Duration) {
        let full = Arc::clone(&self.shared.lock().tables[self.index].full);
        let (mut busy, mut idle) = (Ticker::new(busy), Ticker::new(idle));
        loop {
            let is_due = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = idle.tick() => true,
                () = busy.tick() => self.has_rows(),
                () = full.notified() => true,
            };
            if is_due {
                self.flush().await;
            }
        }
        self.flush().await;
    }

    fn has_rows(&self) -> bool {
        !self.shared.lock().tables[self.index].entries.is_empty()
    }

    /// Commits what is there, however often it has to be tried.
    async fn flush(&mut self) {
        while let Some(mut cut) = self.shared.cut(self.index) {
            let Some(ends) = self.fill(&mut cut).await else { return };
            let began = self.clock.now();
            let outcome = self.commit(&cut).await;
            let rows = cut.commit.rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
            self.shared.telemetry.committed(self.table.name, rows, self.clock.now().seconds_since(began));
            self.sealed(outcome.as_ref(), ends).await;
            match outcome {
                Some(Committed::Done(_)) => {
                    if let Some(snapshot) = self.snapshot(&cut).await {
                        debug!(table = self.table.name, version = snapshot.version(), "committed");
                        self.shared.done(self.index, &cut, snapshot);
                    }
                    return;
                }
                Some(Committed::Fenced(apps)) => {
                    self.shared.telemetry.fence(self.table.name, &apps);
                    self.shared.fence(self.index, &apps);
                }
                None => return,
            }
        }
    }

    /// Fills in the chain of rows of the audit log, however often it has to be tried.
    async fn fill(&self, cut: &mut Cut) -> Option<Ends> {
        let Some(seal) = &self.seal else { return Some(Ends::default()) };
        let mut pauses = Pauses::default();
        loop {
            match seal.fill(self.table, self.source.as_ref(), cut).await {
                Ok(ends) => return Some(ends),
                Err(error) => warn!(%error, "the chain of the audit log was not filled in; trying again"),
            }
            pauses.pause(&self.stop).await?;
        }
    }

    async fn sealed(&mut self, outcome: Option<&Committed>, ends: Ends) {
        let Some(seal) = &mut self.seal else { return };
        match outcome {
            Some(Committed::Done(version)) if *version != UNSEEN => seal.done(ends).await,
            // Rows of ours, or of somebody else: the next commit reads what is there.
            _ => seal.forget(),
        }
    }

    async fn commit(&self, cut: &Cut) -> Option<Committed> {
        let mut pauses = Pauses::default();
        loop {
            match self.sink.commit(self.table, cut.commit.clone()).await {
                // What was answered with an error may have been applied: then it is by ourselves that we are fenced.
                Ok(Committed::Fenced(_)) if self.was_applied(cut).await => return Some(Committed::Done(UNSEEN)),
                Ok(outcome) => return Some(outcome),
                Err(error) => self.shared.telemetry.commit_error(self.table.name, &error),
            }
            pauses.pause(&self.stop).await?;
            if self.was_applied(cut).await {
                return Some(Committed::Done(UNSEEN));
            }
        }
    }

    /// An error can hide a commit that was applied: then the table stands where the commit leads.
    async fn was_applied(&self, cut: &Cut) -> bool {
        match self.sink.offsets(self.table).await {
            Ok(offsets) => cut.commit.transactions.iter().all(|t| offsets.get(&t.app) == Some(&t.next)),
            Err(_) => false,
        }
    }

    /// The first snapshot that contains the commit.
    async fn snapshot(&self, cut: &Cut) -> Option<Arc<dyn Snapshot>> {
        let mut pauses = Pauses::default();
        loop {
            match self.source.snapshot(self.table).await {
                Ok(Some(snapshot)) if cut.commit.transactions.iter().all(|t| contains(snapshot.as_ref(), &t.app, t.next)) => {
                    return Some(snapshot);
                }
                Ok(_) => warn!(table = self.table.name, "snapshot does not contain the commit yet; trying again"),
                Err(error) => warn!(table = self.table.name, %error, "snapshot failed; trying again"),
            }
            pauses.pause(&self.stop).await?;
        }
    }
}

fn contains(snapshot: &dyn Snapshot, app: &str, next: i64) -> bool {
    snapshot.offsets().get(app).is_some_and(|stands| *stands >= next)
}

/// Pauses that double; few of them after the order to stop.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    count: u32,
    last: u32,
}

impl Pauses {
    pub(super) async fn pause(&mut self, stop: &CancellationToken) -> Option<()> {
        if stop.is_cancelled() {
            self.last += 1;
            if self.last > LAST_TRIES {
                return None;
            }
            sleep(FIRST_PAUSE).await;
            return Some(());
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.count.min(10)).min(LONGEST_PAUSE);
        self.count += 1;
        tokio::select! { biased; () = stop.cancelled() => {} () = sleep(pause) => {} }
        Some(())
    }
}

/// Takes the newest snapshots of the tables that others write; now and then also those of our own tables: upkeep changes their
/// files while the log is silent, and takes the old ones away in the end.
pub(super) async fn follow(
    shared: Arc<Shared>,
    source: Arc<dyn TableSource>,
    (every, seldom): (Duration, Duration),
    stop: CancellationToken,
) {
    let mut looked_at = Instant::now();
    loop {
        tokio::select! { biased; () = stop.cancelled() => return, () = sleep(every) => {} }
        let is_all = looked_at.elapsed() >= seldom;
        if is_all {
            looked_at = Instant::now();
        }
        let tables: Vec<_> = {
            let inner = shared.lock();
            let version = |s: &Option<Arc<dyn Snapshot>>| s.as_ref().map(|s| s.version());
            let followed = inner.tables.iter().enumerate().filter(|(_, s)| !s.commits || is_all);
            followed.map(|(at, s)| (at, s.table, version(&s.snapshot))).collect()
        };
        for (at, table, version) in tables {
            match source.snapshot(table).await {
                Ok(Some(snapshot)) if Some(snapshot.version()) != version => shared.follow_seen(at, snapshot),
                Ok(_) => {}
                Err(error) => warn!(table = table.name, %error, "snapshot failed"),
            }
        }
    }
}
