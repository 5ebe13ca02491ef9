//! Reports that tools leave behind: what they are about, and what was found in them.

use serde::{Deserialize, Serialize};

use crate::Micros;

/// Longest text of a scope.
const MOST_BYTES: usize = 1024;

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

impl ReportScope {
    /// Whether it can be stored.
    ///
    /// # Errors
    /// What is missing or out of range.
    pub fn check(&self) -> Result<(), String> {
        let optional = [&self.commit_sha, &self.branch, &self.service, &self.environment].map(|text| text.as_deref().unwrap_or("-"));
        let texts = [("source", &*self.source), ("run_id", &self.run_id)];
        let names = texts.into_iter().chain(["commit_sha", "branch", "service", "environment"].into_iter().zip(optional));
        for (name, text) in names {
            if text.is_empty() {
                return Err(format!("{name} must not be empty"));
            }
            if text.len() > MOST_BYTES {
                return Err(format!("{name} has {} bytes, more than {MOST_BYTES}", text.len()));
            }
        }
        if self.name.len() > MOST_BYTES {
            return Err(format!("name has {} bytes, more than {MOST_BYTES}", self.name.len()));
        }
        if self.attempt < 1 {
            return Err("attempt must be at least 1".to_owned());
        }
        if self.time.is_some_and(|time| !time.is_storable()) {
            return Err("time must lie between 1970 and 9999".to_owned());
        }
        Ok(())
    }
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
    /// Times and durations that could not be read: those tests are there without them.
    #[serde(default)]
    pub unread_times: u64,
}

#[cfg(test)]
mod tests {
    use super::ReportScope;
    use crate::Micros;

    #[test]
    fn a_scope_names_source_and_run() {
        let good = ReportScope { source: "https://ci/a".to_owned(), run_id: "7".to_owned(), attempt: 1, ..ReportScope::default() };
        assert_eq!(good.check(), Ok(()));
        for (scope, problem) in [
            (ReportScope { source: String::new(), ..good.clone() }, "source must not be empty"),
            (ReportScope { run_id: String::new(), ..good.clone() }, "run_id must not be empty"),
            (ReportScope { branch: Some(String::new()), ..good.clone() }, "branch must not be empty"),
            (ReportScope { service: Some("s".repeat(1025)), ..good.clone() }, "service has 1025 bytes, more than 1024"),
            (ReportScope { name: "n".repeat(1025), ..good.clone() }, "name has 1025 bytes, more than 1024"),
            (ReportScope { attempt: 0, ..good.clone() }, "attempt must be at least 1"),
            (ReportScope { time: Some(Micros(-1)), ..good.clone() }, "time must lie between 1970 and 9999"),
        ] {
            assert_eq!(scope.check(), Err(problem.to_owned()));
        }
    }
}
