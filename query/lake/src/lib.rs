//! Batches to files: Delta tables on an object store, committed exactly once.
//!
//! Must not know: the log, SQL views, HTTP, which store there is (a directory, S3, memory).
//!
//! Entry points: [`Lake::open`] (a [`TableSink`](kiro_ports::TableSink) and a [`TableSource`](kiro_ports::TableSource)),
//! [`local_store`] and [`s3_store`] (what it lies on), [`LakeSnapshot::provider`] (for the query engine), upkeep:
//! [`Lake::checkpoint_when_due`], [`Lake::compact`], [`Lake::vacuum`], [`Lake::clean_log`], [`Lake::sweep`],
//! [`Lake::remove_old_version`], what it tells ([`Lake::upkeep_note`]), and [`Lake::inspect`] (what is wrong with a table).
//!
//! ```text
//! Commit { rows, transactions } ──► Parquet file ──► _delta_log/{version + 1}.json   put if absent
//!                                                        │ taken or failed: read on, compare, try again or give way
//!                                                        ▼
//!                     every 50 versions a checkpoint ──► LakeSnapshot ──► TableProvider, scan, lookup
//!
//! small files, old versions ──► one large file ──► Remove + Add + the transaction of upkeep ──► vacuum, once nobody reads them
//! ```

mod commit;
mod compact;
mod error;
#[cfg(any(test, feature = "faults"))]
mod fault;
mod files;
mod inspect;
mod lake;
mod log;
mod meta;
mod note;
mod replay;
mod snapshot;
mod statistics;
mod store;
#[cfg(test)]
mod tests;
mod thin;
mod upkeep;
mod versions;

pub use error::{Error, Result};
#[cfg(any(test, feature = "faults"))]
pub use fault::{FaultStore, Toxics};
pub use inspect::{Flaw, Inspection, LiveFile};
pub use lake::{FORMAT_VERSION, Lake};
pub use note::{KeptTable, UpkeepNote};
pub use snapshot::LakeSnapshot;
pub use store::{DurableLocalStore, S3Config, local_store, s3_store};
pub use upkeep::{Compacted, Deleted, LEAST_RETENTION, Retention, Stored};
pub use versions::TableVersion;
