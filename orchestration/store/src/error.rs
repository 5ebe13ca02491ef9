//! The error of the crate.

use std::path::PathBuf;

use kiro_schemas::{Blame, Fault, FaultKind};

/// What goes wrong in the control store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error("cannot open control store: {source}")]
    Open {
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Its file cannot be made.
    #[error("cannot make control store {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error("cannot use control store: its schema is version {found}, this program knows {known}; run the newer program")]
    Newer {
        /// In the store.
        found: i64,
        /// Known here.
        known: i64,
    },
    /// An older program wrote it, and it was only to be looked at.
    #[error("control store has schema version {found}, this program makes {known} of it when it starts")]
    Older {
        /// In the store.
        found: i64,
        /// Known here.
        known: i64,
    },
    /// A question to it failed.
    #[error("cannot {what} in control store: {source}")]
    Query {
        /// What was done.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A row cannot be understood.
    #[error("cannot read control store: {column} is {value:?}")]
    Corrupt {
        /// The column.
        column: &'static str,
        /// What is there.
        value: String,
    },
    /// A name or number that cannot be stored.
    #[error("{what} {value:?} is not allowed: {rule}")]
    Invalid {
        /// What.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// The name is taken.
    #[error("a {what} named {name:?} is there already")]
    Taken {
        /// What has it.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// There is no such delivery or job.
    #[error("no such {what}: {key:?}")]
    Missing {
        /// What.
        what: &'static str,
        /// Its key.
        key: String,
    },
    /// The operating system gave no random bits.
    #[error("cannot take random bits: {source}")]
    Random {
        /// Why.
        #[source]
        source: rand::Error,
    },
    /// A computation was stopped.
    #[error("cannot make a token: the computation was stopped")]
    Stopped,
}

/// The result of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn query(what: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Query { what, source }
    }
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Open { .. } | Self::File { .. } => FaultKind::Unavailable,
            Self::Query { source, .. } => match source {
                sqlx::Error::PoolTimedOut => FaultKind::TimedOut,
                sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => FaultKind::Unavailable,
                sqlx::Error::Database(error) if is_full(error.code().as_deref()) => FaultKind::NoSpace,
                sqlx::Error::Database(error) if is_busy(error.code().as_deref()) => FaultKind::Unavailable,
                _ => FaultKind::Internal,
            },
            Self::Newer { .. } | Self::Older { .. } | Self::Taken { .. } => FaultKind::Conflict,
            Self::Invalid { .. } => FaultKind::Invalid,
            Self::Missing { .. } => FaultKind::NotFound,
            Self::Corrupt { .. } | Self::Random { .. } | Self::Stopped => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Invalid { .. } | Self::Taken { .. } | Self::Missing { .. } | Self::Newer { .. } | Self::Older { .. } => Blame::Caller,
            Self::Open { .. } | Self::File { .. } | Self::Query { .. } | Self::Random { .. } => Blame::External,
            Self::Corrupt { .. } | Self::Stopped => Blame::Ours,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "KIR-0801",
            Self::File { .. } => "KIR-0802",
            Self::Newer { .. } => "KIR-0803",
            Self::Query { .. } => "KIR-0804",
            Self::Corrupt { .. } => "KIR-0805",
            Self::Invalid { .. } => "KIR-0806",
            Self::Taken { .. } => "KIR-0807",
            Self::Missing { .. } => "KIR-0808",
            Self::Random { .. } => "KIR-0809",
            Self::Stopped => "KIR-0810",
            Self::Older { .. } => "KIR-0811",
        }
    }
}

/// `SQLITE_FULL`, and PostgreSQL's `disk_full`.
fn is_full(code: Option<&str>) -> bool {
    matches!(code, Some("13" | "53100"))
}

/// `SQLITE_BUSY` and `SQLITE_LOCKED`, and PostgreSQL's serialization failures, shutdowns and full connection slots.
fn is_busy(code: Option<&str>) -> bool {
    matches!(code, Some("5" | "6" | "261" | "517" | "40001" | "40P01" | "57P01" | "57P03" | "53300"))
}
