//! Starts a workflow.
//!
//! # Source
//! GitHub REST, `POST /repos/{owner}/{repo}/actions/workflows/{id}/dispatches`, version 2022-11-28.

use std::collections::BTreeMap;

use kiro_schemas::Secret;
use serde::Serialize;

use super::client::{headers, is_plain, is_repository};
use crate::outbound::{Answer, Client, Post};
use crate::{Error, Result};

/// A workflow to start.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// `https://api.github.com`, or that of an own server.
    pub api: String,
    /// `owner/name`.
    pub repository: String,
    /// Its file name or number.
    pub workflow: String,
    /// The branch or tag.
    pub reference: String,
    /// Its inputs, beside `idempotency_key`.
    pub inputs: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    inputs: BTreeMap<&'a str, &'a str>,
}

/// Asks for a run. GitHub starts a run for each call: the workflow declares the input `idempotency_key` and uses it as its
/// concurrency group or run name, so that a second call with the same key is recognised.
///
/// # Errors
/// As [`Client::post`]; [`Error::Address`] when a part of the path is not a plain name.
pub async fn dispatch(client: &Client, token: &Secret, asked: &Dispatch, idempotency_key: &str) -> Result<Answer> {
    if !is_repository(&asked.repository) || !is_plain(&asked.workflow) {
        return Err(Error::Address { reason: "a repository is `owner/name` and a workflow a file name or number" });
    }
    let mut inputs: BTreeMap<&str, &str> = asked.inputs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    inputs.insert("idempotency_key", idempotency_key);
    let body = serde_json::to_vec(&Body { reference: &asked.reference, inputs }).map_err(|source| Error::Encode { source })?;
    let api = asked.api.trim_end_matches('/');
    let url = format!("{api}/repos/{}/actions/workflows/{}/dispatches", asked.repository, asked.workflow);
    client.post(Post { url, headers: headers(token), body }).await
}
