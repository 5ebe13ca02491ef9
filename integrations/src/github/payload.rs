//! The parts of GitHub's payloads that are read, borrowed from their bytes.

use std::borrow::Cow;

use kiro_schemas::Micros;
use serde::Deserialize;

/// A text that is borrowed unless it has escapes.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Deserialize)]
pub(super) struct Repository<'a> {
    #[serde(borrow)]
    pub(super) html_url: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct User<'a> {
    #[serde(borrow)]
    pub(super) login: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Number {
    pub(super) number: i64,
}

#[derive(Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WorkflowRunEvent<'a> {
    #[serde(borrow)]
    pub(super) action: Text<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
    #[serde(borrow)]
    pub(super) workflow: Option<Named<'a>>,
    #[serde(borrow)]
    pub(super) workflow_run: WorkflowRun<'a>,
}

#[derive(Deserialize)]
pub(super) struct WorkflowRun<'a> {
    pub(super) id: i64,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) path: Option<Text<'a>>,
    pub(super) run_attempt: Option<i64>,
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) conclusion: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) event: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) head_branch: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) head_sha: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) html_url: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) actor: Option<User<'a>>,
    #[serde(borrow)]
    pub(super) triggering_actor: Option<User<'a>>,
    #[serde(default)]
    pub(super) pull_requests: Vec<Number>,
    pub(super) created_at: Micros,
    pub(super) run_started_at: Option<Micros>,
    pub(super) updated_at: Micros,
}

#[derive(Deserialize)]
pub(super) struct WorkflowJobEvent<'a> {
    #[serde(borrow)]
    pub(super) action: Text<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
    #[serde(borrow)]
    pub(super) workflow_job: WorkflowJob<'a>,
}

#[derive(Deserialize)]
pub(super) struct WorkflowJob<'a> {
    pub(super) id: i64,
    pub(super) run_id: i64,
    pub(super) run_attempt: Option<i64>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) workflow_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) conclusion: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) head_branch: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) head_sha: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) html_url: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) runner_name: Option<Text<'a>>,
    pub(super) created_at: Option<Micros>,
    pub(super) started_at: Option<Micros>,
    pub(super) completed_at: Option<Micros>,
}

#[derive(Deserialize)]
pub(super) struct DeploymentEvent<'a> {
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
    #[serde(borrow)]
    pub(super) deployment: Deployment<'a>,
    #[serde(borrow)]
    pub(super) deployment_status: Option<DeploymentStatus<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Deployment<'a> {
    pub(super) id: i64,
    #[serde(borrow)]
    pub(super) sha: Option<Text<'a>>,
    #[serde(borrow, rename = "ref")]
    pub(super) reference: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) environment: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) creator: Option<User<'a>>,
    pub(super) created_at: Micros,
}

#[derive(Deserialize)]
pub(super) struct DeploymentStatus<'a> {
    #[serde(borrow)]
    pub(super) state: Text<'a>,
    #[serde(borrow)]
    pub(super) environment: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) target_url: Option<Text<'a>>,
    pub(super) created_at: Micros,
}

#[derive(Deserialize)]
pub(super) struct PullRequestEvent<'a> {
    #[serde(borrow)]
    pub(super) action: Text<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
    #[serde(borrow)]
    pub(super) pull_request: PullRequest<'a>,
}

#[derive(Deserialize)]
pub(super) struct Branch<'a> {
    #[serde(borrow, rename = "ref")]
    pub(super) reference: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) sha: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct PullRequest<'a> {
    pub(super) number: i64,
    #[serde(borrow)]
    pub(super) title: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) state: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) html_url: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) user: Option<User<'a>>,
    #[serde(borrow)]
    pub(super) head: Branch<'a>,
    #[serde(borrow)]
    pub(super) base: Branch<'a>,
    #[serde(borrow)]
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
pub(super) struct PushEvent<'a> {
    #[serde(borrow, rename = "ref")]
    pub(super) reference: Text<'a>,
    #[serde(borrow)]
    pub(super) repository: Repository<'a>,
    #[serde(borrow, default)]
    pub(super) commits: Vec<Commit<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Commit<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(default)]
    pub(super) distinct: bool,
    #[serde(borrow)]
    pub(super) message: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) url: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) author: Option<Author<'a>>,
    pub(super) timestamp: Micros,
}

#[derive(Deserialize)]
pub(super) struct Author<'a> {
    #[serde(borrow)]
    pub(super) username: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}
