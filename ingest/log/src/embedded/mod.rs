//! The embedded log: a folder of redb files, for one process.
//!
//! ```text
//! append ─► channel ─► writer thread: one transaction and one sync for all that wait ─► topics/<topic>/<sequence>.redb
//! poll ◄── woken by the writer ◄────────────────┘            retention deletes whole files, oldest first
//! ```

mod consumer;
mod segment;
mod topic;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use kiro_ports::{Assignment, Clock, EventLog, LogConsumer, LogState, NewRecord, PortError, Position, Record, Subscription, Watermarks};
use kiro_schemas::{Fault, TopicPartition};
use tokio::sync::{Notify, mpsc, oneshot};

use self::consumer::EmbeddedConsumer;
use self::topic::{Found, Topic};
use self::writer::{Answer, Request};
use crate::error::{Error, Result};
use crate::{codec, folder};

/// How the embedded log keeps its records.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// A topic keeps at most about this many bytes of records; `None` keeps all. The files are somewhat larger.
    pub retention_bytes: Option<u64>,
    /// Records older than this are deleted, a whole segment at a time; `None` keeps all.
    pub retention_age: Option<Duration>,
    /// The same of single topics.
    pub ages: BTreeMap<String, Duration>,
    /// A segment takes no further record beyond these bytes.
    pub segment_bytes: u64,
    /// A segment takes no further record when its first is older than this; `None` for no such limit.
    pub segment_age: Option<Duration>,
    /// A record with more bytes of key, value and headers is refused.
    pub max_record_bytes: usize,
}

impl Default for EmbeddedOptions {
    /// 8 GiB and 7 days a topic, in segments of 64 MiB or 12 hours; records of at most 32 MiB.
    fn default() -> Self {
        Self {
            retention_bytes: Some(8 << 30),
            retention_age: Some(Duration::from_hours(168)),
            ages: BTreeMap::new(),
            segment_bytes: 64 << 20,
            segment_age: Some(Duration::from_hours(12)),
            max_record_bytes: 32 << 20,
        }
    }
}

/// The embedded log. Dropping it closes it, after what was taken is written.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What writer and consumers share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    options: EmbeddedOptions,
    clock: Arc<dyn Clock>,
    topics: RwLock<BTreeMap<Arc<str>, Arc<Topic>>>,
    /// Why the last write failed.
    failure: Mutex<Option<String>>,
    appended: Notify,
    _lock: folder::Lock,
}

impl Shared {
    fn topics(&self) -> BTreeMap<Arc<str>, Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(name).cloned().ok_or_else(|| Error::UnknownTopic { topic: name.to_owned() })
    }

    /// Creates a topic unless it is there. Only the writer calls this.
    fn create(&self, name: &str, partitions: i32) -> Result<()> {
        if self.topic(name).is_ok() {
            return Ok(());
        }
        let topic = Topic::create(&self.folder.join("topics"), name, partitions)?;
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&topic.name), Arc::new(topic));
        tracing::info!(topic = name, partitions, "topic created");
        self.appended.notify_waiters();
        Ok(())
    }

    /// Keeps what the last write said.
    fn note(&self, failure: Option<&Arc<Error>>) {
        let mut state = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match (failure, state.is_some()) {
            (Some(error), false) => tracing::error!(%error, "the log cannot be written"),
            (None, true) => tracing::info!("the log is written again"),
            _ => {}
        }
        *state = failure.map(ToString::to_string);
    }
}

impl EmbeddedLog {
    /// Opens the log of a folder, creating it when it is not there. Blocks while files are opened.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it open, [`Error::Format`] when a newer version wrote it, and what the disk says.
    pub fn open(dir: &Path, options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let lock = folder::take(dir)?;
        let topics = Topic::open_all(&dir.join("topics"), true)?;
        tracing::info!(path = %dir.display(), topics = topics.len(), "embedded log opened");
        let shared = Arc::new(Shared {
            folder: dir.to_owned(),
            options,
            clock,
            topics: RwLock::new(topics),
            failure: Mutex::new(None),
            appended: Notify::new(),
            _lock: lock,
        });
        let (writer, thread) = writer::start(Arc::clone(&shared))?;
        Ok(Self { shared, writer: Some(writer), thread: Some(thread) })
    }

    /// The watermarks of all partitions of a log that nobody has open. Nothing is changed, but for a segment that was not closed:
    /// it is repaired as at the next start. Blocks while files are opened.
    ///
    /// # Errors
    /// As [`EmbeddedLog::open`].
    pub fn look(dir: &Path) -> Result<Vec<(TopicPartition, Watermarks)>> {
        let _lock = folder::take(dir)?;
        let mut marks = Vec::new();
        for topic in Topic::open_all(&dir.join("topics"), false)?.values() {
            for at in topic.partitions() {
                let mark = topic.watermarks(&at)?;
                marks.push((at, mark));
            }
        }
        Ok(marks)
    }

    /// Deletes now what retention no longer wants, and says how many segments that were. It also happens by itself.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn enforce_retention(&self) -> Result<usize, PortError> {
        self.ask(Request::Sweep).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, PortError> {
        let closed = || PortError::of(Error::Closed { part: "writer" });
        let (to, answer) = oneshot::channel();
        let writer = self.writer.as_ref().ok_or_else(closed)?;
        writer.send(request(to)).await.map_err(|_unsent| closed())?;
        answer.await.map_err(|_dropped| closed())?.map_err(|error| shared_error(&error))
    }
}

/// One failure of a transaction, for each of those that waited for it.
fn shared_error(error: &Arc<Error>) -> PortError {
    PortError { what: error.to_string(), kind: error.kind(), code: error.code(), source: Some(Box::new(Arc::clone(error))) }
}

/// Runs what may touch the disk where it does not hold up others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, PortError> {
    let ended = |_join| PortError::of(Error::Closed { part: "reader" });
    tokio::task::spawn_blocking(work).await.map_err(ended)?.map_err(PortError::of)
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        drop(self.writer.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log's writer ended by a panic");
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<(), PortError> {
        let topic = topic.to_owned();
        self.ask(|to| Request::Ensure(topic, partitions, to)).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, PortError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let limit = self.shared.options.max_record_bytes;
        for record in &records {
            let size = codec::size(record);
            if size > limit {
                return Err(PortError::of(Error::TooLarge { topic: record.topic.clone(), size, limit }));
            }
        }
        self.ask(|to| Request::Append(records, to)).await
    }

    /// One process owns the log, so a group's consumer gets all partitions, as one without a group does.
    async fn consume(&self, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError> {
        Ok(Box::new(EmbeddedConsumer::new(Arc::clone(&self.shared), subscription, assignment)))
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError> {
        let topic = self.shared.topic(topic).map_err(PortError::of)?;
        topic.partitions().map(|at| Ok((at.clone(), topic.watermarks(&at).map_err(PortError::of)?))).collect()
    }

    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError> {
        let (topic, at) = (self.shared.topic(&at.topic).map_err(PortError::of)?, at.clone());
        match blocking(move || topic.read(&at, offset, 0)).await? {
            Found::Records(records) => Ok(records.into_iter().find(|record| record.offset == offset)),
            Found::Trimmed(_) => Ok(None),
        }
    }

    fn state(&self) -> LogState {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map_or(LogState::Up, |reason| LogState::Down { reason })
    }
}
