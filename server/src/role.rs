//! What a process does: everything, or one part of it beside others.

use std::fmt;

/// The part of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Everything, in one process.
    Up,
    /// HTTP, webhooks, psql, gates.
    Serve,
    /// Log to lake.
    Ingest,
    /// Folds and training.
    Process,
    /// What decisions start.
    Orchestrate,
    /// Upkeep of the lake.
    Maintain,
}

impl Role {
    /// Whether it does everything by itself; the others share log and control store with other processes.
    pub(crate) fn is_whole(self) -> bool {
        self == Self::Up
    }

    /// Whether it opens the doors for people and pipelines.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Serve)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Serve => "serve",
            Self::Ingest => "ingest",
            Self::Process => "process",
            Self::Orchestrate => "orchestrate",
            Self::Maintain => "maintain",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
