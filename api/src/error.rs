//! What can go wrong at the door itself.

use kiro_ports::{PortError, Role};
use kiro_schemas::{Blame, Fault, FaultKind, Retry};

/// What is not there now may be there after this.
const BACK_OFF_SECONDS: u64 = 5;

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
    /// It is about all tenants.
    #[error("this is about all tenants: it needs a token of the tenant `default`")]
    AllTenants,
    /// No such route.
    #[error("no such address: {path}")]
    NoRoute {
        /// The path.
        path: String,
    },
    /// Nobody of this name is known.
    #[error("nobody of this name has a pseudonym: no event told it to the letter, or it was forgotten")]
    UnknownPerson,
    /// The body or a parameter is wrong.
    #[error("{what}")]
    BadRequest {
        /// What is wrong, with its place.
        what: String,
    },
    /// The JSON of a question is larger than any question.
    #[error("the body has {size} bytes, more than {limit}")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The most that it may have.
        limit: usize,
    },
    /// The quota of the caller is used up.
    #[error("too many requests of the class {class}: try again in {retry_after_seconds} s")]
    TooMany {
        /// The class of routes.
        class: &'static str,
        /// When the next request is let in.
        retry_after_seconds: u64,
    },
    /// Large deliveries fill the memory that they may have.
    #[error("too many large deliveries at once: send it again")]
    Crowded,
    /// A delivery does not come, or too slowly.
    #[error("the delivery came too slowly: {what}")]
    Slow {
        /// How slowly.
        what: String,
    },
    /// An answer could not be encoded.
    #[error("cannot encode the answer: {0}")]
    Encode(#[from] arrow::error::ArrowError),
    /// A handler panicked; the request ends, the process goes on.
    #[error("a request handler panicked")]
    Panicked,
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
            Self::Forbidden { .. } | Self::AllTenants => FaultKind::Forbidden,
            Self::NoRoute { .. } | Self::UnknownPerson => FaultKind::NotFound,
            Self::BadRequest { .. } => FaultKind::Invalid,
            Self::TooLarge { .. } => FaultKind::TooLarge,
            Self::TooMany { .. } => FaultKind::Throttled,
            Self::Crowded => FaultKind::Unavailable,
            Self::Slow { .. } => FaultKind::TimedOut,
            Self::Encode(_) | Self::Metrics(_) | Self::Panicked => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Port(error) => error.blame(),
            Self::Encode(_) | Self::Metrics(_) | Self::Panicked | Self::Crowded => Blame::Ours,
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
            Self::Panicked => "KIR-1007",
            Self::TooMany { .. } => "KIR-1008",
            Self::TooLarge { .. } => "KIR-1009",
            Self::AllTenants => "KIR-1010",
            Self::Crowded => "KIR-1011",
            Self::Slow { .. } => "KIR-1012",
            Self::UnknownPerson => "KIR-1013",
        }
    }
}

impl Error {
    /// When to try again, for those who may.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::TooMany { retry_after_seconds, .. } => Some(*retry_after_seconds),
            _ => (self.retry() == Retry::Backoff).then_some(BACK_OFF_SECONDS),
        }
    }
}
