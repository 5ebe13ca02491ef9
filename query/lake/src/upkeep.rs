//! Upkeep of the lake, in pieces that are small enough to be stopped between them: compaction, vacuum, cleaning of logs.
//! All of it is safe to run anywhere, twice, and beside any committer.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kiro_schemas::Micros;
use kiro_tables::{Table, TableShape};
use object_store::{ObjectMeta, ObjectStore as _};
use serde_json::Value;
use tracing::debug;
use uuid::Uuid;

use crate::commit::{Written, aside};
use crate::compact::{Input, choose, count, is_bounded, merge};
use crate::files::FILE_RETENTION;
use crate::lake::{Lake, Open};
use crate::log::version_of;
use crate::replay::{DataFile, State, is_ours};
use crate::thin::Level;
use crate::{Error, Result, store};

/// The shortest time that files and logs are kept: longer than any read of a version lasts, and any commit from its file on.
pub const LEAST_RETENTION: Duration = Duration::from_hours(1);
/// So few rows are merged faster than another thread is woken.
const INLINE_ROWS: u64 = 1_024;

/// How long what is not needed any more is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention(Duration);

impl Retention {
    /// At least [`LEAST_RETENTION`].
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self(time.max(LEAST_RETENTION))
    }

    /// Whatever the time: for tests, in which nobody sleeps for long.
    #[cfg(any(test, feature = "faults"))]
    #[must_use]
    pub const fn exactly(time: Duration) -> Self {
        Self(time)
    }

    /// What is older than this may go.
    fn cutoff(self, now: Micros) -> Micros {
        now.plus(-i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX))
    }

    /// As a property of a Delta table.
    fn interval(self) -> String {
        format!("interval {} seconds", self.0.as_secs())
    }
}

/// What a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Files of its newest version.
    pub files: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// The newest version.
    pub version: i64,
    /// Version of the newest checkpoint; -1 when there is none.
    pub checkpoint: i64,
    /// When the newest version was committed, where its commit was read.
    pub committed_at: Option<Micros>,
    /// Files that are to become large ones with others.
    pub small_files: usize,
    /// Files of the day that has most of them, among the days that are over.
    pub most_files_a_day: usize,
}

/// How a piece of compaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compacted {
    /// So many files, of so many bytes, are one.
    Done {
        /// Files that were taken out.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// Somebody else has kept the table meanwhile: nothing was changed, look again.
    Overtaken,
    /// There is nothing to do.
    Idle,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What upkeep knows of a table.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    state: Option<State>,
    /// Files that no other fits beside.
    full: HashSet<String>,
}

impl Open {
    /// The newest state of the table; `None` when it is not there.
    pub(crate) async fn survey(&self) -> Result<Option<State>> {
        let mut survey = self.survey.lock().await;
        let known = survey.state.take();
        survey.state = self.log.state(known).await?;
        Ok(survey.state.clone())
    }

    /// A checkpoint was made.
    pub(crate) async fn survey_checkpoint(&self, version: i64) {
        if let Some(state) = self.survey.lock().await.state.as_mut() {
            state.head.checkpoint = state.head.checkpoint.max(version);
        }
    }
}

impl Lake {
    /// What a table has, for those who watch it; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Corrupt`].
    pub async fn stored(&self, table: &'static Table) -> Result<Option<Stored>> {
        let open = self.table(table)?;
        let Some(state) = open.survey().await? else { return Ok(None) };
        let (small_files, most_files_a_day) = count(&state.files, &open.survey.lock().await.full, open.log.clock.now());
        Ok(Some(Stored {
            files: state.files.live.len(),
            bytes: state.bytes(),
            version: state.head.version,
            checkpoint: state.head.checkpoint,
            committed_at: state.files.committed_at,
            small_files,
            most_files_a_day,
        }))
    }

    /// Makes one large file of a few small ones, or thins the versions in an old one; one piece of work, bounded in memory.
    /// `kept` is how long readers of the log are told of files that were taken out: not shorter than vacuum keeps them.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Parquet`], [`Error::Arrow`], [`Error::Corrupt`]; the table stays as it was.
    pub async fn compact(&self, table: &'static Table, kept: Retention) -> Result<Compacted> {
        let open = self.table(table)?;
        let Some(state) = open.survey().await? else { return Ok(Compacted::Idle) };
        self.compact_from(table, state, kept).await
    }

    /// The same, from a state that may be old.
    pub(crate) async fn compact_from(&self, table: &'static Table, state: State, kept: Retention) -> Result<Compacted> {
        let open = self.table(table)?;
        let now = open.log.clock.now();
        let mut chosen = choose(table, &state.files, &open.survey.lock().await.full, now);
        let Some(first) = chosen.first().map(|file| file.path.clone()) else { return Ok(Compacted::Idle) };
        let wanted = chosen.len();
        let inputs = open.read(&chosen).await?;
        chosen.truncate(inputs.len());
        if chosen.len() < wanted.min(2) {
            open.survey.lock().await.full.insert(first);
            return Ok(Compacted::Overtaken);
        }
        let written = open.merge(inputs, &chosen, now).await?;
        let metadata = told(&state.files.metadata, kept);
        let bytes = chosen.iter().map(|file| file.size).sum();
        if open.committer.rewrite(state.head, &chosen, Some(written), metadata).await? {
            debug!(table = table.name, files = chosen.len(), bytes, "compacted");
            return Ok(Compacted::Done { files: chosen.len(), bytes });
        }
        Ok(Compacted::Overtaken)
    }

    /// Deletes files that no version within the retention needs, and files that were never committed.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Corrupt`]; what was deleted until then is.
    pub async fn vacuum(&self, table: &'static Table, kept: Retention) -> Result<Deleted> {
        let open = self.table(table)?;
        // Listed first: what is committed after that is young.
        let found = match open.log.store.list_with_delimiter(Some(&open.log.root)).await {
            Ok(found) => found.objects,
            Err(object_store::Error::NotFound { .. }) => return Ok(Deleted::default()),
            Err(source) => return Err(Error::store("list", &open.log.root, source)),
        };
        let Some(state) = open.survey().await? else { return Ok(Deleted::default()) };
        let cutoff = kept.cutoff(open.log.clock.now());
        let is_unneeded = |file: &ObjectMeta| {
            let Some(name) = file.location.filename().filter(|name| is_ours(name)) else { return false };
            let is_old = match state.files.removed.get(name) {
                Some(removed) => removed.saturating_mul(1_000) < cutoff.0,
                None => file.last_modified.timestamp_micros() < cutoff.0,
            };
            is_old && !state.files.live.contains_key(name)
        };
        self.delete(found.into_iter().filter(is_unneeded).collect()).await
    }

    /// Deletes commits and checkpoints below the newest checkpoint that is older than the retention: who stands above it
    /// reads on, who stands below begins at a checkpoint.
    ///
    /// # Errors
    /// As [`Lake::vacuum`].
    pub async fn clean_log(&self, table: &'static Table, kept: Retention) -> Result<Deleted> {
        let open = self.table(table)?;
        let hint = open.log.checkpoint_hint().await?;
        let cutoff = kept.cutoff(open.log.clock.now());
        let found = open.log.files_from(0).await?;
        let is_old = |file: &ObjectMeta| file.last_modified.timestamp_micros() < cutoff.0;
        // Committers see by the hint that they stand below a checkpoint.
        let bases = found.iter().filter(|file| is_old(file)).filter_map(|file| version_of(&file.location));
        let base = bases.filter(|(version, rest)| *rest == "checkpoint.parquet" && *version <= hint).map(|(version, _)| version).max();
        let Some(base) = base else { return Ok(Deleted::default()) };
        let is_unneeded = |file: &ObjectMeta| is_old(file) && version_of(&file.location).is_some_and(|(version, _)| version < base);
        self.delete(found.into_iter().filter(is_unneeded).collect()).await
    }

    /// Deletes what writes to a directory left behind when they were killed.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub async fn sweep(&self, kept: Retention) -> Result<Deleted> {
        let Some(dir) = Some(self.root()).filter(|root| root.scheme() == "file").and_then(|root| root.to_file_path().ok()) else {
            return Ok(Deleted::default());
        };
        let cutoff = kept.cutoff(self.clock().now());
        let failed = |path: PathBuf| move |source| Error::Directory { path, source };
        aside("", true, move || store::sweep(&dir, cutoff).map_err(failed(dir))).await
    }

    pub(crate) async fn delete(&self, files: Vec<ObjectMeta>) -> Result<Deleted> {
        let deleted = Deleted { files: files.len(), bytes: files.iter().map(|file| file.size).sum() };
        let paths = stream::iter(files.into_iter().map(|file| Ok(file.location))).boxed();
        let mut outcomes = self.store().delete_stream(paths);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(Error::store("delete", "files of the lake", source)),
            }
        }
        Ok(deleted)
    }
}

/// The metadata to be committed so that the log tells of files for as long as they are kept; `None` if it does.
fn told(metadata: &Value, kept: Retention) -> Option<Value> {
    let wanted = Value::from(kept.interval());
    let mut metadata = metadata.clone();
    let told = metadata.get_mut("configuration")?;
    if told[FILE_RETENTION] == wanted {
        return None;
    }
    told[FILE_RETENTION] = wanted;
    Some(metadata)
}

impl Open {
    /// Opens files, as many as can be worked on together; the first in any case.
    pub(crate) async fn read(&self, files: &[DataFile]) -> Result<Vec<Input>> {
        let (mut inputs, mut memory) = (Vec::new(), 0);
        for file in files {
            let path = self.log.root.clone().join(file.path.as_str());
            let Some(bytes) = self.log.get(&path).await? else {
                return Err(Error::Corrupt { path: path.to_string(), reason: "the log names it and it is gone".into() });
            };
            let input = Input::open(self.log.table, bytes)?;
            memory += input.memory;
            if !inputs.is_empty() && !is_bounded(memory) {
                break;
            }
            inputs.push(input);
        }
        Ok(inputs)
    }

    /// Writes the rows of files as one.
    pub(crate) async fn merge(&self, inputs: Vec<Input>, files: &[DataFile], now: Micros) -> Result<Written> {
        let table = self.log.table;
        let contents = || files.iter().filter_map(|file| file.content);
        let rows: u64 = contents().map(|content| content.rows).sum();
        let level = match (table.shape, contents().map(|content| content.to).max()) {
            (TableShape::Versions, Some(to)) => Level::due(to, now),
            _ => Level::All,
        };
        let file = aside(table.name, rows > INLINE_ROWS, move || merge(table, inputs, now)).await?;
        self.committer.write(format!("part-{}{}.zstd.parquet", Uuid::now_v7(), level.mark()), file).await
    }
}
