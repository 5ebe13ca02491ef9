//! The committer of one table: rows and offsets together, exactly once.
//!
//! A commit is a compare-and-swap of the log's next file. Whatever the store answers, the log is the truth: after a
//! refusal or an error the committer reads on and looks for its own batch id before it tries again.

use bytes::Bytes;
use kiro_ports::{Commit, Committed, Offsets, Transaction};
use kiro_schemas::Micros;
use kiro_tables::TableName;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::files::{self, Added, NewFile, Rewrite};
use crate::log::{Entry, Head, TableLog};
use crate::replay::DataFile;
use crate::{Error, Result};

/// Tries without any progress of the log before a commit gives up.
const ATTEMPTS: u32 = 10;
/// So few rows are encoded faster than another thread is woken.
const INLINE_ROWS: usize = 256;
/// Who keeps a table commits under this application, so that of two that began alike one gives way.
const UPKEEP: &str = "kiro/maintenance";

/// Commits to one table.
#[derive(Debug)]
pub(crate) struct Committer {
    log: TableLog,
    head: Mutex<Option<Head>>,
}

/// A file that is written and that no commit names yet.
#[derive(Debug)]
pub(crate) struct Written {
    added: Added,
    bytes: Bytes,
    /// When it was begun: vacuum takes what is unnamed for long.
    since: Micros,
}

/// A commit on its way.
struct Change {
    batch: String,
    bytes: Vec<u8>,
    transactions: Vec<Transaction>,
    /// Whether it takes out files: it must not if somebody else did since, or changed what a table is.
    is_rewrite: bool,
}

/// What reading on found.
enum Walked {
    /// Our batch, at this version.
    Ours(i64),
    /// Commits of others, or nothing.
    Others(u32),
    /// Commits of others that took out files or changed the table.
    Rewritten,
}

impl Committer {
    /// Of a table that stands where it was seen, if it was.
    pub(crate) fn new(log: TableLog, seen: Option<Head>) -> Self {
        Self { log, head: Mutex::new(seen) }
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
        let written = self.write_rows(commit.rows).await?;
        let batch = Uuid::now_v7().to_string();
        let bytes = files::commit_bytes(&batch, &commit.transactions, written.as_ref().map(|w| &w.added), self.log.clock.now());
        // Until the outcome is known nothing is: an error on the way leaves the slot empty, and the next call loads.
        *slot = None;
        let change = Change { batch, bytes, transactions: commit.transactions, is_rewrite: false };
        let outcome = self.swap(&mut head, &change).await?;
        *slot = Some(head);
        self.settle(&outcome, written).await?;
        Ok(outcome)
    }

    /// Puts files in the place of others with the same rows, from where `head` stands on; `false`, and nothing is done,
    /// when somebody else has kept the table since.
    pub(crate) async fn rewrite(
        &self,
        mut head: Head,
        removed: &[DataFile],
        new: Option<Written>,
        metadata: Option<Value>,
    ) -> Result<bool> {
        let start = head.offsets.get(UPKEEP).copied().unwrap_or(0);
        let transaction = Transaction { app: UPKEEP.to_owned(), start, next: start + 1 };
        let batch = Uuid::now_v7().to_string();
        let rewrite = Rewrite { removed, added: new.as_ref().map(|w| &w.added), metadata };
        let bytes = files::rewrite_bytes(&batch, &transaction, &rewrite, self.log.clock.now());
        let change = Change { batch, bytes, transactions: vec![transaction], is_rewrite: true };
        let outcome = self.swap(&mut head, &change).await?;
        self.settle(&outcome, new).await?;
        Ok(matches!(outcome, Committed::Done(_)))
    }

    /// A file that a commit names is there, whatever vacuum thought of it before; one that no commit ever names goes.
    async fn settle(&self, outcome: &Committed, written: Option<Written>) -> Result<()> {
        let Some(written) = written else { return Ok(()) };
        match outcome {
            Committed::Done(_) if self.log.is_late(written.since) => {
                warn!(table = self.log.table.name, file = written.added.path, "a commit came late; its file is written again");
                self.put(&written.added.path, &written.bytes).await
            }
            Committed::Done(_) => Ok(()),
            Committed::Fenced(_) => {
                self.discard(&written.added).await;
                Ok(())
            }
        }
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
            let bytes = files::widening_bytes(&Uuid::now_v7().to_string(), &meta.widened(), self.log.clock.now());
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
            let bytes = files::creation_bytes(self.log.table, &Uuid::now_v7().to_string(), self.log.clock.now());
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
    async fn write_rows(&self, rows: Vec<arrow::array::RecordBatch>) -> Result<Option<Written>> {
        if rows.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        let table = self.log.table;
        let count = rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
        let file = aside(table.name, count > INLINE_ROWS, move || files::encode(table, &rows)).await?;
        self.write(format!("part-{}.zstd.parquet", Uuid::now_v7()), file).await.map(Some)
    }

    /// Writes a file that no reader sees yet.
    pub(crate) async fn write(&self, name: String, file: NewFile) -> Result<Written> {
        let since = self.log.clock.now();
        let (size, bytes) = (file.bytes.len(), Bytes::from(file.bytes));
        self.put(&name, &bytes).await?;
        Ok(Written { added: Added { path: name, size, statistics: file.statistics, digest: file.digest }, bytes, since })
    }

    async fn put(&self, name: &str, bytes: &Bytes) -> Result<()> {
        let path = self.log.root.clone().join(name);
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
        Ok(())
    }

    /// Puts the commit at the next free version.
    async fn swap(&self, head: &mut Head, change: &Change) -> Result<Committed> {
        let mut attempt = 0;
        loop {
            let path = self.log.commit_path(head.version + 1);
            let put = self.create(&path, change.bytes.clone()).await;
            let walked = self.walk(head, change).await?;
            let mut fell = false;
            match walked {
                Walked::Ours(version) if self.stands(head, version, change).await? => return Ok(Committed::Done(version)),
                Walked::Ours(version) => {
                    warn!(table = self.log.table.name, version, "a commit fell below a checkpoint and is made again");
                    fell = true;
                }
                // It was taken, and is gone again: the log goes on elsewhere.
                Walked::Others(0) if put.is_ok() => *head = self.log.load().await?.ok_or_else(|| self.log.gone())?,
                Walked::Others(_) | Walked::Rewritten => {}
            }
            let moved = moved(head, &change.transactions);
            if !moved.is_empty() || (change.is_rewrite && (fell || matches!(walked, Walked::Rewritten))) {
                return Ok(Committed::Fenced(moved));
            }
            attempt = if matches!(walked, Walked::Others(1..) | Walked::Rewritten) { 0 } else { attempt + 1 };
            let error = match put {
                Ok(()) if attempt >= ATTEMPTS => return Err(self.log.gone()),
                Ok(()) => continue,
                Err(source) => Error::store("write", &path, source),
            };
            debug!(table = self.log.table.name, version = head.version, %error, "commit is tried again");
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
    async fn walk(&self, head: &mut Head, change: &Change) -> Result<Walked> {
        let (mut ours, mut seen, mut is_rewritten) = (None, 0, false);
        while let Some(entry) = self.log.read(head.version + 1).await? {
            head.apply(self.log.table, &entry)?;
            if entry.batch.as_deref() == Some(change.batch.as_str()) {
                ours = Some(head.version);
            }
            is_rewritten |= ours.is_none() && rewrites(&entry);
            seen += 1;
        }
        let others = if is_rewritten { Walked::Rewritten } else { Walked::Others(seen) };
        Ok(ours.map_or(others, Walked::Ours))
    }

    /// Whether a commit that is in the log counts: it does not if it lies below a checkpoint that was made without it.
    async fn stands(&self, head: &mut Head, version: i64, change: &Change) -> Result<bool> {
        if !self.log.is_late(head.looked_at) && self.log.checkpoint_hint().await? < version {
            return Ok(true);
        }
        *head = self.log.load().await?.ok_or_else(|| self.log.gone())?;
        let is_in = |t: &Transaction| head.offsets.get(&t.app).copied().unwrap_or(0) >= t.next;
        Ok(change.transactions.iter().all(is_in))
    }
}

/// Whether a commit takes out files or changes what the table is.
fn rewrites(entry: &Entry) -> bool {
    !entry.removed.is_empty() || entry.metadata.is_some()
}

/// Does work that may be long on a thread of its own, unless it is short.
pub(crate) async fn aside<T: Send + 'static>(
    table: TableName,
    is_long: bool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if !is_long {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Worker { table, reason: e.to_string() })?
}

/// The applications that do not stand where the transactions start.
fn moved(head: &Head, transactions: &[Transaction]) -> Vec<(String, i64)> {
    let stands = |t: &Transaction| head.offsets.get(&t.app).copied().unwrap_or(0);
    transactions.iter().filter(|t| stands(t) != t.start).map(|t| (t.app.clone(), stands(t))).collect()
}
