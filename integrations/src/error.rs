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
    /// A page is too long to be read.
    #[error("cannot read a page of {host}: it has more than {most} bytes")]
    LongPage {
        /// Whose.
        host: String,
        /// How many are read.
        most: usize,
    },
    /// A page cannot be understood.
    #[error("cannot read {path} of {host}: {source}")]
    Page {
        /// Whose.
        host: String,
        /// Which.
        path: String,
        /// Why, with the place.
        #[source]
        source: serde_json::Error,
    },
    /// The platform does not know the token.
    #[error("{host} does not accept the token: it is wrong, has expired or was revoked (HTTP 401)")]
    Token {
        /// Whose.
        host: String,
    },
    /// The token does not permit it.
    #[error("{host} does not permit {path} with this token (HTTP 403){needs}")]
    Permission {
        /// Whose.
        host: String,
        /// What was asked for.
        path: String,
        /// What the token lacks, where the platform says so.
        needs: String,
    },
    /// There is nothing, or nothing that the token may see.
    #[error("{host} has no {path}, or the token has no access to it (HTTP {status})")]
    Absent {
        /// Whose.
        host: String,
        /// What was asked for.
        path: String,
        /// 404 or 410.
        status: u16,
    },
    /// The platform answers what is no page, however often it is asked.
    #[error("{host} answers {path} with HTTP {status}{hint}")]
    Answer {
        /// Whose.
        host: String,
        /// What was asked for.
        path: String,
        /// How.
        status: u16,
        /// What that may mean.
        hint: &'static str,
    },
    /// The platform has no history that could be read.
    #[error("the history of {platform} cannot be read; that of {known} can")]
    NoHistory {
        /// Which.
        platform: String,
        /// Those that have one.
        known: String,
    },
    /// A repository is not named as the platform does it.
    #[error("{name:?} is no repository of {platform}: expected such as {example}")]
    Repository {
        /// What was given.
        name: String,
        /// Whose it should be.
        platform: &'static str,
        /// A name.
        example: &'static str,
    },
}

/// The result of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Refused { .. } | Self::Token { .. } => FaultKind::Unauthenticated,
            Self::Secret { .. } | Self::Address { .. } | Self::Repository { .. } => FaultKind::Invalid,
            Self::Absent { .. } | Self::NoHistory { .. } => FaultKind::NotFound,
            Self::Permission { .. } => FaultKind::Forbidden,
            Self::LongPage { .. } => FaultKind::TooLarge,
            Self::Answer { status: 429, .. } => FaultKind::Throttled,
            Self::Call { source, .. } if source.is_timeout() => FaultKind::TimedOut,
            Self::Answer { .. } | Self::Page { .. } | Self::Call { .. } => FaultKind::Unavailable,
            Self::Client { .. } | Self::Encode { .. } => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Refused { .. }
            | Self::Secret { .. }
            | Self::Address { .. }
            | Self::Token { .. }
            | Self::Permission { .. }
            | Self::Absent { .. }
            | Self::NoHistory { .. }
            | Self::Repository { .. } => Blame::Caller,
            Self::Call { .. } | Self::Client { .. } | Self::LongPage { .. } | Self::Page { .. } | Self::Answer { .. } => Blame::External,
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
            Self::LongPage { .. } => "KIR-0907",
            Self::Page { .. } => "KIR-0908",
            Self::Token { .. } => "KIR-0909",
            Self::Permission { .. } => "KIR-0910",
            Self::Absent { .. } => "KIR-0911",
            Self::Answer { .. } => "KIR-0912",
            Self::NoHistory { .. } => "KIR-0913",
            Self::Repository { .. } => "KIR-0914",
        }
    }
}
