//! Reports that tools leave behind: what they are about, and what was found in them.

use serde::{Deserialize, Serialize};

use crate::Micros;

/// What a report is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportScope {
    /// The repository or service, as in `source` of the tables.
    pub source: String,
    /// The pipeline run that made it.
    pub run_id: String,
    /// The attempt of that run.
    #[serde(default = "first")]
    pub attempt: i64,
    /// What tells the reports of one run apart, such as job and path; the same again is the same report.
    #[serde(default)]
    pub name: String,
    /// The commit that it is about.
    #[serde(default)]
    pub commit_sha: Option<String>,
    /// The branch that it is about.
    #[serde(default)]
    pub branch: Option<String>,
    /// The service that it is about.
    #[serde(default)]
    pub service: Option<String>,
    /// The environment where it was made.
    #[serde(default)]
    pub environment: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub time: Option<Micros>,
}

const fn first() -> i64 {
    1
}

/// What was found in a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCounts {
    /// Its format.
    pub format: String,
    /// Events that it gave.
    pub events: u64,
    /// Tests that passed in the end.
    pub success: u64,
    /// Tests that failed in the end.
    pub failure: u64,
    /// Tests that broke.
    pub error: u64,
    /// Tests that were not run.
    pub skip: u64,
    /// Attempts before the last ones.
    pub retries: u64,
    /// Values that were measured.
    pub metrics: u64,
}
