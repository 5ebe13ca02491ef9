//! What can go wrong at the door itself.

use kiro_ports::{PortError, Role};
use kiro_schemas::{Blame, Fault, FaultKind};

/// A request that the door refuses, or a port's error on its way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A room behind the door could not.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No valid token.
    #[error("a valid token is needed: send `Authorization: Bearer …`")]
    Unauthenticated,
    /// The role does not permit it.
    #[error("this needs the role {needed}, the token has the role {has}", needed = needed.as_str(), has = has.as_str())]
    Forbidden {
        /// The role that the route needs.
        needed: Role,
        /// The role that the token has.
        has: Role,
    },
    /// No such route.
    #[error("no such address: {path}")]
    NoRoute {
        /// The path.
        path: String,
    },
    /// The body or a parameter is wrong.
    #[error("{what}")]
    BadRequest {
        /// What is wrong, with its place.
        what: String,
    },
    /// An answer could not be encoded.
    #[error("cannot encode the answer: {0}")]
    Encode(#[from] arrow::error::ArrowError),
    /// A metric is registered twice.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Port(error) => error.kind,
            Self::Unauthenticated => FaultKind::Unauthenticated,
            Self::Forbidden { .. } => FaultKind::Forbidden,
            Self::NoRoute { .. } => FaultKind::NotFound,
            Self::BadRequest { .. } => FaultKind::Invalid,
            Self::Encode(_) | Self::Metrics(_) => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Port(error) => error.blame(),
            Self::Encode(_) | Self::Metrics(_) => Blame::Ours,
            _ => Blame::Caller,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Port(error) => error.code,
            Self::Unauthenticated => "KIR-1001",
            Self::Forbidden { .. } => "KIR-1002",
            Self::NoRoute { .. } => "KIR-1003",
            Self::BadRequest { .. } => "KIR-1004",
            Self::Encode(_) => "KIR-1005",
            Self::Metrics(_) => "KIR-1006",
        }
    }
}
