//! Why bytes are no event.

use kiro_schemas::event::EventError;
use kiro_schemas::{Blame, Fault, FaultKind};

/// Why bytes are no event, with the place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Larger than a limit.
    #[error("{what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// JSON of too many levels.
    #[error("JSON is more than {limit} levels deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Not JSON.
    #[error("not JSON at line {line} column {column}: {reason}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// JSON of the wrong shape.
    #[error("{path}: {problem}")]
    Shape {
        /// Where in the document.
        path: String,
        /// What is wrong there.
        problem: String,
    },
    /// Native JSON that is no event.
    #[error(transparent)]
    Native(#[from] EventError),
    /// The `kiro-format` header names no format that is known.
    #[error("unknown format {format:?}")]
    UnknownFormat {
        /// Its value.
        format: String,
    },
    /// A platform's payload.
    #[error("{format} payload: {reason}")]
    Platform {
        /// The platform's format.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A header that cannot be read.
    #[error("header {name:?}: {problem}")]
    Header {
        /// The header.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A row that the topic's mapping cannot read.
    #[error("mapping: {reason}")]
    Mapping {
        /// What is wrong, with its place.
        reason: String,
    },
    /// One event of several in a post.
    #[error("event {index}: {error}")]
    At {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        error: Box<DecodeError>,
    },
}

impl DecodeError {
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_owned();
        Self::Json { line: error.line(), column: error.column(), reason }
    }

    pub(crate) fn shape(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Shape { path: path.into(), problem: problem.into() }
    }
}

/// The first 64 characters, so that an error stays small.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Fault for DecodeError {
    fn kind(&self) -> FaultKind {
        match self {
            Self::TooLarge { .. } | Self::TooDeep { .. } => FaultKind::TooLarge,
            Self::At { error, .. } => error.kind(),
            _ => FaultKind::Invalid,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Caller
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "KIR-0201",
            Self::TooDeep { .. } => "KIR-0202",
            Self::Json { .. } => "KIR-0203",
            Self::Shape { .. } => "KIR-0204",
            Self::Native(_) => "KIR-0205",
            Self::UnknownFormat { .. } => "KIR-0206",
            Self::Platform { .. } => "KIR-0207",
            Self::Header { .. } => "KIR-0208",
            Self::Mapping { .. } => "KIR-0209",
            Self::At { error, .. } => error.code(),
        }
    }
}
