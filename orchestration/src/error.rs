//! The error of the crate.

use kiro_schemas::{Blame, Fault, FaultKind, Problem};

/// What goes wrong before a gate can decide.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a file of gates.
    #[error("cannot use the gates: {} problems, the first: {}", .problems.len(), .problems.first().map_or_else(String::new, ToString::to_string))]
    File {
        /// All of them.
        problems: Vec<Problem>,
    },
    /// No gate has this name or type.
    #[error("no such gate: {gate:?}")]
    NoGate {
        /// What was asked for.
        gate: String,
    },
}

/// The result of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::File { .. } => FaultKind::Invalid,
            Self::NoGate { .. } => FaultKind::NotFound,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Caller
    }

    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "KIR-0701",
            Self::NoGate { .. } => "KIR-0702",
        }
    }
}
