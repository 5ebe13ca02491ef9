//! What is wrong with a report, and where.

use std::fmt;

use kiro_schemas::{Blame, Fault, FaultKind};

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: u64,
    /// Bytes before it.
    pub offset: u64,
}

impl Place {
    /// The beginning.
    pub(crate) const START: Self = Self { line: 1, offset: 0 };

    /// The place behind these bytes.
    pub(crate) fn after(self, bytes: &[u8]) -> Self {
        Self { line: self.line + memchr::memchr_iter(b'\n', bytes).count() as u64, offset: self.offset + bytes.len() as u64 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, byte {}", self.line, self.offset)
    }
}

/// Why a report is not read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what it should be.
    #[error("cannot read the report at {place}: {what}")]
    Broken {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// It is larger, deeper or longer than a limit.
    #[error("cannot read the report at {place}: {what}; the limit is {limit}")]
    TooLarge {
        /// Where.
        place: Place,
        /// What is too much.
        what: &'static str,
        /// The most that is taken.
        limit: u64,
    },
    /// Its first bytes are of no format that is known.
    #[error("cannot tell what report this is: it begins neither as JUnit, Cobertura or JaCoCo XML, nor as lcov or SARIF; name its format")]
    Unknown,
    /// The bytes did not come to their end.
    #[error("cannot receive the report: {0}")]
    Bytes(#[source] std::io::Error),
    /// Whoever takes the events wants no more of them.
    #[error("reading was stopped")]
    Stopped,
}

/// The result of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Broken { .. } | Self::Unknown | Self::Bytes(_) => FaultKind::Invalid,
            Self::TooLarge { .. } => FaultKind::TooLarge,
            Self::Stopped => FaultKind::Unavailable,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Broken { .. } | Self::TooLarge { .. } | Self::Unknown | Self::Bytes(_) => Blame::Caller,
            Self::Stopped => Blame::External,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Broken { .. } => "KIR-1201",
            Self::TooLarge { .. } => "KIR-1202",
            Self::Unknown => "KIR-1203",
            Self::Bytes(_) => "KIR-1204",
            Self::Stopped => "KIR-1205",
        }
    }
}

impl From<std::io::Error> for Error {
    /// What is wrong with the bytes, where a reader of ours found it.
    fn from(error: std::io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Bytes)
    }
}

/// The same without a place: whoever knows it adds it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    Broken(String),
    TooLarge(&'static str, usize),
    Stopped,
}

impl Fail {
    pub(crate) fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }

    pub(crate) fn at(self, place: Place) -> Error {
        match self {
            Self::Broken(what) => Error::Broken { place, what },
            Self::TooLarge(what, limit) => Error::TooLarge { place, what, limit: limit as u64 },
            Self::Stopped => Error::Stopped,
        }
    }
}

impl From<crate::Stopped> for Fail {
    fn from(_: crate::Stopped) -> Self {
        Self::Stopped
    }
}

impl From<crate::Stopped> for Error {
    fn from(_: crate::Stopped) -> Self {
        Self::Stopped
    }
}
