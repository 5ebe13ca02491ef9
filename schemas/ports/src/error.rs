//! The one error of all ports: what happened, in the words of the adapter, with its kind.

use kiro_schemas::{Blame, Fault, FaultKind};

/// An adapter could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct PortError {
    /// What failed, then with what.
    pub what: String,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The adapter's own code, `KIR-…`.
    pub code: &'static str,
    /// The adapter's own error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl PortError {
    /// Wraps an adapter's error, keeping its kind, code and text.
    pub fn of(error: impl Fault + Send + Sync + 'static) -> Self {
        Self { what: error.to_string(), kind: error.kind(), code: error.code(), source: Some(Box::new(error)) }
    }
}

impl Fault for PortError {
    fn kind(&self) -> FaultKind {
        self.kind
    }

    fn blame(&self) -> Blame {
        match self.kind {
            FaultKind::Unavailable | FaultKind::TimedOut | FaultKind::NoSpace => Blame::External,
            FaultKind::Internal => Blame::Ours,
            _ => Blame::Caller,
        }
    }

    fn code(&self) -> &'static str {
        self.code
    }
}
