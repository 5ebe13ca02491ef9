//! GitHub's payloads to events: runs, checks, changes, deployments, issues, versions.
//!
//! # Source
//! GitHub Docs, "Webhook events and payloads". A re-run is a new attempt of the same run. `status` is the `conclusion`, or the
//! `status` while there is none, unchanged.
//!
//! The parts of a payload that are read are borrowed from its bytes: the bound of each struct says so once for all its fields.

use serde::Deserialize;

use crate::reading::Text;

pub(crate) mod changes;
pub(super) mod checks;
pub(super) mod deployments;
pub(crate) mod issues;
pub(super) mod runs;
pub(crate) mod versions;

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct Repository<'a> {
    pub(crate) html_url: Text<'a>,
    name: Option<Text<'a>>,
    default_branch: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct User<'a> {
    login: Option<Text<'a>>,
}

/// A pull request by its number.
#[derive(Deserialize)]
struct Number {
    number: i64,
}

pub(crate) fn login(user: Option<User<'_>>) -> Option<Text<'_>> {
    user.and_then(|user| user.login)
}

/// The pull request that a branch of the merge queue tries: `gh-readonly-queue/main/pr-104-929f8209…`.
fn queued_pull(branch: &str) -> Option<&str> {
    let name = branch.strip_prefix("gh-readonly-queue/")?.rsplit_once("/pr-")?.1;
    let (number, _) = name.split_once('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number).filter(|number| !number.is_empty())
}

#[cfg(test)]
mod tests {
    use super::queued_pull;

    #[test]
    fn a_branch_of_the_merge_queue_names_its_pull_request() {
        assert_eq!(queued_pull("gh-readonly-queue/main/pr-104-929f82"), Some("104"));
        assert_eq!(queued_pull("gh-readonly-queue/release/2/pr-7-a"), Some("7"));
        for other in ["main", "gh-readonly-queue/main", "gh-readonly-queue/main/pr-", "gh-readonly-queue/main/pr--a", "x/pr-7-a"] {
            assert_eq!(queued_pull(other), None, "{other}");
        }
    }
}
