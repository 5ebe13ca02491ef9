//! Batches to answers: SQL over lake and tail, and the psql wire.
//!
//! Must not know: Delta, the log, HTTP. A snapshot becomes a table provider by a function that is handed in.
//!
//! Entry points: [`Query`] (a [`kiro_ports::SqlEngine`]) and [`psql::serve`], the psql wire.
//!
//! ```text
//! SQL ─► limits ─► parser ─► gate ─► plan ─► watch ─► stream (time, rows, memory; own threads) ─► answer
//!                             ▲        │
//! View ─► catalog: files ∪ tail ∪ open, each filtered by tenant and `as of`; corrections kept in memory
//! ```

mod answer;
mod as_of;
mod catalog;
mod corrections;
mod error;
mod functions;
mod gate;
mod information;
mod measured;
mod narrow;
mod parameters;
mod provider;
pub mod psql;
mod query;
mod revisions;
mod sizes;
mod system;
mod telemetry;
mod text;
mod threads;
mod tools;
mod watch;

pub use error::{Error, Result};
pub use query::{Description, Door, Providers, Query, QueryConfig};
pub use telemetry::register;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod past;
#[cfg(test)]
mod stubborn;
#[cfg(test)]
mod tests;
