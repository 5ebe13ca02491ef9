//! The parts of GitHub's payloads that are read, borrowed from their bytes: the bound of each struct says so once for all
//! its fields.

use std::borrow::Cow;

use kiro_schemas::Micros;
use serde::Deserialize;

/// A text that is borrowed unless it has escapes.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Repository<'a> {
    pub(super) html_url: Text<'a>,
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct User<'a> {
    pub(super) login: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Number {
    pub(super) number: i64,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Named<'a> {
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct WorkflowRunEvent<'a> {
    pub(super) action: Text<'a>,
    pub(super) repository: Repository<'a>,
    pub(super) workflow: Option<Named<'a>>,
    pub(super) workflow_run: WorkflowRun<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct WorkflowRun<'a> {
    pub(super) id: i64,
    pub(super) name: Option<Text<'a>>,
    pub(super) path: Option<Text<'a>>,
    pub(super) run_attempt: Option<i64>,
    pub(super) status: Option<Text<'a>>,
    pub(super) conclusion: Option<Text<'a>>,
    pub(super) event: Option<Text<'a>>,
    pub(super) head_branch: Option<Text<'a>>,
    pub(super) head_sha: Option<Text<'a>>,
    pub(super) html_url: Option<Text<'a>>,
    pub(super) actor: Option<User<'a>>,
    pub(super) triggering_actor: Option<User<'a>>,
    #[serde(default)]
    pub(super) pull_requests: Vec<Number>,
    pub(super) created_at: Micros,
    pub(super) run_started_at: Option<Micros>,
    pub(super) updated_at: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct WorkflowJobEvent<'a> {
    pub(super) action: Text<'a>,
    pub(super) repository: Repository<'a>,
    pub(super) workflow_job: WorkflowJob<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct WorkflowJob<'a> {
    pub(super) id: i64,
    pub(super) run_id: i64,
    pub(super) run_attempt: Option<i64>,
    pub(super) name: Text<'a>,
    pub(super) workflow_name: Option<Text<'a>>,
    pub(super) status: Option<Text<'a>>,
    pub(super) conclusion: Option<Text<'a>>,
    pub(super) head_branch: Option<Text<'a>>,
    pub(super) head_sha: Option<Text<'a>>,
    pub(super) html_url: Option<Text<'a>>,
    pub(super) runner_name: Option<Text<'a>>,
    pub(super) created_at: Option<Micros>,
    pub(super) started_at: Option<Micros>,
    pub(super) completed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct DeploymentEvent<'a> {
    pub(super) repository: Repository<'a>,
    pub(super) deployment: Deployment<'a>,
    pub(super) deployment_status: Option<DeploymentStatus<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Deployment<'a> {
    pub(super) id: i64,
    pub(super) sha: Option<Text<'a>>,
    #[serde(rename = "ref")]
    pub(super) reference: Option<Text<'a>>,
    pub(super) environment: Option<Text<'a>>,
    pub(super) creator: Option<User<'a>>,
    pub(super) created_at: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct DeploymentStatus<'a> {
    pub(super) state: Text<'a>,
    pub(super) environment: Option<Text<'a>>,
    pub(super) target_url: Option<Text<'a>>,
    pub(super) created_at: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct PullRequestEvent<'a> {
    pub(super) action: Text<'a>,
    pub(super) repository: Repository<'a>,
    pub(super) pull_request: PullRequest<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Branch<'a> {
    #[serde(rename = "ref")]
    pub(super) reference: Option<Text<'a>>,
    pub(super) sha: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct PullRequest<'a> {
    pub(super) number: i64,
    pub(super) title: Option<Text<'a>>,
    pub(super) state: Option<Text<'a>>,
    pub(super) html_url: Option<Text<'a>>,
    pub(super) user: Option<User<'a>>,
    pub(super) head: Branch<'a>,
    pub(super) base: Branch<'a>,
    pub(super) merge_commit_sha: Option<Text<'a>>,
    pub(super) merged: Option<bool>,
    pub(super) additions: Option<i64>,
    pub(super) deletions: Option<i64>,
    pub(super) changed_files: Option<i64>,
    pub(super) commits: Option<i64>,
    pub(super) created_at: Micros,
    pub(super) updated_at: Micros,
    pub(super) merged_at: Option<Micros>,
    pub(super) closed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct PushEvent<'a> {
    #[serde(rename = "ref")]
    pub(super) reference: Text<'a>,
    pub(super) repository: Repository<'a>,
    #[serde(default)]
    pub(super) commits: Vec<Commit<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Commit<'a> {
    pub(super) id: Text<'a>,
    #[serde(default)]
    pub(super) distinct: bool,
    pub(super) message: Option<Text<'a>>,
    pub(super) url: Option<Text<'a>>,
    pub(super) author: Option<Author<'a>>,
    pub(super) timestamp: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Author<'a> {
    pub(super) username: Option<Text<'a>>,
    pub(super) name: Option<Text<'a>>,
}
