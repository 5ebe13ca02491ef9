//! DevLake's deployments and issues.
//!
//! # Source
//! Apache DevLake, `plugins/webhook`. A deployment names a commit of each repository that it deploys; without a `result` it succeeded.
//! An issue without a type is an incident; of one with a type the rules decide. That an issue was closed is told with its status `DONE`:
//! a post to `…/issue/KEY/close` says neither when nor of which tracker it is.

use kiro_schemas::{Event, Outcome, Subject, Transition};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::reading::{Text, When, is_named, issue_type, list, note, origin, set, set_end, set_time};

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

/// One deployment of each repository: their commits are heads of different histories. They have one id, and differ in their source.
fn deployment(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let mut told: DeploymentBody<'_> = serde_json::from_slice(payload)?;
    let commits = std::mem::take(&mut told.deployment_commits);
    let mut events: Vec<Event<'_>> = Vec::new();
    for commit in commits.into_iter().map(Some).chain([None]) {
        let source = commit.as_ref().map_or(SOURCE, |commit| commit.repo_url.0.trim_end_matches('/').trim_end_matches(".git")).to_owned();
        let is_told = if commit.is_some() { events.iter().any(|said| said.source == source) } else { !events.is_empty() };
        if !is_told {
            events.push(deployed(&told, source, commit));
        }
    }
    Ok(events)
}

fn deployed<'a>(told: &DeploymentBody<'a>, source: String, commit: Option<Deployed<'a>>) -> Event<'a> {
    let (started, finished) = (told.started_date.0, told.finished_date.0);
    let result = told.result.clone().filter(is_named).unwrap_or(Text("SUCCESS".into()));
    let service = commit.as_ref().and_then(|_| source.rsplit_once('/')).map(|(_, name)| Text(name.to_owned().into()));
    let mut said = Event::new(Subject::Deployment, Transition::Finished, source, told.id.0.clone(), finished);
    set_time(&mut said, "queued_at", told.created_date.map(|time| time.0));
    set_time(&mut said, "started_at", Some(started));
    set_end(&mut said, Outcome::of_provider(&result.0), Some(started), Some(finished));
    set(&mut said, "service", service);
    let (commit_sha, branch) = commit.map_or((None, None), |commit| (Some(commit.commit_sha), commit.ref_name));
    set(&mut said, "commit_sha", commit_sha);
    set(&mut said, "branch", branch);
    // DevLake's own word for the tier is in capitals: `PRODUCTION`.
    let tier = told.environment.as_ref().map(|tier| tier.0.to_ascii_lowercase());
    set(&mut said, "environment", told.original_environment.clone().filter(is_named).or_else(|| told.environment.clone()));
    note(&mut said, "environment_tier", tier);
    set(&mut said, "status", Some(result));
    set(&mut said, "url", told.url.clone());
    note(&mut said, "title", told.display_title.clone().or_else(|| told.name.clone()).map(|title| title.0));
    said
}

fn issue(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let told: IssueBody<'_> = serde_json::from_slice(payload)?;
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
    if let Some(kind) = told.kind.filter(is_named) {
        issue_type(&mut said, Some(kind));
    }
    Ok(vec![said])
}
