//! What is needed: one trait a need, shaped by who consumes it. Adapters implement them, `server` chooses.
//!
//! Must not know: which adapter there is (Kafka, redb, Delta, DataFusion, SQLite, axum).
//!
//! ```text
//! EventLog ─► ingest ─► TableSink        Views ─► query (SqlEngine) ─► api
//!                │ ▲                        ▲
//!                ▼ │ Folding                │
//!             processors ───────────────────┘
//! ```

mod clock;
mod error;
mod feature;
mod fold;
mod log;
mod normalise;
mod service;
mod sources;
mod sql;
mod store;
mod table;
mod view;

pub use clock::{Clock, SystemClock};
pub use error::PortError;
pub use feature::{FeatureRequest, FeatureRow, Features};
pub use fold::{Derived, Folding, Missing};
pub use log::{
    Assignment, EventLog, Gap, LogBatch, LogConsumer, LogState, NewRecord, Poll, Position, RECORD_ID, Record, Subscription, Watermarks,
};
pub use normalise::{Header, Headers, NormaliseError, Normaliser, header};
pub use service::{
    Assessor, Audit, AuditEntry, BackfillStatus, Backfills, ByteStream, Decider, GateInfo, GateRequest, ImportStatus, Imports, Intake,
    NewBackfill, NewImport, Operations, Replayed, Reports, RiskRequest, bearer,
};
pub use sources::{
    AddedSource, ExplainRequest, NewSource, ReplayRequest, SourceCounts, SourceInfo, SourceStore, Sources, StoredSource, Taken,
};
pub use sql::{AsOf, RowStream, SqlAnswer, SqlEngine, SqlRequest};
pub use store::{AnchorMap, Anchors, Delivery, NewDelivery, NewToken, Outbox, Persons, Principal, Role, ScramVerifier, TokenInfo, Tokens};
pub use table::{Commit, Committed, Offsets, TableSink, TableSource, Transaction};
pub use view::{Snapshot, TableView, TailBatch, View, Views};
