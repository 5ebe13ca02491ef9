//! Decisions to disk: tokens, sources, what still has to be sent, leases, persons, settings.
//!
//! Must not know: HTTP, the event log, the lake, what is sent to whom.
//!
//! Entry points: [`Store::open`], [`Store::look`]; [`Store`] implements [`kiro_ports::Tokens`], [`kiro_ports::Outbox`],
//! [`kiro_ports::Anchors`], [`kiro_ports::SourceStore`] and [`kiro_ports::Persons`].
//!
//! ```text
//! Store::open ── migrations ──► SQLite file (one process) | PostgreSQL (several)
//!    ├── Tokens   SHA-256 of 256 random bits, SCRAM verifier
//!    ├── Outbox   waiting ── due ──► waiting, later ── done | failed ──► done | dead
//!    ├── leases   one holder at a time, counted by epochs
//!    ├── anchors  the last row of the audit log, by partition
//!    ├── sources  who may send webhooks, files of their secrets, what came of each
//!    ├── persons  the pseudonym of each name, by the name's digest
//!    └── settings
//! ```

mod anchors;
mod error;
mod leases;
mod outbox;
mod persons;
mod schema;
mod scram;
mod sources;
mod store;
mod tokens;

pub use error::{Error, Result};
pub use leases::Lease;
pub use outbox::{DeadDelivery, MAX_ATTEMPTS, Stuck};
pub use sources::check_source_name;
pub use store::{Store, StoreConfig};
