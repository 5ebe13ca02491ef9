//! Log to batches: decoding, mapping files, dead letters, the engine and its tail.
//!
//! Must not know: which log, lake or query engine there is, HTTP routes, platforms' payloads (they come as
//! [`kiro_ports::Normaliser`]).
//!
//! Entry points: [`decode::Decoder`] (a record's bytes to events), [`decode::http::split`] (a post to records),
//! [`mapping::Mapping`] (rows of other people's files to events).
//!
//! ```text
//! record { headers, bytes } ──► Decoder ──► normaliser │ CloudEvents ─► CDEvents │ mapping │ native JSON ──► Event
//! ```

pub mod decode;
pub mod engine;
mod error;
pub mod mapping;
pub mod persons;
pub mod telemetry;

pub use error::{Error, Result};
