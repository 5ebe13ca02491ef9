//! What is stored: every public table with its Arrow schema, and the builders that turn values into batches.
//!
//! Must not know: Delta, DataFusion, the log, tokio.
//!
//! Entry points: [`Table::find`] and [`Table::all`] (the SQL contract), [`EventRows`] (events to batches),
//! [`Rows`] (any rows to batches), [`seal`] and [`Trail`] (the chain of the audit log).
//!
//! ```text
//! subject::SPECS ──► Table { columns } ──► Arrow schema, Delta schema, docs/tables.md
//! Event ──► EventRows ──► RecordBatch of `<table>_events`
//! ```

mod chain;
mod derived;
mod events;
mod rows;
mod table;

pub use chain::{CHAIN, ChainBreak, ChainHead, ChainHeads, ChainReport, Trail, seal};
pub use derived::feature_names;
pub use events::{EventRows, Stamp};
pub use rows::Rows;
pub use table::{Table, TableColumn, TableName, TableShape};
