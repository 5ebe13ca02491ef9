//! What can go wrong in a fold.

use arrow::error::ArrowError;
use kiro_schemas::{Blame, Fault, FaultKind};

/// What a fold answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A fold could not take or give a batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch lacks a column that may not be null.
    #[error("cannot fold {table}: the batch has no column \"{column}\"")]
    MissingColumn {
        /// The table of the batch.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// A column cannot be read as the type that it has in the contract.
    #[error("cannot fold {table}: column \"{column}\" is of type {found}")]
    ColumnType {
        /// The table of the batch.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Its type in the batch.
        found: String,
        /// Why it cannot be cast.
        #[source]
        source: ArrowError,
    },
    /// A value is null where the contract has none.
    #[error("cannot fold {table}: \"{column}\" is null in row {row}")]
    NullValue {
        /// The table of the batch.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row of the batch, from 0.
        row: usize,
    },
    /// Rows could not be made into a batch.
    #[error("cannot build rows of {table}: {source}")]
    Build {
        /// The derived table.
        table: &'static str,
        /// What Arrow says.
        #[source]
        source: ArrowError,
    },
    /// A table that the contract promises is not in it.
    #[error("cannot find the table {table}")]
    UnknownTable {
        /// The table.
        table: &'static str,
    },
    /// A metric is registered twice.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::MissingColumn { .. } | Self::ColumnType { .. } | Self::NullValue { .. } => FaultKind::Invalid,
            Self::Build { .. } | Self::UnknownTable { .. } | Self::Metrics(_) => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Ours
    }

    fn code(&self) -> &'static str {
        match self {
            Self::MissingColumn { .. } => "KIR-0501",
            Self::ColumnType { .. } => "KIR-0502",
            Self::NullValue { .. } => "KIR-0503",
            Self::Build { .. } => "KIR-0504",
            Self::UnknownTable { .. } => "KIR-0505",
            Self::Metrics(_) => "KIR-0506",
        }
    }
}
