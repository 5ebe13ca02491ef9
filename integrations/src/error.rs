//! The error of the crate.

use kiro_schemas::{Blame, Fault, FaultKind};

/// What goes wrong at the border to other people's systems.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A signature does not prove who sent it.
    #[error("cannot accept webhook: {refusal}")]
    Refused {
        /// Why.
        #[source]
        refusal: crate::Refusal,
    },
    /// A configured secret cannot be used.
    #[error("cannot use secret: {reason}")]
    Secret {
        /// Why, without the secret.
        reason: &'static str,
    },
    /// The address may not be called.
    #[error("cannot call: {reason}")]
    Address {
        /// Why.
        reason: &'static str,
    },
    /// No answer came.
    #[error("cannot call {host}: {source}")]
    Call {
        /// Whom.
        host: String,
        /// Why, without the URL.
        #[source]
        source: reqwest::Error,
    },
    /// The client cannot be built.
    #[error("cannot build the HTTP client: {source}")]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A body cannot be written.
    #[error("cannot write a body: {source}")]
    Encode {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The result of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Refused { .. } => FaultKind::Unauthenticated,
            Self::Secret { .. } | Self::Address { .. } => FaultKind::Invalid,
            Self::Call { source, .. } if source.is_timeout() => FaultKind::TimedOut,
            Self::Call { .. } => FaultKind::Unavailable,
            Self::Client { .. } | Self::Encode { .. } => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Refused { .. } | Self::Secret { .. } | Self::Address { .. } => Blame::Caller,
            Self::Call { .. } | Self::Client { .. } => Blame::External,
            Self::Encode { .. } => Blame::Ours,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "KIR-0901",
            Self::Secret { .. } => "KIR-0902",
            Self::Address { .. } => "KIR-0903",
            Self::Call { .. } => "KIR-0904",
            Self::Client { .. } => "KIR-0905",
            Self::Encode { .. } => "KIR-0906",
        }
    }
}
