//! What ends an engine.

use kiro_ports::PortError;
use kiro_schemas::{Blame, Fault, FaultKind};

/// Why an engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A port failed where the engine cannot go on without it.
    #[error("cannot {what}: {source}")]
    Port {
        /// What it was needed for.
        what: &'static str,
        /// The port's error.
        #[source]
        source: PortError,
    },
    /// Rows could not be put together.
    #[error("cannot build rows of {table}: {source}")]
    Rows {
        /// The table.
        table: &'static str,
        /// Arrow's error.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// The metrics are registered already.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The thread of the folds could not be started.
    #[error("cannot start the thread of the folds: {0}")]
    Thread(#[source] std::io::Error),
    /// The bytes of a dead letter could not be kept until the end; the record is read again at the next start.
    #[error("cannot write a quarantine file: {0}")]
    Quarantine(#[source] std::io::Error),
    /// Persons could not be given their pseudonyms until the end; the records are read again at the next start.
    #[error("cannot give persons their pseudonyms: {0}")]
    Persons(#[source] PortError),
    /// Another process commits what the folds of this one derive.
    #[error("another process commits {table}, in epoch {epoch}")]
    Fenced {
        /// The table where it was seen.
        table: &'static str,
        /// The epoch of the other; 0 when it is not known.
        epoch: i64,
    },
    /// What was committed to a table is not seen yet by those who read it.
    #[error("cannot see yet what was committed to {table} under {app}")]
    Behind {
        /// The table.
        table: &'static str,
        /// The application that committed.
        app: String,
    },
    /// The thread of the folds, or a committer, panicked.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// The result of the engine's functions.
pub type EngineResult<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    pub(super) fn port(what: &'static str) -> impl FnOnce(PortError) -> Self {
        move |source| Self::Port { what, source }
    }

    pub(super) fn rows(table: &'static str) -> impl FnOnce(arrow::error::ArrowError) -> Self {
        move |source| Self::Rows { table, source }
    }
}

impl Fault for EngineError {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Port { source, .. } | Self::Persons(source) => source.kind,
            Self::Rows { .. } | Self::Metrics(_) | Self::Ended(_) => FaultKind::Internal,
            Self::Fenced { .. } => FaultKind::Conflict,
            Self::Thread(_) | Self::Quarantine(_) | Self::Behind { .. } => FaultKind::Unavailable,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Port { source, .. } | Self::Persons(source) => source.blame(),
            Self::Rows { .. } | Self::Metrics(_) | Self::Ended(_) => Blame::Ours,
            Self::Thread(_) | Self::Quarantine(_) | Self::Fenced { .. } | Self::Behind { .. } => Blame::External,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Port { .. } => "KIR-0221",
            Self::Rows { .. } => "KIR-0222",
            Self::Metrics(_) => "KIR-0223",
            Self::Thread(_) => "KIR-0224",
            Self::Ended(_) => "KIR-0225",
            Self::Quarantine(_) => "KIR-0226",
            Self::Fenced { .. } => "KIR-0227",
            Self::Behind { .. } => "KIR-0228",
            Self::Persons(_) => "KIR-0229",
        }
    }
}
