//! Facts to insights: one fold a file.
//!
//! Must not know: the log, the lake, SQL, models, HTTP. It sees Arrow batches and gives Arrow batches.
//!
//! Entry points: [`Processors::new`] (the chain of folds, a [`Folding`](kiro_ports::Folding)) and the
//! [`Features`](kiro_ports::Features) that it returns beside it.
//!
//! ```text
//! `<table>_events` ──► subjects ──► rows of `<table>`
//!                         │ runs that changed
//!                         ├──► pipeline_health ──► rows of `pipeline_health`
//!                         ├──► features        ──► rows of `features`, Features::at
//!                         │ deployments, changes, incidents that changed
//!                         └──► dora            ──► rows of `dora`
//! ```
//!
//! The state is a function of the *set* of events. After a restart the owner restores what the derived tables hold,
//! applies the events of all subjects that are in no table yet (they were open) and whatever is newer, and only then emits.

/// The version of the folds. It grows when the same events give other rows: what is derived is then derived anew.
pub const VERSION: u32 = 1;

mod chain;
mod columns;
mod dora;
mod error;
mod features;
mod hashing;
mod origin;
mod pipeline_health;
mod quantile;
mod run;
mod subjects;
mod telemetry;
mod versions;

pub use chain::{FoldConfig, Processors};
pub use error::{Error, Result};
pub use origin::Shard;
