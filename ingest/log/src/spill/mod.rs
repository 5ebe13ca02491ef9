//! A log that takes appends while the one behind it does not: they go into a folder, in order, and into the log when it is back.
//!
//! ```text
//! append ─► the log behind ─► positions
//!    └─ it does not answer, or something is spilled ─► writer thread: one sync for all that wait ─► no positions
//!                            the log behind ◄─ drain: segment by segment, oldest first ◄─ <sequence>-<marker>.spill
//! ```
//!
//! What was acknowledged before an append began comes before it in the log. A record can come twice: when the log took an append
//! and did not say so, and when the process dies while it drains; who reads tells by its id (`docs/adr/0011-posts-spill.md`).

mod drain;
mod frame;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kiro_ports::{Assignment, Clock, EventLog, LogConsumer, LogState, NewRecord, PortError, Position, Record, Subscription, Watermarks};
use kiro_schemas::{FaultKind, Micros, TopicPartition};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use self::queue::Queue;
use self::writer::Request;
use crate::error::{Error, Result};
use crate::{codec, folder};

/// How records are spilled.
#[derive(Debug, Clone)]
pub struct SpillOptions {
    /// Files have at most so many bytes together; an append beyond it is refused.
    pub limit_bytes: u64,
    /// A record with more bytes of key, value and headers is refused, since the log would refuse it later.
    pub max_record_bytes: usize,
    /// The same of topics whose records may be larger.
    pub larger: BTreeMap<String, usize>,
    /// An append that the log has not taken by then is spilled. What is spilled is tried four times as often.
    pub patience: Duration,
}

impl Default for SpillOptions {
    /// 1 GiB, records of what Kafka takes, two seconds.
    fn default() -> Self {
        Self { limit_bytes: 1 << 30, max_record_bytes: 1_000_000, larger: BTreeMap::new(), patience: Duration::from_secs(2) }
    }
}

/// How the spill is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpillStatus {
    /// Bytes that are not in the log yet.
    pub bytes: u64,
    /// Bytes that there may be.
    pub limit: u64,
    /// Since when appends are spilled; `None` while they go to the log.
    pub since: Option<Micros>,
    /// Records that were spilled since the start.
    pub spilled: u64,
    /// Records that went from the spill into the log since the start.
    pub drained: u64,
    /// Records that were refused since the start: there was no room, or the disk failed.
    pub refused: u64,
    /// Records that were put aside since the start: their bytes were damaged, or the log refuses them for good.
    pub aside: u64,
}

impl SpillStatus {
    /// Whether there is hardly any room left: the last hundredth is used.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.bytes >= self.limit - self.limit / 100
    }
}

/// A log with a spill before it.
#[derive(Debug)]
pub struct SpillLog {
    shared: Arc<Shared>,
    options: SpillOptions,
    writer: Option<SyncSender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
    drain: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    limit: u64,
    /// How often it is tried again while the log does not take what is spilled, or the disk does not give it.
    try_every: Duration,
    inner: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    /// There may be something to drain, or nobody left who is about to spill.
    changed: Notify,
    drained: Notify,
    _lock: folder::Lock,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by an append that goes to the spill, until it is answered.
#[derive(Debug)]
struct Ticket(Arc<Shared>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.queue().leave();
        self.0.changed.notify_one();
    }
}

/// Whether the log may take the same append later.
fn is_outage(error: &PortError) -> bool {
    matches!(error.kind, FaultKind::Unavailable | FaultKind::TimedOut)
}

impl SpillLog {
    /// Opens the spill of a folder before a log, and begins to drain what is in it. Blocks while files are opened.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has the folder open, [`Error::Format`] when a newer version wrote it, and what the
    /// disk says.
    pub fn open(dir: &Path, inner: Arc<dyn EventLog>, clock: Arc<dyn Clock>, options: SpillOptions) -> Result<Self> {
        let lock = folder::take(dir)?;
        let mut queue = Queue::load(dir, options.limit_bytes)?;
        if queue.is_spilling() {
            queue.begin(clock.now());
            tracing::warn!(path = %dir.display(), bytes = queue.status.bytes, "the spill of a process before this one goes into the log");
        }
        let shared = Arc::new(Shared {
            folder: dir.to_owned(),
            limit: options.limit_bytes,
            try_every: options.patience / 4,
            inner,
            clock,
            queue: Mutex::new(queue),
            changed: Notify::new(),
            drained: Notify::new(),
            _lock: lock,
        });
        let (writer, thread) = writer::start(Arc::clone(&shared))?;
        let drain = tokio::spawn(drain::run(Arc::clone(&shared)));
        Ok(Self { shared, options, writer: Some(writer), thread: Some(thread), drain })
    }

    /// How the spill is.
    #[must_use]
    pub fn status(&self) -> SpillStatus {
        self.shared.queue().status.clone()
    }

    /// Waits until all that was spilled is in the log.
    pub async fn drained(&self) {
        loop {
            let mut news = std::pin::pin!(self.shared.drained.notified());
            news.as_mut().enable();
            if !self.shared.queue().is_spilling() {
                return;
            }
            news.await;
        }
    }

    /// A ticket when appends go to the spill.
    fn ticket(&self) -> Option<Ticket> {
        let mut queue = self.shared.queue();
        if !queue.is_spilling() {
            return None;
        }
        queue.enter();
        Some(Ticket(Arc::clone(&self.shared)))
    }

    /// The log did not take an append: from now on appends go to the spill.
    fn begin(&self, reason: &str) -> Ticket {
        let mut queue = self.shared.queue();
        if queue.begin(self.shared.clock.now()) {
            tracing::warn!(reason, path = %self.shared.folder.display(), "the log does not take appends: they are spilled");
        }
        queue.enter();
        Ticket(Arc::clone(&self.shared))
    }

    /// Appends to the log, or says why it must be spilled.
    async fn direct(&self, records: &[NewRecord]) -> Result<Result<Vec<Position>, PortError>, String> {
        match tokio::time::timeout(self.options.patience, self.shared.inner.append(records.to_vec())).await {
            Ok(Err(error)) if is_outage(&error) => Err(error.to_string()),
            Ok(answer) => Ok(answer),
            Err(_elapsed) => Err(format!("an append was not acknowledged in {} ms", self.options.patience.as_millis())),
        }
    }

    async fn spill(&self, records: Vec<NewRecord>, ticket: Ticket) -> Result<()> {
        for record in &records {
            let limit = self.options.larger.get(&record.topic).copied().unwrap_or(self.options.max_record_bytes);
            let size = codec::size(record);
            if size > limit {
                return Err(Error::TooLarge { topic: record.topic.clone(), size, limit });
            }
        }
        let closed = || Error::Closed { part: "spill" };
        let (answer, answered) = oneshot::channel();
        let writer = self.writer.as_ref().ok_or_else(closed)?;
        match writer.try_send(Request { records, answer, ticket }) {
            Ok(()) => answered.await.map_err(|_dropped| closed())?,
            Err(TrySendError::Full(request)) => {
                self.shared.queue().status.refused += request.records.len() as u64;
                Err(Error::NotSpilled { path: self.shared.folder.clone(), reason: "too many wait for the disk".to_owned() })
            }
            Err(TrySendError::Disconnected(_)) => Err(closed()),
        }
    }
}

impl Drop for SpillLog {
    fn drop(&mut self) {
        self.drain.abort();
        drop(self.writer.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the spill's writer ended by a panic");
        }
    }
}

#[async_trait]
impl EventLog for SpillLog {
    async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<(), PortError> {
        self.shared.inner.ensure_topic(topic, partitions).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, PortError> {
        let ticket = match self.ticket() {
            Some(ticket) => ticket,
            None => match self.direct(&records).await {
                Ok(answer) => return answer,
                Err(reason) => self.begin(&reason),
            },
        };
        self.spill(records, ticket).await.map_err(PortError::of)?;
        Ok(Vec::new())
    }

    async fn consume(&self, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError> {
        self.shared.inner.consume(subscription, assignment).await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError> {
        self.shared.inner.watermarks(topic).await
    }

    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError> {
        self.shared.inner.read(at, offset).await
    }

    async fn read_each(&self, at: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<Record>>, PortError> {
        self.shared.inner.read_each(at, offsets).await
    }

    fn state(&self) -> LogState {
        self.shared.inner.state()
    }
}
