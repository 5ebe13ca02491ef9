//! What is said: the events that organisations emit, the subjects they are about, and the words of the answers.
//!
//! Must not know: Arrow, tokio, files, sockets, any platform's payloads.
//!
//! Entry points: [`Event`] (one fact), [`subject::spec`] (what columns a subject has), [`Outcome::of_provider`]
//! (the one outcome table), [`Micros::parse`] (the one time parser), [`Fault`] (what every error can say of itself).
//!
//! ```text
//! bytes ── decode ──► Event { subject, subject_id, attempt, transition, time, fields } ── batch ──► tables
//!                                      │
//!                                      └── columns, transitions and documentation: subject::SPECS
//! ```

pub mod delivery;
pub mod event;
pub mod fault;
mod figure;
pub mod gate;
pub mod id;
pub mod invariant;
pub mod names;
pub mod outcome;
pub mod person;
pub mod problem;
pub mod report;
pub mod risk;
pub mod secret;
pub mod subject;
pub mod time;
pub mod vector;
mod zone;

pub use event::{Event, Value};
pub use fault::{Blame, Fault, FaultKind, Retry};
pub use figure::figure;
pub use id::{EventId, SourceUrl, SubjectId, Tenant};
pub use outcome::Outcome;
pub use problem::Problem;
pub use secret::Secret;
pub use subject::{Column, Kind, Role, Subject, SubjectSpec, Transition};
pub use time::Micros;
pub use vector::{OffsetVector, TopicPartition};
pub use zone::{Span, Window, Zone};
