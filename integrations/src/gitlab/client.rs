//! How GitLab's API is asked.
//!
//! # Source
//! GitLab REST v4: `PRIVATE-TOKEN`; `GET /personal_access_tokens/self` tells the scopes of personal, group and project tokens.

use kiro_schemas::Secret;
use serde_json::Value;

use crate::backfill::{Reach, Reply, text};

/// The headers of every request.
pub(super) fn headers(token: &Secret) -> Vec<(&'static str, String)> {
    vec![("private-token", token.expose().to_owned()), ("accept", "application/json".to_owned())]
}

/// `group/project`, with any number of groups.
pub(super) fn is_project(text: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty() && part != ".." && part != "." && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    text.contains('/') && text.split('/').all(is_plain)
}

/// Answers of the token itself and of its user. It must read the API.
pub(super) fn reach(replies: &[Reply]) -> serde_json::Result<Reach> {
    let bodies: Vec<Value> = replies.iter().map(|reply| serde_json::from_slice(&reply.body)).collect::<serde_json::Result<_>>()?;
    let listed = bodies.iter().find_map(|body| body.get("scopes")?.as_array());
    let scopes: Vec<String> = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let account = bodies.iter().map(|body| text(body, "username")).find(|name| !name.is_empty()).unwrap_or_default().to_owned();
    let reads = scopes.iter().any(|scope| scope == "api" || scope == "read_api");
    Ok(Reach { account, scopes, missing: if reads { Vec::new() } else { vec!["read_api"] }, remaining: None })
}
