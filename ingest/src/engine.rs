//! The one pipeline of every role: log → decode → pseudonyms → rows → tail → folds → commits, published as a
//! [`View`](kiro_ports::View).
//!
//! ```text
//! EventLog ─ poll ─► consumer ─ bounded channel ─► thread of the folds ─ rows, open ─► tail ─► View (ArcSwap)
//!                        ▲ waits while the tail is full        │ dead letters          │
//!                        └─────────────────────────────────────┘ quarantine            ▼ one committer a table
//!                                                                              TableSink ─► snapshot ─► View
//! ```
//! A table's rows stay in the tail until a snapshot has them; snapshot and tail change in one swap.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiro_ports::{Anchors, Clock, EventLog, Folding, Headers, Persons, TableSink, TableSource};
use kiro_schemas::{Event, Tenant};

mod assign;
mod batches;
mod commit;
mod error;
mod handle;
mod lane;
mod letters;
mod load;
mod pace;
mod persons;
mod quarantine;
mod seal;
mod service;
mod shared;
mod table;
mod window;
mod worker;

#[cfg(test)]
mod tests;

pub use error::{EngineError, EngineResult};
pub use handle::{EngineHandle, EngineStatus, PartitionStatus};
pub use service::EngineService;

use crate::telemetry::Telemetry;

/// Turns the bytes of a record into events.
pub trait Decode: Send + Sync {
    /// The events of a record; none is no error.
    ///
    /// # Errors
    /// Why the record is a dead letter, with the place.
    fn decode<'a>(&self, topic: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, String>;
    /// The headers by which it reads a record; no others are kept of a dead letter.
    fn headers_read(&self, headers: &Headers) -> Headers;
}

/// Which part of the folds an engine computes, and since when it may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldPart {
    /// The version of the folds: rows of different versions do not mix.
    pub version: u32,
    /// The shard, from 0.
    pub shard: u32,
    /// How many shards there are.
    pub shards: u32,
    /// The epoch of the lease under which it commits: a smaller one is fenced by the first commit of a larger one.
    pub epoch: i64,
}

impl FoldPart {
    /// What the application ids of the part begin with.
    pub(crate) fn prefix(self, cluster: &str) -> String {
        format!("kiro/{cluster}/fold/v{}/{}of{}/", self.version, self.shard, self.shards)
    }

    /// The application id under which a table holds the epoch of the part's owner.
    #[must_use]
    pub fn epoch_app(self, cluster: &str) -> String {
        format!("{}epoch", self.prefix(cluster))
    }
}

impl Default for FoldPart {
    fn default() -> Self {
        Self { version: 1, shard: 0, shards: 1, epoch: 0 }
    }
}

/// What an engine does.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The topics of what happens now.
    pub topics: Vec<String>,
    /// The topics of history: read by a consumer of their own, and only as much as leaves the others undisturbed.
    pub history: Vec<String>,
    /// The consumer group; `None` reads all partitions alone.
    pub group: Option<String>,
    /// The name of the log in application ids.
    pub cluster: String,
    /// A table with rows is committed this often.
    pub commit_interval: Duration,
    /// A table without rows is committed this often, so that its offsets move.
    pub idle_commit_interval: Duration,
    /// A table with this many bytes is committed at once.
    pub commit_bytes: usize,
    /// The log is not read while the tail holds more.
    pub tail_bytes: usize,
    /// A poll brings at most this many bytes.
    pub batch_bytes: usize,
    /// Repeats are found among this many event ids.
    pub dedupe_window: usize,
    /// Whether `_events` tables, dead letters and gaps are committed.
    pub commits_events: bool,
    /// Whether the tables of the folds are committed; else what others commit is followed.
    pub commits_derived: bool,
    /// Which part of the folds this is.
    pub fold: FoldPart,
    /// Where the bytes of dead letters lie.
    pub quarantine_dir: PathBuf,
    /// The tenant of records that name none.
    pub tenant: Tenant,
}

impl EngineConfig {
    /// The defaults: everything is committed.
    pub fn new(topics: Vec<String>, cluster: impl Into<String>, quarantine_dir: impl Into<PathBuf>) -> Self {
        Self {
            topics,
            history: Vec::new(),
            group: None,
            cluster: cluster.into(),
            commit_interval: Duration::from_secs(2),
            idle_commit_interval: Duration::from_mins(1),
            commit_bytes: 32 << 20,
            tail_bytes: 128 << 20,
            batch_bytes: 4 << 20,
            dedupe_window: 1_000_000,
            commits_events: true,
            commits_derived: true,
            fold: FoldPart::default(),
            quarantine_dir: quarantine_dir.into(),
            tenant: Tenant::default(),
        }
    }
}

/// What an engine needs.
pub struct EnginePorts {
    /// Where events come from.
    pub log: Arc<dyn EventLog>,
    /// Where rows go.
    pub sink: Arc<dyn TableSink>,
    /// Where rows are.
    pub source: Arc<dyn TableSource>,
    /// What is derived.
    pub folding: Box<dyn Folding>,
    /// Where the end of the audit log is remembered.
    pub anchors: Arc<dyn Anchors>,
    /// Who is meant by a name.
    pub persons: Arc<dyn Persons>,
    /// Bytes to events.
    pub decoder: Arc<dyn Decode>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the metrics are registered.
    pub registry: prometheus::Registry,
}

impl std::fmt::Debug for EnginePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnginePorts").field("log", &self.log).field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Reads where the tables stand and gives the service, still to be run, and its handle.
    ///
    /// # Errors
    /// The lake does not answer, or the registry has the metrics already.
    pub async fn start(config: EngineConfig, ports: EnginePorts) -> EngineResult<(EngineService, EngineHandle)> {
        let telemetry = Telemetry::register(&ports.registry)?;
        let outputs = ports.folding.outputs().iter().map(|table| table.name).collect();
        let lake = (Arc::clone(&ports.sink), Arc::clone(&ports.source));
        let shared = shared::Shared::open(&config, outputs, lake, telemetry).await?;
        let handle = EngineHandle::new(Arc::clone(&shared), Arc::clone(&ports.log));
        Ok((EngineService::new(config, ports, shared), handle))
    }
}

impl Decode for crate::decode::Decoder {
    fn decode<'a>(&self, topic: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, String> {
        Self::decode(self, topic, headers, bytes).map_err(|error| error.to_string())
    }

    fn headers_read(&self, headers: &Headers) -> Headers {
        Self::headers_read(self, headers)
    }
}
