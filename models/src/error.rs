//! What can go wrong in training and serving.

use kiro_schemas::{Blame, Fault, FaultKind};

/// A model could not be trained, written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table lacks a column that is needed.
    #[error("cannot read {table}: no column {column:?}")]
    Column {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
    },
    /// A column cannot be read as its type.
    #[error("cannot read {table}.{column}: {source}")]
    Type {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// Arrow's reason.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// All examples have the same label, or there is none.
    #[error("cannot train: {examples} examples of which {failures} failed")]
    OneClass {
        /// How many examples there are.
        examples: usize,
        /// How many of them failed.
        failures: usize,
    },
    /// The configuration makes no sense.
    #[error("cannot train: {0}")]
    Config(&'static str),
    /// The model file is of a later program.
    #[error("cannot read model: format version {found}, this program reads up to {known}")]
    Newer {
        /// The version in the file.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The model file does not hash to its version.
    #[error("cannot read model {version}: its content hashes to {found}")]
    Hash {
        /// The version that the file states.
        version: String,
        /// The hash of its content.
        found: String,
    },
    /// The model file is not a model.
    #[error("cannot read model: {0}")]
    Json(#[source] serde_json::Error),
    /// The model file says what no model is.
    #[error("cannot read model: {0}")]
    Odd(&'static str),
    /// The model cannot be written.
    #[error("cannot write model: {0}")]
    Write(#[source] serde_json::Error),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Config(_) | Self::OneClass { .. } | Self::Newer { .. } | Self::Hash { .. } | Self::Json(_) | Self::Odd(_) => {
                FaultKind::Invalid
            }
            Self::Column { .. } | Self::Type { .. } | Self::Write(_) => FaultKind::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Config(_) | Self::OneClass { .. } | Self::Newer { .. } | Self::Hash { .. } | Self::Json(_) | Self::Odd(_) => {
                Blame::Caller
            }
            Self::Column { .. } | Self::Type { .. } | Self::Write(_) => Blame::Ours,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Column { .. } => "KIR-0601",
            Self::Type { .. } => "KIR-0602",
            Self::OneClass { .. } => "KIR-0603",
            Self::Config(_) => "KIR-0604",
            Self::Newer { .. } => "KIR-0605",
            Self::Hash { .. } => "KIR-0606",
            Self::Json(_) => "KIR-0607",
            Self::Write(_) => "KIR-0608",
            Self::Odd(_) => "KIR-0609",
        }
    }
}
