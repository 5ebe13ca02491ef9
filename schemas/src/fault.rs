//! What every error of every crate can say of itself, so that doors map faults without reading their texts.

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request, the file or the configuration is wrong.
    Caller,
    /// A system beside us (broker, store, platform) failed.
    External,
    /// A bug or a broken promise of ours.
    Ours,
}

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    Never,
    /// Try again, with back-off.
    Backoff,
}

/// What kind of thing went wrong; the API maps this, and nothing else, to an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The input cannot be understood.
    Invalid,
    /// The input is larger, deeper or longer than a limit.
    TooLarge,
    /// No such thing.
    NotFound,
    /// It clashes with what is there.
    Conflict,
    /// No valid credential.
    Unauthenticated,
    /// A valid credential that does not permit it.
    Forbidden,
    /// A rate limit was passed.
    Throttled,
    /// It took longer than allowed.
    TimedOut,
    /// Something needed is not there right now.
    Unavailable,
    /// No space left to write to.
    NoSpace,
    /// Anything else that went wrong inside.
    Internal,
}

/// The face of every error enum of the workspace.
pub trait Fault: std::error::Error {
    /// The kind, which decides the HTTP status.
    fn kind(&self) -> FaultKind;
    /// Who has to act.
    fn blame(&self) -> Blame;
    /// Whether to try again.
    fn retry(&self) -> Retry {
        match self.kind() {
            FaultKind::Unavailable | FaultKind::Throttled | FaultKind::TimedOut | FaultKind::NoSpace => Retry::Backoff,
            _ => Retry::Never,
        }
    }
    /// A stable code such as `KIR-0103`, listed in `docs/errors.md`.
    fn code(&self) -> &'static str;
}
