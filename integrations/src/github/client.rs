//! How GitHub's API is asked.
//!
//! # Source
//! GitHub REST, version 2022-11-28. `X-OAuth-Scopes` tells the scopes of classic tokens; fine-grained tokens and those of apps
//! have permissions for each repository instead, which nothing tells beforehand.

use kiro_schemas::Secret;
use serde_json::Value;

use crate::backfill::{Reach, Reply, text};

/// The headers of every request.
pub(super) fn headers(token: &Secret) -> Vec<(&'static str, String)> {
    vec![
        ("authorization", format!("Bearer {}", token.expose())),
        ("accept", "application/vnd.github+json".to_owned()),
        ("x-github-api-version", "2022-11-28".to_owned()),
    ]
}

/// A part of a path that is nothing else.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text != ".." && text != "." && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `owner/name`.
pub(super) fn is_repository(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 2 && parts.into_iter().all(is_plain)
}

/// Who answers `GET /user`. A classic token needs `repo` for what is private; for public repositories it needs nothing.
pub(super) fn reach(replies: &[Reply]) -> serde_json::Result<Reach> {
    let user = replies.first().map(|reply| serde_json::from_slice::<Value>(&reply.body)).transpose()?.unwrap_or_default();
    let told = replies.iter().find_map(|reply| reply.header("x-oauth-scopes"));
    let scopes: Vec<String> =
        told.unwrap_or_default().split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    let has = |scope: &str| scopes.iter().any(|has| has == scope);
    let missing = if told.is_some() && !has("repo") { vec!["repo"] } else { Vec::new() };
    Ok(Reach { account: text(&user, "login").to_owned(), scopes, missing, remaining: None })
}
