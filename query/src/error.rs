//! What can go wrong with a question.

use datafusion::error::DataFusionError;
use kiro_schemas::{Blame, Fault, FaultKind};

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text or its plan passes a limit of size.
    #[error("the statement is too large: {what} is {found}, at most {limit} is allowed")]
    StatementTooLarge {
        /// What is limited.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much may be.
        limit: usize,
    },
    /// The text is not SQL that we know.
    #[error("cannot parse the statement: {0}")]
    Syntax(String),
    /// A statement that does more than read.
    #[error("refused: {0}; only one read-only query is allowed")]
    Refused(String),
    /// The statement names what is not there, or does not fit the types.
    #[error("cannot plan the statement: {0}")]
    Plan(#[source] Box<DataFusionError>),
    /// A parameter does not fit.
    #[error("parameter ${position}: {reason}")]
    Parameter {
        /// Its number, from 1.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It failed while it ran, by the data it met.
    #[error("the query failed: {0}")]
    Execution(#[source] Box<DataFusionError>),
    /// It wanted more memory than it may have.
    #[error("the query needs more than the {limit_mib} MiB of memory that it may use; ask for fewer rows or groups")]
    OutOfMemory {
        /// The limit.
        limit_mib: usize,
        /// The allocation that failed.
        #[source]
        source: Box<DataFusionError>,
    },
    /// It took too long.
    #[error("the query was cancelled after {ms} ms")]
    TimedOut {
        /// The limit.
        ms: u128,
    },
    /// It gave too many rows.
    #[error("the answer has more than {limit} rows; add a LIMIT or aggregate")]
    TooManyRows {
        /// The limit.
        limit: usize,
    },
    /// No place among the running queries came free in time.
    #[error("too many queries run; none ended within {ms} ms")]
    Busy {
        /// How long was waited.
        ms: u128,
    },
    /// The process was started a moment ago and has not read as much of the log as the table contains.
    #[error("{table} contains more than this process has read of the log yet; ask again in a moment")]
    Behind {
        /// The table.
        table: &'static str,
    },
    /// A file of the lake could not be read.
    #[error("cannot read the lake: {0}")]
    Lake(#[source] Box<DataFusionError>),
    /// The engine broke a promise.
    #[error("the query engine failed: {0}")]
    Engine(#[source] Box<DataFusionError>),
    /// The task of a query ended without an answer.
    #[error("the query ended without an answer")]
    Lost,
    /// The metrics could not be registered.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// Sorts what the engine says while it plans.
    pub(crate) fn of_plan(error: DataFusionError) -> Self {
        Self::of(error, Self::Plan)
    }

    /// Sorts what the engine says while it runs; `memory` is the limit in bytes.
    pub(crate) fn of_run(error: DataFusionError, memory: usize) -> Self {
        match Self::of(error, Self::Execution) {
            Self::OutOfMemory { source, .. } => Self::OutOfMemory { limit_mib: memory >> 20, source },
            other => other,
        }
    }

    fn of(error: DataFusionError, otherwise: impl Fn(Box<DataFusionError>) -> Self) -> Self {
        match error.find_root() {
            DataFusionError::External(inner) => match inner.downcast_ref::<GateRefusal>() {
                Some(GateRefusal(what)) => Self::Refused(what.clone()),
                None => match inner.downcast_ref::<Behind>() {
                    Some(Behind(table)) => Self::Behind { table },
                    None => Self::Lake(Box::new(error)),
                },
            },
            DataFusionError::SQL(..) => Self::Syntax(plain(&error)),
            DataFusionError::ResourcesExhausted(_) => Self::OutOfMemory { limit_mib: 0, source: Box::new(error) },
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => Self::Lake(Box::new(error)),
            DataFusionError::Internal(_) => Self::Engine(Box::new(error)),
            _ => otherwise(Box::new(error)),
        }
    }
}

/// A refusal that has to pass through the engine's own error type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct GateRefusal(pub(crate) String);

/// [`Error::Behind`] on its way through the engine's own error type.
#[derive(Debug, thiserror::Error)]
#[error("{0} contains more than was read")]
pub(crate) struct Behind(pub(crate) &'static str);

/// The engine's text without the engine's own prefixes.
pub(crate) fn plain(error: &DataFusionError) -> String {
    error.strip_backtrace().trim_start_matches("SQL error: ").to_owned()
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::StatementTooLarge { .. } | Self::OutOfMemory { .. } | Self::TooManyRows { .. } => FaultKind::TooLarge,
            Self::Syntax(_) | Self::Refused(_) | Self::Plan(_) | Self::Parameter { .. } | Self::Execution(_) => FaultKind::Invalid,
            Self::TimedOut { .. } => FaultKind::TimedOut,
            Self::Busy { .. } => FaultKind::Throttled,
            Self::Lake(_) | Self::Behind { .. } => FaultKind::Unavailable,
            Self::Engine(_) | Self::Lost | Self::Metrics(_) => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self.kind() {
            FaultKind::Unavailable => Blame::External,
            FaultKind::Internal => Blame::Ours,
            _ => Blame::Caller,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::StatementTooLarge { .. } => "KIR-0401",
            Self::Syntax(_) => "KIR-0402",
            Self::Refused(_) => "KIR-0403",
            Self::Plan(_) => "KIR-0404",
            Self::Parameter { .. } => "KIR-0405",
            Self::Execution(_) => "KIR-0406",
            Self::OutOfMemory { .. } => "KIR-0407",
            Self::TimedOut { .. } => "KIR-0408",
            Self::TooManyRows { .. } => "KIR-0409",
            Self::Busy { .. } => "KIR-0410",
            Self::Lake(_) => "KIR-0411",
            Self::Engine(_) => "KIR-0412",
            Self::Lost => "KIR-0413",
            Self::Metrics(_) => "KIR-0414",
            Self::Behind { .. } => "KIR-0415",
        }
    }
}
