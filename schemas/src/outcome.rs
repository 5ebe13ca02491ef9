//! How a run ended, in one vocabulary for all platforms.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a run, deployment or test ended.
///
/// # Source
/// CDEvents 0.5 `outcome` plus OpenTelemetry `cicd.pipeline.result` = `skip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did what it was meant to do.
    Success,
    /// It ran and found a failure.
    Failure,
    /// Somebody or something stopped it.
    Cancel,
    /// It could not run to its end: infrastructure, time-out.
    Error,
    /// It was not meant to run.
    Skip,
}

impl Outcome {
    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancel => "cancel",
            Self::Error => "error",
            Self::Skip => "skip",
        }
    }

    /// Reads a stored word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "success" => Self::Success,
            "failure" => Self::Failure,
            "cancel" => Self::Cancel,
            "error" => Self::Error,
            "skip" => Self::Skip,
            _ => return None,
        })
    }

    /// Maps a platform's word, in any case; `None` where the word is not terminal or not known.
    ///
    /// # Source
    /// CDEvents `outcome`, GitHub `conclusion`, GitLab `status`, Jenkins `result`, Azure `result`, CircleCI `status`.
    /// Jenkins `UNSTABLE` and Azure `partiallySucceeded` are failures: something in them failed.
    #[must_use]
    pub fn of_provider(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        Some(match word.as_str() {
            "success" | "succeeded" | "passed" | "pass" => Self::Success,
            "failure" | "failed" | "fail" | "unstable" | "partiallysucceeded" => Self::Failure,
            "cancel" | "cancelled" | "canceled" | "aborted" => Self::Cancel,
            "error" | "errored" | "timed_out" | "timeout" | "startup_failure" | "stale" | "unauthorized" => Self::Error,
            "skip" | "skipped" | "neutral" | "not_built" => Self::Skip,
            _ => return None,
        })
    }

    /// Whether the run tells if the change was good: only success and failure do.
    #[must_use]
    pub const fn is_label(self) -> bool {
        matches!(self, Self::Success | Self::Failure)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
