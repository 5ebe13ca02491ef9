//! Sources: who may send webhooks, known by name, and how each fares.

use async_trait::async_trait;
use kiro_schemas::{Micros, Secret, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{PortError, Principal};

/// A source to add.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    /// The platform.
    pub platform: String,
    /// Its name, unique, and the last part of its address; the platform's when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Whose its events are; the caller's when absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// A file on the server that holds the secret of its webhooks; one is made when absent.
    #[serde(default)]
    pub secret_file: Option<String>,
    /// A file on the server that holds a token for the platform's API.
    #[serde(default)]
    pub token_file: Option<String>,
    /// The platform's API, when it is a server of one's own.
    #[serde(default)]
    pub api: Option<String>,
}

/// A source as the control store keeps it: secrets are named, never held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSource {
    /// Its name.
    pub name: String,
    /// The platform.
    pub platform: String,
    /// Whose its events are.
    pub tenant: Tenant,
    /// The file of its secret: within the folder of secrets, or an absolute path.
    pub secret_file: String,
    /// The file of the secret before, which is still live.
    pub previous_secret_file: Option<String>,
    /// The file of a token for the platform's API.
    pub token_file: Option<String>,
    /// The platform's API, when it is a server of one's own.
    pub api: Option<String>,
    /// When it was added.
    pub added_at: Micros,
}

/// What came from a source. Times are 0 for never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Deliveries that were taken.
    pub taken: u64,
    /// Of these, those of event types that are not read.
    pub unread: u64,
    /// Deliveries that had been taken before.
    pub known: u64,
    /// Deliveries that proved nothing.
    pub refused: u64,
    /// When the last one was taken.
    pub taken_at: Micros,
    /// What the platform calls its event.
    pub last_event: String,
    /// When the last one was refused.
    pub refused_at: Micros,
    /// Why.
    pub last_refusal: String,
}

impl SourceCounts {
    /// Adds what was counted before: the later moment has the word.
    pub fn add_earlier(&mut self, earlier: Self) {
        self.taken += earlier.taken;
        self.unread += earlier.unread;
        self.known += earlier.known;
        self.refused += earlier.refused;
        if self.taken_at < earlier.taken_at {
            (self.taken_at, self.last_event) = (earlier.taken_at, earlier.last_event);
        }
        if self.refused_at < earlier.refused_at {
            (self.refused_at, self.last_refusal) = (earlier.refused_at, earlier.last_refusal);
        }
    }
}

/// Where sources are kept.
#[async_trait]
pub trait SourceStore: Send + Sync + std::fmt::Debug {
    /// Adds one; a name that is taken is a conflict.
    async fn add(&self, source: StoredSource) -> Result<(), PortError>;
    /// All of them, by name.
    async fn sources(&self) -> Result<Vec<StoredSource>, PortError>;
    /// Removes one, with what was counted; it, if it was there.
    async fn remove(&self, tenant: &Tenant, name: &str) -> Result<Option<StoredSource>, PortError>;
    /// Gives one another secret, and keeps the one before as the previous one; whether it was there with that secret.
    async fn rotate(&self, before: &StoredSource, secret_file: &str) -> Result<bool, PortError>;
    /// Adds to what was counted of a source.
    async fn count(&self, name: &str, counts: &SourceCounts) -> Result<(), PortError>;
    /// What was counted, by name.
    async fn counts(&self) -> Result<Vec<(String, SourceCounts)>, PortError>;
}

/// A source as it may be shown.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SourceInfo {
    /// Its name.
    pub name: String,
    /// The platform.
    pub platform: String,
    /// Whose its events are.
    pub tenant: Tenant,
    /// Where it is configured: `kirolinter.yaml` or `control store`.
    pub configured_in: &'static str,
    /// The path that the platform sends to.
    pub path: String,
    /// When it was added; not known of the file's.
    pub added_at: Option<Micros>,
    /// When a delivery was taken last.
    pub last_delivery_at: Option<Micros>,
    /// What the platform calls its event.
    pub last_event: Option<String>,
    /// Records of webhooks, of all sources, that are in the log and cannot be queried yet.
    pub lag_records: u64,
    /// Deliveries that were taken.
    pub deliveries: u64,
    /// Of these, those of event types that are not read.
    pub unread: u64,
    /// Deliveries that had been taken before.
    pub known: u64,
    /// Deliveries that were refused.
    pub refused: u64,
    /// When one was refused last.
    pub last_refused_at: Option<Micros>,
    /// What has to be looked after.
    pub problems: Vec<String>,
}

/// A source that was added or has a new secret.
#[derive(Debug)]
pub struct AddedSource {
    /// The source.
    pub source: SourceInfo,
    /// The secret that was made, which is shown once.
    pub secret: Option<Secret>,
}

/// What is to be explained: a payload, or an event that can be queried.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The id of an event, or of its subject.
    #[serde(default)]
    pub event: Option<String>,
    /// The platform of a payload; it is a native event or a `CloudEvent` when absent.
    #[serde(default)]
    pub platform: Option<String>,
    /// What the platform calls the payload's event, where a header says so.
    #[serde(default)]
    pub kind: Option<String>,
    /// The payload's text.
    #[serde(default)]
    pub payload: Option<String>,
}

/// Which raw records are to be read again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The platform.
    pub platform: String,
    /// From when on: a time (RFC 3339), or how long ago: `2d`, `12h`, `30m`.
    #[serde(default)]
    pub since: String,
    /// Where the part before ended, as its answer said.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// Manages sources.
#[async_trait]
pub trait Sources: Send + Sync + std::fmt::Debug {
    /// Those that the caller may see, each with how it fares.
    async fn list(&self, who: &Principal) -> Result<Vec<SourceInfo>, PortError>;
    /// Adds one.
    async fn add(&self, who: &Principal, source: NewSource) -> Result<AddedSource, PortError>;
    /// Removes one: its deliveries are refused from then on.
    async fn remove(&self, who: &Principal, name: &str) -> Result<(), PortError>;
    /// Makes a new secret for one; the one before stays live until the next time.
    async fn rotate(&self, who: &Principal, name: &str) -> Result<AddedSource, PortError>;
    /// Tries everything of one that can be tried without adding a row.
    async fn test(&self, who: &Principal, name: &str) -> Result<Value, PortError>;
    /// Reads raw records again, a part at a time.
    async fn replay(&self, who: &Principal, request: ReplayRequest) -> Result<Value, PortError>;
    /// Says what counts as a deployment, hotfix, rollback or incident, and why.
    async fn explain(&self, who: &Principal, request: ExplainRequest) -> Result<Value, PortError>;
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in the log.
    Appended,
    /// It was taken before: nothing was appended.
    Known,
}
