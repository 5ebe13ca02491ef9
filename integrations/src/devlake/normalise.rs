//! DevLake's deployments and issues.
//!
//! # Source
//! Apache DevLake, `plugins/webhook`. A deployment with several commits is one deployment; without a `result` it succeeded. An issue is
//! an incident when its type says so, or when it has none.

use kiro_schemas::{Event, Outcome, Subject, Transition};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::reading::{Text, When, list, note, note_all, origin, set, set_end, set_time};

/// The source of what names no address.
const SOURCE: &str = "urn:devlake";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    issue_key: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), rename_all = "camelCase")]
struct DeploymentBody<'a> {
    id: Text<'a>,
    display_title: Option<Text<'a>>,
    name: Option<Text<'a>>,
    result: Option<Text<'a>>,
    environment: Option<Text<'a>>,
    original_environment: Option<Text<'a>>,
    created_date: Option<When>,
    started_date: When,
    finished_date: When,
    url: Option<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    deployment_commits: Vec<Deployed<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), rename_all = "camelCase")]
struct Deployed<'a> {
    repo_url: Text<'a>,
    commit_sha: Text<'a>,
    ref_name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), rename_all = "camelCase")]
struct IssueBody<'a> {
    issue_key: Text<'a>,
    title: Option<Text<'a>>,
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    status: Option<Text<'a>>,
    original_status: Option<Text<'a>>,
    severity: Option<Text<'a>>,
    priority: Option<Text<'a>>,
    component: Option<Text<'a>>,
    url: Option<Text<'a>>,
    created_date: When,
    updated_date: Option<When>,
    resolution_date: Option<When>,
}

pub(super) fn body(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let Kind { issue_key } = serde_json::from_slice(payload)?;
    if issue_key.is_some() { issue(payload) } else { deployment(payload) }
}

fn deployment(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let told: DeploymentBody<'_> = serde_json::from_slice(payload)?;
    let (started, finished) = (told.started_date.0, told.finished_date.0);
    let result = told.result.filter(|result| !result.0.is_empty()).unwrap_or(Text("SUCCESS".into()));
    let first = told.deployment_commits.first();
    let source = first.map(|commit| commit.repo_url.0.trim_end_matches('/').trim_end_matches(".git").to_owned());
    let service = source.as_deref().and_then(|source| source.rsplit_once('/')).map(|(_, name)| name.to_owned());
    let mut said = Event::new(Subject::Deployment, Transition::Finished, source.unwrap_or_else(|| SOURCE.to_owned()), told.id.0, finished);
    set_time(&mut said, "queued_at", told.created_date.map(|time| time.0));
    set_time(&mut said, "started_at", Some(started));
    set_end(&mut said, Outcome::of_provider(&result.0), Some(started), Some(finished));
    set(&mut said, "service", service.map(|name| Text(name.into())));
    set(&mut said, "commit_sha", first.map(|commit| commit.commit_sha.clone()));
    set(&mut said, "branch", first.and_then(|commit| commit.ref_name.clone()));
    note_all(&mut said, "commits", told.deployment_commits.iter().skip(1).map(|commit| &commit.commit_sha));
    // DevLake's own word for the tier is in capitals: `PRODUCTION`.
    let tier = told.environment.as_ref().map(|tier| tier.0.to_ascii_lowercase());
    set(&mut said, "environment", told.original_environment.filter(|name| !name.0.is_empty()).or(told.environment));
    note(&mut said, "environment_tier", tier);
    set(&mut said, "status", Some(result));
    set(&mut said, "url", told.url);
    note(&mut said, "title", told.display_title.or(told.name).map(|title| title.0));
    Ok(vec![said])
}

fn issue(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let told: IssueBody<'_> = serde_json::from_slice(payload)?;
    if told.kind.as_ref().is_some_and(|kind| !kind.0.is_empty() && !kind.0.eq_ignore_ascii_case("incident")) {
        return Ok(Vec::new());
    }
    let (created, updated) = (told.created_date.0, told.updated_date.unwrap_or(told.created_date).0);
    let (transition, time) = match told.status.as_ref().map(|status| &*status.0) {
        Some("DONE") => (Transition::Resolved, told.resolution_date.map_or(updated, |time| time.0)),
        Some("IN_PROGRESS") => (Transition::Updated, updated),
        _ => (Transition::Reported, created),
    };
    let source = told.url.as_ref().map_or_else(|| SOURCE.to_owned(), |url| origin(&url.0));
    let mut said = Event::new(Subject::Incident, transition, source, told.issue_key.0, time);
    set_time(&mut said, "detected_at", Some(created));
    set_time(&mut said, "resolved_at", Some(time).filter(|_| transition == Transition::Resolved));
    set(&mut said, "title", told.title);
    set(&mut said, "status", told.original_status.filter(|status| !status.0.is_empty()).or(told.status));
    set(&mut said, "severity", told.severity.filter(|word| !word.0.is_empty()).or(told.priority));
    set(&mut said, "service", told.component);
    set(&mut said, "url", told.url);
    Ok(vec![said])
}
