//! The committer of one table: rows and offsets together, exactly once.
//!
//! A commit is a compare-and-swap of the log's next file. Whatever the store answers, the log is the truth: after a
//! refusal or an error the committer reads on and looks for its own batch id before it tries again.

use kiro_ports::{Clock, Commit, Committed, Offsets, Transaction};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::files::{self, Added};
use crate::log::{Head, TableLog};
use crate::{Error, Result};

/// Tries without any progress of the log before a commit gives up.
const ATTEMPTS: u32 = 10;
/// So few rows are encoded faster than another thread is woken.
const INLINE_ROWS: usize = 256;

/// Commits to one table.
#[derive(Debug)]
pub(crate) struct Committer {
    log: TableLog,
    clock: Arc<dyn Clock>,
    head: Mutex<Option<Head>>,
}

/// What reading on found.
enum Walked {
    /// Our batch, at this version.
    Ours(i64),
    /// Commits of others, or nothing.
    Others(u32),
}

impl Committer {
    pub(crate) fn new(log: TableLog, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock, head: Mutex::new(None) }
    }

    /// Where the table stands; creates it if it is not there.
    pub(crate) async fn offsets(&self) -> Result<Offsets> {
        let mut slot = self.head.lock().await;
        Ok(self.current(&mut slot).await?.offsets)
    }

    /// Notes that a checkpoint was made.
    pub(crate) async fn note_checkpoint(&self, version: i64) {
        if let Some(head) = self.head.lock().await.as_mut() {
            head.checkpoint = head.checkpoint.max(version);
        }
    }

    /// Version and newest checkpoint, as far as this process knows.
    pub(crate) async fn progress(&self) -> (i64, i64) {
        self.head.lock().await.as_ref().map_or((-1, -1), |head| (head.version, head.checkpoint))
    }

    /// Commits rows and offsets together.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.check(&commit)?;
        let mut slot = self.head.lock().await;
        let mut head = self.current(&mut slot).await?;
        let moved = moved(&head, &commit.transactions);
        if !moved.is_empty() {
            return Ok(Committed::Fenced(moved));
        }
        let added = self.write_rows(commit.rows).await?;
        // Until the outcome is known nothing is: an error on the way leaves the slot empty, and the next call loads.
        *slot = None;
        let outcome = self.swap(&mut head, &commit.transactions, added.as_ref()).await?;
        *slot = Some(head);
        if let (Committed::Fenced(_), Some(file)) = (&outcome, &added) {
            self.discard(file).await;
        }
        Ok(outcome)
    }

    /// Deletes a file that no commit names, nor ever will.
    async fn discard(&self, file: &Added) {
        let path = self.log.root.clone().join(file.path.as_str());
        if let Err(error) = self.log.store.delete(&path).await {
            debug!(table = self.log.table.name, %path, %error, "an unused file is left for vacuum");
        }
    }

    /// The head, read on to the newest commit.
    async fn current(&self, slot: &mut MutexGuard<'_, Option<Head>>) -> Result<Head> {
        let mut head = match slot.take() {
            Some(head) => head,
            None => self.open().await?,
        };
        self.log.advance(&mut head).await?;
        self.widen(&mut head).await?;
        **slot = Some(head.clone());
        Ok(head)
    }

    /// Adds the columns that this program has and the table has not. Whoever comes first does it: the others read on and find
    /// nothing missing.
    async fn widen(&self, head: &mut Head) -> Result<()> {
        let mut attempt = 0;
        while let Some(meta) = head.meta.clone().filter(|meta| !meta.missing().is_empty()) {
            let path = self.log.commit_path(head.version + 1);
            let bytes = files::widening_bytes(&Uuid::now_v7().to_string(), &meta.widened(), self.clock.now());
            let put = self.create(&path, bytes).await;
            self.log.advance(head).await?;
            match put {
                Ok(()) => info!(table = self.log.table.name, columns = ?meta.missing(), "columns added"),
                Err(source) if attempt + 1 >= ATTEMPTS => return Err(Error::store("write", &path, source)),
                Err(_) => self.log.backoff.wait(attempt).await,
            }
            attempt += 1;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Head> {
        let mut attempt = 0;
        loop {
            if let Some(head) = self.log.load().await? {
                return Ok(head);
            }
            let path = self.log.commit_path(0);
            let bytes = files::creation_bytes(self.log.table, &Uuid::now_v7().to_string(), self.clock.now());
            match self.create(&path, bytes).await {
                Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(source) => {
                    let error = Error::store("write", &path, source);
                    if error.is_full() || attempt + 1 >= ATTEMPTS {
                        return Err(error);
                    }
                }
            }
            if attempt > 0 {
                self.log.backoff.wait(attempt).await;
            }
            attempt += 1;
            if attempt > 2 * ATTEMPTS {
                return Err(Error::Corrupt { path: path.to_string(), reason: "it exists and cannot be read".into() });
            }
        }
    }

    fn check(&self, commit: &Commit) -> Result<()> {
        let table = self.log.table;
        let invalid = |reason: String| Err(Error::Invalid { table: table.name, reason });
        if commit.transactions.is_empty() {
            return invalid("a commit needs a transaction".into());
        }
        for (at, transaction) in commit.transactions.iter().enumerate() {
            let Transaction { app, start, next } = transaction;
            if *start < 0 || next < start {
                return invalid(format!("transaction {app} goes from {start} to {next}"));
            }
            if commit.transactions.iter().take(at).any(|t| t.app == *app) {
                return invalid(format!("transaction {app} stands twice in a commit"));
            }
        }
        if commit.rows.iter().any(|rows| rows.schema().fields() != table.schema().fields()) {
            return invalid("rows are not of the table's schema".into());
        }
        Ok(())
    }

    /// Writes the rows as one file that no reader sees yet.
    async fn write_rows(&self, rows: Vec<arrow::array::RecordBatch>) -> Result<Option<Added>> {
        if rows.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        let table = self.log.table;
        let file = if rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>() <= INLINE_ROWS {
            files::encode(table, &rows)?
        } else {
            tokio::task::spawn_blocking(move || files::encode(table, &rows))
                .await
                .map_err(|e| Error::Worker { table: table.name, reason: e.to_string() })??
        };
        let name = format!("part-{}.zstd.parquet", Uuid::now_v7());
        let path = self.log.root.clone().join(name.as_str());
        let size = file.bytes.len();
        let bytes = bytes::Bytes::from(file.bytes);
        let mut attempt = 0;
        // The name is ours alone, so writing the same bytes again changes nothing.
        while let Err(source) = self.log.store.put(&path, bytes.clone().into()).await {
            let error = Error::store("write", &path, source);
            attempt += 1;
            if error.is_full() || attempt >= ATTEMPTS {
                return Err(error);
            }
            self.log.backoff.wait(attempt).await;
        }
        Ok(Some(Added { path: name, size, statistics: file.statistics, digest: file.digest }))
    }

    /// Puts the commit at the next free version.
    async fn swap(&self, head: &mut Head, transactions: &[Transaction], added: Option<&Added>) -> Result<Committed> {
        let batch = Uuid::now_v7().to_string();
        let bytes = files::commit_bytes(&batch, transactions, added, self.clock.now());
        let mut attempt = 0;
        loop {
            let path = self.log.commit_path(head.version + 1);
            let put = self.create(&path, bytes.clone()).await;
            let walked = self.walk(head, &batch).await?;
            if let Walked::Ours(version) = walked {
                if self.stands(head, version, transactions).await? {
                    return Ok(Committed::Done(version));
                }
                warn!(table = self.log.table.name, version, "a commit fell below a checkpoint and is made again");
            }
            let moved = moved(head, transactions);
            if !moved.is_empty() {
                return Ok(Committed::Fenced(moved));
            }
            attempt = if matches!(walked, Walked::Others(seen) if seen > 0) { 0 } else { attempt + 1 };
            let Err(source) = put else { continue };
            debug!(table = self.log.table.name, version = head.version, error = %source, "commit is tried again");
            let error = Error::store("write", &path, source);
            if error.is_full() || attempt >= ATTEMPTS {
                return Err(error);
            }
            if attempt > 0 {
                self.log.backoff.wait(attempt).await;
            }
        }
    }

    async fn create(&self, path: &Path, bytes: Vec<u8>) -> object_store::Result<()> {
        let options = PutOptions::from(PutMode::Create);
        self.log.store.put_opts(path, bytes.into(), options).await.map(drop)
    }

    /// Reads on to the newest commit and looks for our batch.
    async fn walk(&self, head: &mut Head, batch: &str) -> Result<Walked> {
        let (mut ours, mut seen) = (None, 0);
        while let Some(entry) = self.log.read(head.version + 1).await? {
            let is_ours = entry.batch.as_deref() == Some(batch);
            head.apply(self.log.table, entry)?;
            if is_ours {
                ours = Some(head.version);
            }
            seen += 1;
        }
        Ok(ours.map_or(Walked::Others(seen), Walked::Ours))
    }

    /// Whether a commit that is in the log counts: it does not if it lies below a checkpoint that was made without it.
    async fn stands(&self, head: &mut Head, version: i64, transactions: &[Transaction]) -> Result<bool> {
        if self.log.checkpoint_hint().await? < version {
            return Ok(true);
        }
        let Some(loaded) = self.log.load().await? else {
            return Err(Error::Corrupt { path: self.log.dir.to_string(), reason: "the table is gone".into() });
        };
        *head = loaded;
        Ok(transactions.iter().all(|t| head.offsets.get(&t.app).copied().unwrap_or(0) >= t.next))
    }
}

/// The applications that do not stand where the transactions start.
fn moved(head: &Head, transactions: &[Transaction]) -> Vec<(String, i64)> {
    let stands = |t: &Transaction| head.offsets.get(&t.app).copied().unwrap_or(0);
    transactions.iter().filter(|t| stands(t) != t.start).map(|t| (t.app.clone(), stands(t))).collect()
}
