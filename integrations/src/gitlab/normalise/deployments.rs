//! Deployments.

use kiro_schemas::{Event, Outcome, Subject, Transition};
use serde::Deserialize;

use super::{Project, User, username};
use crate::reading::{Text, When, note, set, set_end, set_time};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct DeploymentEvent<'a> {
    status: Text<'a>,
    status_changed_at: When,
    deployment_id: i64,
    deployable_id: Option<i64>,
    deployable_url: Option<Text<'a>>,
    environment: Option<Text<'a>>,
    environment_tier: Option<Text<'a>>,
    project: Project<'a>,
    short_sha: Option<Text<'a>>,
    commit_url: Option<Text<'a>>,
    commit_title: Option<Text<'a>>,
    #[serde(rename = "ref")]
    reference: Option<Text<'a>>,
    user: Option<User<'a>>,
}

/// The payload abbreviates the commit; its address has it whole.
fn commit<'a>(url: Option<&Text<'a>>, short: Option<Text<'a>>) -> Option<Text<'a>> {
    let whole = url.and_then(|url| url.0.rsplit_once("/commit/")).map(|(_, sha)| sha);
    let is_sha = |sha: &&str| sha.len() >= 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.filter(is_sha).map(|sha| Text(sha.to_owned().into())).or(short)
}

pub(in crate::gitlab) fn deployment(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let told: DeploymentEvent<'_> = serde_json::from_slice(payload)?;
    let time = told.status_changed_at.0;
    let transition = match &*told.status.0 {
        "created" => Transition::Created,
        // It waits for somebody's approval.
        "blocked" => Transition::Queued,
        "running" => Transition::Started,
        "success" | "failed" | "canceled" | "skipped" => Transition::Finished,
        _ => Transition::Updated,
    };
    let mut said = Event::new(Subject::Deployment, transition, told.project.web_url.0, told.deployment_id.to_string(), time);
    match transition {
        Transition::Created => set_time(&mut said, "queued_at", Some(time)),
        Transition::Started => set_time(&mut said, "started_at", Some(time)),
        Transition::Finished => set_end(&mut said, Outcome::of_provider(&told.status.0), None, Some(time)),
        _ => {}
    }
    set(&mut said, "service", told.project.name);
    set(&mut said, "environment", told.environment);
    set(&mut said, "commit_sha", commit(told.commit_url.as_ref(), told.short_sha));
    set(&mut said, "branch", told.reference);
    set(&mut said, "actor", username(told.user));
    set(&mut said, "status", Some(told.status));
    set(&mut said, "url", told.deployable_url);
    note(&mut said, "environment_tier", told.environment_tier.map(|tier| tier.0));
    note(&mut said, "task_run_id", told.deployable_id.map(|id| id.to_string()));
    note(&mut said, "title", told.commit_title.map(|title| title.0));
    Ok(vec![said])
}
