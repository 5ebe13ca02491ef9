//! A platform that is listened to or asked.

use std::path::PathBuf;

use kiro_schemas::Problem;
use serde::Deserialize;

use super::readable;

/// A week: what is looked for more seldom is not looked for.
const MOST_MINUTES: u32 = 10_080;

/// What is configured of a platform.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// Proves its webhooks; none are taken without it.
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// The secret before, while senders change over.
    #[serde(default)]
    pub(crate) previous_secret_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) tenant: Option<String>,
    /// Opens its API, of which the past is read.
    #[serde(default)]
    pub(crate) token_file: Option<PathBuf>,
    /// Where its API is, if it is a server of one's own.
    #[serde(default)]
    pub(crate) api_url: Option<String>,
    /// How often it is looked for what webhooks missed.
    #[serde(default)]
    pub(crate) reconcile_minutes: Option<u32>,
}

impl Source {
    /// Tells what is wrong with it.
    pub(super) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        for (name, file) in [("secret_file", &self.secret_file), ("token_file", &self.token_file)] {
            if let Some(file) = file {
                readable(&format!("{path}.{name}"), file, problems);
            }
        }
        if self.secret_file.is_none() && self.token_file.is_none() {
            problems.push(Problem::at(path, "needs secret_file (of its webhooks), token_file (of its API), or both"));
        }
        let needs_token = [("api_url", self.api_url.is_some()), ("reconcile_minutes", self.reconcile_minutes.is_some())];
        for (name, _) in needs_token.into_iter().filter(|(_, is_given)| *is_given && self.token_file.is_none()) {
            problems.push(Problem::at(format!("{path}.{name}"), "needs token_file"));
        }
        if let Some(url) = self.api_url.as_ref().filter(|url| url::Url::parse(url).is_err()) {
            problems.push(Problem::at(format!("{path}.api_url"), format!("{url:?} is no URL")));
        }
        if let Some(minutes) = self.reconcile_minutes.filter(|minutes| !(1..=MOST_MINUTES).contains(minutes)) {
            problems.push(Problem::at(format!("{path}.reconcile_minutes"), format!("must be 1 to {MOST_MINUTES}, is {minutes}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::problems;

    #[test]
    fn a_source_proves_webhooks_or_opens_an_api_or_both() {
        assert_eq!(
            problems("sources: {github: {}}"),
            ["sources.github: needs secret_file (of its webhooks), token_file (of its API), or both"]
        );
        let found = problems("sources: {gitlab: {secret_file: Cargo.toml, api_url: here, reconcile_minutes: 0}}");
        let paths: Vec<&str> = found.iter().filter_map(|p| p.split(": ").next()).collect();
        let (api, minutes) = ("sources.gitlab.api_url", "sources.gitlab.reconcile_minutes");
        assert_eq!(paths, [api, minutes, api, minutes], "{found:?}");
        assert!(problems("sources: {gitlab: {token_file: Cargo.toml, api_url: \"https://git.example/api/v4\"}}").is_empty());
    }
}
