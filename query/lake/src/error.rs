//! What can go wrong with the lake.

use std::path::PathBuf;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;
use kiro_schemas::{Blame, Fault, FaultKind};
use parquet::errors::ParquetError;

use crate::log::PROTOCOL as KNOWN;

/// A failure of the lake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store failed.
    #[error("cannot {what} {path}: {source}")]
    Store {
        /// What was to be done: `read`, `write`, `list`.
        what: &'static str,
        /// The object.
        path: String,
        /// The store's error.
        #[source]
        source: Box<object_store::Error>,
    },
    /// A table could not be loaded or checkpointed.
    #[error("cannot {what} table {table}: {source}")]
    Delta {
        /// What was to be done: `load`, `checkpoint`.
        what: &'static str,
        /// The table.
        table: &'static str,
        /// The library's error.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// Rows could not be written as Parquet, or a checkpoint could not be read.
    #[error("cannot encode or decode Parquet of table {table}: {source}")]
    Parquet {
        /// The table.
        table: &'static str,
        /// The codec's error.
        #[source]
        source: Box<ParquetError>,
    },
    /// Columns could not be brought to the types of the table.
    #[error("cannot convert rows of table {table}: {source}")]
    Arrow {
        /// The table.
        table: &'static str,
        /// Arrow's error.
        #[source]
        source: Box<ArrowError>,
    },
    /// Rows could not be read.
    #[error("cannot read rows of table {table}: {source}")]
    Query {
        /// The table.
        table: &'static str,
        /// The engine's error.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A file of the lake is not what it must be.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// The object.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The lake was written by a newer product.
    #[error("the lake has format {found}, of {program}; this program knows {known}: use a newer program")]
    Newer {
        /// The version in `lake.json`.
        found: u64,
        /// The newest version known here.
        known: u64,
        /// Which program wrote it, as far as it says.
        program: String,
    },
    /// Another program gave the table features that we cannot read or write.
    #[error("table {table} needs Delta reader version {reader} and writer version {writer}, this program knows {} and {}", KNOWN.0, KNOWN.1)]
    Protocol {
        /// The table.
        table: &'static str,
        /// The version that its readers need.
        reader: i64,
        /// The version that its writers need.
        writer: i64,
    },
    /// The table's columns and those of this program do not fit: columns are added, and neither changed nor removed.
    #[error("table {table} does not fit this program, column {column}: {reason}")]
    Schema {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What does not fit.
        reason: String,
    },
    /// A commit or a question that makes no sense.
    #[error("table {table}: {reason}")]
    Invalid {
        /// The table.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A directory could not be opened or made.
    #[error("cannot open directory {path}: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A background task ended abnormally.
    #[error("table {table}: a worker ended: {reason}")]
    Worker {
        /// The table.
        table: &'static str,
        /// Why.
        reason: String,
    },
    /// A version that is not of the lake.
    #[error("version {version} is no version of this lake")]
    Foreign {
        /// What it says of itself.
        version: i64,
    },
}

/// The result of the lake's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn store(what: &'static str, path: &(impl ToString + ?Sized), source: object_store::Error) -> Self {
        Self::Store { what, path: path.to_string(), source: Box::new(source) }
    }

    /// Whether trying again at once is of no use.
    pub(crate) fn is_full(&self) -> bool {
        self.kind() == FaultKind::NoSpace
    }
}

/// The kind of what lies at the bottom of a chain of errors.
fn kind_of_chain(error: &(dyn std::error::Error + 'static)) -> FaultKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                    return FaultKind::NoSpace;
                }
                std::io::ErrorKind::TimedOut => return FaultKind::TimedOut,
                _ => {}
            }
            // An `io::Error` hides what it wraps from `source`.
            if let Some(inner) = io.get_ref() {
                let inner: &(dyn std::error::Error + 'static) = inner;
                next = Some(inner);
                continue;
            }
        }
        next = error.source();
    }
    FaultKind::Unavailable
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Store { source, .. } => kind_of_chain(source.as_ref()),
            Self::Delta { source, .. } => kind_of_chain(source.as_ref()),
            Self::Directory { source, .. } => kind_of_chain(source),
            Self::Newer { .. } | Self::Protocol { .. } | Self::Schema { .. } => FaultKind::Conflict,
            Self::Invalid { .. } => FaultKind::Invalid,
            Self::Parquet { .. }
            | Self::Arrow { .. }
            | Self::Query { .. }
            | Self::Corrupt { .. }
            | Self::Worker { .. }
            | Self::Foreign { .. } => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Store { .. } | Self::Delta { .. } | Self::Directory { .. } | Self::Corrupt { .. } | Self::Protocol { .. } => {
                Blame::External
            }
            Self::Newer { .. } | Self::Schema { .. } | Self::Invalid { .. } => Blame::Caller,
            Self::Parquet { .. } | Self::Arrow { .. } | Self::Query { .. } | Self::Worker { .. } | Self::Foreign { .. } => Blame::Ours,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Store { .. } => "KIR-0301",
            Self::Delta { .. } => "KIR-0302",
            Self::Parquet { .. } => "KIR-0303",
            Self::Arrow { .. } => "KIR-0304",
            Self::Query { .. } => "KIR-0305",
            Self::Corrupt { .. } => "KIR-0306",
            Self::Newer { .. } => "KIR-0307",
            Self::Protocol { .. } => "KIR-0308",
            Self::Invalid { .. } => "KIR-0309",
            Self::Directory { .. } => "KIR-0310",
            Self::Worker { .. } => "KIR-0311",
            Self::Schema { .. } => "KIR-0312",
            Self::Foreign { .. } => "KIR-0313",
        }
    }
}
