//! The event log: two adapters of [`EventLog`](kiro_ports::EventLog), Kafka and a folder on this machine, and a spill before them.
//!
//! Must not know: events, tables, what a record's bytes mean, where settings come from.
//!
//! Entry points: [`EmbeddedLog::open`], [`KafkaLog::connect`], [`SpillLog::open`]. All pass the same suite (feature `conformance`).
//!
//! ```text
//! append ─► SpillLog? ─► EmbeddedLog (redb) │ KafkaLog (rdkafka) ─► durable, positions
//!                  │
//! consume ─► Assigned ─► starts from Assignment::start ─► Batch, Batch, … Gap stops a partition, Revoked ends it
//! ```

mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod embedded;
mod error;
mod folder;
mod gap;
mod kafka;
mod spill;

pub use embedded::{EmbeddedLog, EmbeddedOptions};
pub use error::{Error, Result};
pub use folder::check_format;
pub use kafka::{KafkaConfig, KafkaLog};
pub use spill::{SpillLog, SpillOptions, SpillStatus};
