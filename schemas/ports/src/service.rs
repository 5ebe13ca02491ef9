//! What the front door asks of the rooms behind it.

use std::collections::BTreeMap;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use kiro_schemas::gate::GateDecision;
use kiro_schemas::report::{ReportCounts, ReportScope};
use kiro_schemas::risk::RiskAssessment;
use kiro_schemas::{Micros, Secret, Tenant};
use serde::{Deserialize, Serialize};

use crate::{Headers, PortError, Principal, Taken};

/// Takes events and webhooks in: checks them, then appends them. They are durable when this returns.
#[async_trait]
pub trait Intake: Send + Sync + std::fmt::Debug {
    /// An event post: CloudEvents in any HTTP mode, or native JSON lines. How many events it held.
    async fn post(&self, tenant: &Tenant, headers: &Headers, body: Bytes) -> Result<usize, PortError>;
    /// A webhook of a source, by the name in its address; verifies its signature.
    async fn webhook(&self, source: &str, headers: &Headers, body: Bytes) -> Result<Taken, PortError>;
}

/// What is to be assessed.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RiskRequest {
    /// The caller's name for what is assessed; made up when absent.
    #[serde(default)]
    pub deployment_id: Option<String>,
    /// The repository or service, as in `source` of the tables.
    pub source: String,
    /// The pipeline; the one with most runs of that source when absent.
    #[serde(default)]
    pub pipeline: Option<String>,
    /// What starts the run: `push`, `pull_request`, ….
    #[serde(default)]
    pub trigger: Option<String>,
    /// The moment of prediction; now when absent.
    #[serde(default)]
    pub at: Option<Micros>,
    /// Declared numeric attributes of the change.
    #[serde(default)]
    pub attributes: BTreeMap<String, f64>,
}

/// Answers how likely a run or deployment fails.
#[async_trait]
pub trait Assessor: Send + Sync + std::fmt::Debug {
    /// Assesses; the answer is in the log before this returns.
    async fn assess(&self, who: &Principal, request: RiskRequest) -> Result<RiskAssessment, PortError>;
}

/// Which gate is asked, and about what.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GateRequest {
    /// The gate's name; the only gate of the type when absent.
    #[serde(default)]
    pub gate: Option<String>,
    /// The gate's type: `pre_commit`, `pre_merge`, `pre_deploy`, `post_deploy`; hyphens do as well.
    #[serde(default, rename = "type")]
    pub gate_type: Option<String>,
    /// The values of the gate's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// What the risk criterion assesses.
    #[serde(default)]
    pub risk: Option<RiskRequest>,
    /// Two requests with the same key are one decision.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// A gate as it may be listed.
#[derive(Debug, Clone, Serialize)]
pub struct GateInfo {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub gate_type: String,
    /// Its criteria.
    pub criteria: Vec<String>,
    /// Its parameters.
    pub parameters: Vec<String>,
}

/// Decides gates.
#[async_trait]
pub trait Decider: Send + Sync + std::fmt::Debug {
    /// The gates that there are.
    fn gates(&self) -> Vec<GateInfo>;
    /// Decides; the decision is in the log before this returns.
    async fn decide(&self, who: &Principal, request: GateRequest) -> Result<GateDecision, PortError>;
}

/// An import to begin.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewImport {
    /// A name for people, such as the file's.
    pub name: String,
    /// The mapping file's text.
    pub mapping: String,
    /// `csv` or `json` (one document or one object a line).
    pub format: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 of the file, hexadecimal: the same file and mapping resume the same import.
    pub sha256: String,
}

/// How an import stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `receiving`, `running`, `done` or `failed`.
    pub state: String,
    /// Bytes received so far: where to go on.
    pub received_bytes: u64,
    /// Size of the file.
    pub size_bytes: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Rows read so far.
    pub rows: u64,
    /// Events appended so far.
    pub events: u64,
    /// Why it failed, with the line.
    pub error: Option<String>,
}

/// Imports files as jobs of the server.
#[async_trait]
pub trait Imports: Send + Sync + std::fmt::Debug {
    /// Begins an import, or finds the one that it resumes.
    async fn begin(&self, who: &Principal, import: NewImport) -> Result<ImportStatus, PortError>;
    /// Takes bytes from `offset` on; the last ones start the job.
    async fn receive(&self, who: &Principal, id: &str, offset: u64, bytes: Bytes) -> Result<ImportStatus, PortError>;
    /// How it stands.
    async fn status(&self, who: &Principal, id: &str) -> Result<ImportStatus, PortError>;
}

/// A repository whose past is to be read.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackfill {
    /// `github` or `gitlab`.
    pub platform: String,
    /// The repository, as the platform names it.
    pub repository: String,
    /// How far back: a number and `d`, `h` or `w`; a year when absent.
    #[serde(default)]
    pub since: Option<String>,
}

/// How the reading of a repository's past stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackfillStatus {
    /// Its id.
    pub id: String,
    /// The platform.
    pub platform: String,
    /// The repository.
    pub repository: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// What is read now.
    pub at: Option<String>,
    /// Which part is done, from 0 to 1.
    pub progress: f64,
    /// Questions to the platform that were answered.
    pub requests: u64,
    /// Answers among them that were as before.
    pub unchanged: u64,
    /// Questions that wait.
    pub waiting: u64,
    /// Events that were found.
    pub events: u64,
    /// Events among them that no webhook had told, where that was looked for.
    pub missed: u64,
    /// Requests that are left in the platform's window.
    pub remaining: Option<u64>,
    /// Until when it waits for the platform.
    pub waiting_until: Option<Micros>,
    /// Why it waits.
    pub waiting_for: Option<String>,
    /// What is older was read, by the platform's clock.
    pub reached: Option<Micros>,
    /// What was not permitted or could not be read.
    pub notes: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Reads the past of repositories as jobs of the server.
#[async_trait]
pub trait Backfills: Send + Sync + std::fmt::Debug {
    /// Begins one, goes on with one that failed, or finds the one that runs.
    async fn begin(&self, who: &Principal, backfill: NewBackfill) -> Result<BackfillStatus, PortError>;
    /// How it stands.
    async fn status(&self, who: &Principal, id: &str) -> Result<BackfillStatus, PortError>;
}

/// The bytes of a body, as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Takes the reports that tools leave behind: of tests, coverage and scanners.
#[async_trait]
pub trait Reports: Send + Sync + std::fmt::Debug {
    /// Reads a report as it comes, and appends what it says; that is durable when this returns. The format is `junit`,
    /// `cobertura`, `jacoco`, `lcov`, `sarif`, or `auto`.
    async fn take(&self, who: &Principal, format: &str, scope: ReportScope, bytes: ByteStream) -> Result<ReportCounts, PortError>;
}

/// What became of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Letters that were appended again.
    pub replayed: u64,
    /// Letters that had been appended again before.
    pub already: u64,
    /// Letters without bytes: there is nothing to read in them.
    pub empty: u64,
    /// Letters whose bytes are neither in the log nor in quarantine.
    pub lost: u64,
    /// How many letters there are of the reason; told at the beginning.
    pub of: Option<u64>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// What operators do.
#[async_trait]
pub trait Operations: Send + Sync + std::fmt::Debug {
    /// How the process is: roles, log, lag, tables, gaps.
    async fn status(&self) -> serde_json::Value;
    /// How it is ready to serve, in a sentence; an error says why it is not.
    async fn ready(&self) -> Result<String, String>;
    /// Trains and judges the model of a tenant now, and serves what earned its place. The report.
    async fn evaluate_model(&self, who: &Principal) -> Result<serde_json::Value, PortError>;
    /// Appends the next of the dead letters of a reason prefix again, a bounded number of them; from the first one on, or from
    /// where the answer before ended.
    async fn replay_dead_letters(&self, who: &Principal, reason_prefix: &str, after: Option<&str>) -> Result<Replayed, PortError>;
    /// Checks every file and every row of the audit log: `is_whole`, `rows`, `partitions`, `breaks` with their places.
    async fn verify_audit(&self) -> Result<serde_json::Value, PortError>;
    /// Waits until what was appended before this call can be queried, at most a few seconds.
    async fn settle(&self) -> Result<(), PortError>;
}

/// An entry of the audit log.
#[derive(Debug, Clone, Default)]
pub struct AuditEntry {
    /// Whose it is.
    pub tenant: Tenant,
    /// Who did it; `-` when nobody is known.
    pub actor: String,
    /// What was done, such as `gate.evaluate`.
    pub action: String,
    /// What it was done to.
    pub object: String,
    /// Why it was refused; `None` when it was allowed.
    pub refused: Option<String>,
}

/// Writes the audit log.
#[async_trait]
pub trait Audit: Send + Sync + std::fmt::Debug {
    /// Appends an entry; it is durable when this returns.
    async fn record(&self, entry: AuditEntry) -> Result<(), PortError>;
}

/// Reads the token of a request.
#[must_use]
pub fn bearer(headers: &Headers) -> Option<Secret> {
    crate::header(headers, "authorization").and_then(|v| v.strip_prefix("Bearer ")).map(Secret::new)
}
