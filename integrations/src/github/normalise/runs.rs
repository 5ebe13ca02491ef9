//! Workflow runs and their jobs.

use kiro_schemas::{Event, Micros, Outcome, Subject, Transition, Value};
use serde::Deserialize;

use super::{Number, Repository, User, login, queued_pull};
use crate::reading::{Named, Text, list, note, note_all, set, set_end, set_time};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct RunEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    workflow: Option<Named<'a>>,
    workflow_run: WorkflowRun<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct WorkflowRun<'a> {
    id: i64,
    name: Option<Text<'a>>,
    path: Option<Text<'a>>,
    display_title: Option<Text<'a>>,
    run_attempt: Option<i64>,
    status: Option<Text<'a>>,
    conclusion: Option<Text<'a>>,
    event: Option<Text<'a>>,
    head_branch: Option<Text<'a>>,
    head_sha: Option<Text<'a>>,
    head_repository: Option<HeadRepository<'a>>,
    html_url: Option<Text<'a>>,
    actor: Option<User<'a>>,
    triggering_actor: Option<User<'a>>,
    #[serde(default, deserialize_with = "list")]
    pull_requests: Vec<Number>,
    referenced_workflows: Option<Vec<Referenced<'a>>>,
    created_at: Micros,
    run_started_at: Option<Micros>,
    updated_at: Micros,
}

/// Where the commit comes from; of a fork that was deleted nothing is said.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct HeadRepository<'a> {
    html_url: Option<Text<'a>>,
}

/// A reusable workflow that the run calls.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Referenced<'a> {
    path: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct JobEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    workflow_job: Job<'a>,
    deployment: Option<JobDeployment<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct JobDeployment<'a> {
    id: Option<i64>,
    environment: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Job<'a> {
    id: i64,
    run_id: i64,
    run_attempt: Option<i64>,
    name: Text<'a>,
    workflow_name: Option<Text<'a>>,
    status: Option<Text<'a>>,
    conclusion: Option<Text<'a>>,
    head_branch: Option<Text<'a>>,
    head_sha: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    runner_name: Option<Text<'a>>,
    runner_group_name: Option<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    labels: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    steps: Vec<Step<'a>>,
    created_at: Option<Micros>,
    started_at: Option<Micros>,
    completed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Step<'a> {
    name: Option<Text<'a>>,
    conclusion: Option<Text<'a>>,
}

/// What started a run, in our words where there is one.
fn trigger(event: Text<'_>) -> Text<'_> {
    match &*event.0 {
        "workflow_dispatch" => Text("manual".into()),
        "pull_request_target" => Text("pull_request".into()),
        _ => event,
    }
}

pub(in crate::github) fn workflow_run(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let RunEvent { action, repository, workflow, workflow_run: run } = serde_json::from_slice(payload)?;
    let attempt = run.run_attempt.unwrap_or(1).max(1);
    let started = run.run_started_at.unwrap_or(run.created_at);
    // The run was created once; a later attempt was asked for when it started.
    let queued = if attempt == 1 { run.created_at.min(started) } else { started };
    let (transition, time) = match &*action.0 {
        "requested" => (Transition::Queued, queued),
        "in_progress" => (Transition::Started, started),
        "completed" => (Transition::Finished, run.updated_at),
        _ => return Ok(Vec::new()),
    };
    let mut said = Event::new(Subject::PipelineRun, transition, repository.html_url.0, run.id.to_string(), time);
    said.attempt = attempt;
    said.derive_id();
    set_time(&mut said, "queued_at", Some(queued));
    if transition != Transition::Queued {
        set_time(&mut said, "started_at", Some(started));
    }
    if transition == Transition::Finished {
        // `action_required` and words of tomorrow have no outcome.
        let outcome = run.conclusion.as_ref().and_then(|word| Outcome::of_provider(&word.0));
        set_end(&mut said, outcome, Some(started), Some(run.updated_at));
    }
    let head = run.head_repository.as_ref().and_then(|repository| repository.html_url.as_ref());
    let fork = head.filter(|head| head.0 != said.source).map(|head| head.0.clone());
    note(&mut said, "head_source", fork);
    describe_run(&mut said, run, workflow.and_then(|workflow| workflow.name));
    Ok(vec![said])
}

fn describe_run<'a>(said: &mut Event<'a>, run: WorkflowRun<'a>, workflow: Option<Text<'a>>) {
    let named = |text: &Text<'_>| !text.0.is_empty();
    let change = run.pull_requests.first().map(|change| change.number.to_string());
    let queued = || run.head_branch.as_ref().and_then(|branch| queued_pull(&branch.0)).map(str::to_owned);
    said.set_text("change_id", change.or_else(queued));
    set(said, "pipeline", workflow.filter(named).or(run.name.filter(named)).or(run.path));
    set(said, "status", run.conclusion.or(run.status));
    set(said, "branch", run.head_branch);
    set(said, "commit_sha", run.head_sha);
    set(said, "actor", login(run.triggering_actor).or(login(run.actor)));
    set(said, "trigger", run.event.map(trigger));
    set(said, "url", run.html_url);
    note(said, "title", run.display_title.map(|title| title.0));
    note_all(said, "reusable_workflows", run.referenced_workflows.iter().flatten().map(|workflow| &workflow.path));
}

pub(in crate::github) fn workflow_job(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let JobEvent { action, repository, workflow_job: job, deployment } = serde_json::from_slice(payload)?;
    let step = match &*action.0 {
        "queued" => job.created_at.or(job.started_at).map(|time| (Transition::Queued, time)),
        "waiting" => job.created_at.or(job.started_at).map(|time| (Transition::Created, time)),
        "in_progress" => job.started_at.or(job.created_at).map(|time| (Transition::Started, time)),
        "completed" => job.completed_at.or(job.started_at).or(job.created_at).map(|time| (Transition::Finished, time)),
        _ => None,
    };
    let Some((transition, time)) = step else { return Ok(Vec::new()) };
    let mut said = Event::new(Subject::TaskRun, transition, repository.html_url.0, job.id.to_string(), time);
    said.attempt = job.run_attempt.unwrap_or(1).max(1);
    said.derive_id();
    set_time(&mut said, "queued_at", job.created_at);
    let has_run = job.conclusion.as_ref().is_none_or(|conclusion| conclusion.0 != "skipped");
    // Before it starts, GitHub repeats the time of creation as the time of start.
    let started = job.started_at.filter(|_| has_run && matches!(transition, Transition::Started | Transition::Finished));
    set_time(&mut said, "started_at", started);
    if transition == Transition::Finished {
        set_end(&mut said, job.conclusion.as_ref().and_then(|word| Outcome::of_provider(&word.0)), started, Some(time));
    }
    describe_job(&mut said, job);
    if let Some(deployment) = deployment {
        note(&mut said, "deployment_id", deployment.id.map(|id| id.to_string()));
        note(&mut said, "environment", deployment.environment.map(|name| name.0));
    }
    Ok(vec![said])
}

fn describe_job<'a>(said: &mut Event<'a>, job: Job<'a>) {
    said.set("run_id", Value::text(job.run_id.to_string()));
    set(said, "pipeline", job.workflow_name);
    set(said, "task", Some(job.name));
    set(said, "status", job.conclusion.or(job.status));
    set(said, "runner", job.runner_name);
    set(said, "branch", job.head_branch);
    set(said, "commit_sha", job.head_sha);
    set(said, "url", job.html_url);
    let failed = job.steps.into_iter().find(|step| step.conclusion.as_ref().is_some_and(|word| word.0 == "failure"));
    note(said, "failed_step", failed.and_then(|step| step.name).map(|name| name.0));
    note_all(said, "runner_labels", job.labels.iter());
    note(said, "runner_group", job.runner_group_name.map(|name| name.0));
}
