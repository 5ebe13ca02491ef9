//! What can go wrong between the log and the batches.

use kiro_schemas::{Blame, Fault, FaultKind};

use crate::decode::DecodeError;
use crate::mapping::RowError;

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why input gave no events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes of a record are no event.
    #[error("cannot decode event: {0}")]
    Decode(#[from] DecodeError),
    /// A row of a mapped file is no event.
    #[error("cannot map row: {0}")]
    Row(#[from] RowError),
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Decode(error) => error.kind(),
            Self::Row(error) => error.kind(),
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Decode(error) => error.blame(),
            Self::Row(error) => error.blame(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.code(),
            Self::Row(error) => error.code(),
        }
    }
}
