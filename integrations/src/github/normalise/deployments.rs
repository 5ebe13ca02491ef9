//! Deployments and how they go.

use kiro_schemas::{Event, Micros, Outcome, Subject, Transition};
use serde::Deserialize;

use super::{Repository, User, login};
use crate::reading::{Text, note, set, set_end, set_time};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct DeploymentEvent<'a> {
    repository: Repository<'a>,
    deployment: Deployment<'a>,
    deployment_status: Option<DeploymentStatus<'a>>,
    workflow_run: Option<RunOfDeployment>,
}

#[derive(Deserialize)]
struct RunOfDeployment {
    id: Option<i64>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Deployment<'a> {
    id: i64,
    sha: Option<Text<'a>>,
    #[serde(rename = "ref")]
    reference: Option<Text<'a>>,
    task: Option<Text<'a>>,
    environment: Option<Text<'a>>,
    production_environment: Option<bool>,
    creator: Option<User<'a>>,
    created_at: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct DeploymentStatus<'a> {
    state: Text<'a>,
    environment: Option<Text<'a>>,
    target_url: Option<Text<'a>>,
    created_at: Micros,
}

/// Both `deployment` and `deployment_status`. A deployment that a later one replaced (`inactive`) is only changed.
pub(in crate::github) fn deployment(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let DeploymentEvent { repository, deployment, deployment_status, workflow_run } = serde_json::from_slice(payload)?;
    let (transition, time) = match &deployment_status {
        None => (Transition::Created, deployment.created_at),
        Some(DeploymentStatus { state, created_at, .. }) => match &*state.0 {
            "queued" | "pending" | "waiting" => (Transition::Queued, *created_at),
            "in_progress" => (Transition::Started, *created_at),
            "success" | "failure" | "error" => (Transition::Finished, *created_at),
            _ => (Transition::Updated, *created_at),
        },
    };
    let mut said = Event::new(Subject::Deployment, transition, repository.html_url.0, deployment.id.to_string(), time);
    set_time(&mut said, "queued_at", Some(deployment.created_at));
    set(&mut said, "service", repository.name);
    set(&mut said, "commit_sha", deployment.sha);
    set(&mut said, "branch", deployment.reference);
    set(&mut said, "actor", login(deployment.creator));
    note(&mut said, "task", deployment.task.map(|task| task.0));
    note(&mut said, "environment_tier", deployment.production_environment.filter(|is| *is).map(|_| "production"));
    note(&mut said, "run_id", workflow_run.and_then(|run| run.id).map(|id| id.to_string()));
    match deployment_status {
        None => set(&mut said, "environment", deployment.environment),
        Some(status) => {
            match transition {
                Transition::Started => set_time(&mut said, "started_at", Some(time)),
                Transition::Finished => set_end(&mut said, Outcome::of_provider(&status.state.0), None, Some(time)),
                _ => {}
            }
            set(&mut said, "environment", status.environment.or(deployment.environment));
            set(&mut said, "url", status.target_url);
            set(&mut said, "status", Some(status.state));
        }
    }
    Ok(vec![said])
}
