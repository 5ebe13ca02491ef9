//! GitHub's webhooks to events.

use kiro_ports::{Headers, NormaliseError, Normaliser, header};
use kiro_schemas::{Event, Micros, Outcome, Subject, Transition, Value};
use serde::Deserialize;

use super::payload::{
    Commit, DeploymentEvent, DeploymentStatus, PullRequest, PullRequestEvent, PushEvent, Text, User, WorkflowJob, WorkflowJobEvent,
    WorkflowRun, WorkflowRunEvent,
};

/// Reads `workflow_run`, `workflow_job`, `deployment`, `deployment_status`, `pull_request` and `push`; any other event type gives
/// no events.
///
/// # Source
/// GitHub Docs, "Webhook events and payloads". A re-run is a new attempt of the same run. `status` is the `conclusion`, or the
/// `status` while there is none, unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub struct GithubNormaliser;

impl Normaliser for GithubNormaliser {
    fn format(&self) -> &'static str {
        "github"
    }

    fn normalise<'a>(&self, headers: &Headers, payload: &'a [u8]) -> Result<Vec<Event<'a>>, NormaliseError> {
        let Some(kind) = header(headers, "x-github-event") else {
            return Err(NormaliseError { reason: "there is no x-github-event header".to_owned() });
        };
        match kind {
            "workflow_run" => read(kind, payload).map(|event| workflow_run(event).into_iter().collect()),
            "workflow_job" => read(kind, payload).map(|event| workflow_job(event).into_iter().collect()),
            "deployment" | "deployment_status" => read(kind, payload).map(|event| vec![deployment(event)]),
            "pull_request" => read(kind, payload).map(|event| vec![pull_request(event)]),
            "push" => read(kind, payload).map(push),
            _ => Ok(Vec::new()),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(kind: &str, payload: &'a [u8]) -> Result<T, NormaliseError> {
    serde_json::from_slice(payload).map_err(|error| NormaliseError { reason: format!("cannot read {kind}: {error}") })
}

/// An empty text says nothing.
fn set<'a>(event: &mut Event<'a>, name: &str, text: Option<Text<'a>>) {
    event.set_text(name, text.map(|text| text.0).filter(|text| !text.is_empty()));
}

fn set_time(event: &mut Event<'_>, name: &str, time: Option<Micros>) {
    if let Some(time) = time {
        event.set(name, Value::Time(time));
    }
}

fn set_int(event: &mut Event<'_>, name: &str, value: Option<i64>) {
    if let Some(value) = value {
        event.set(name, Value::Int(value));
    }
}

fn login(user: Option<User<'_>>) -> Option<Text<'_>> {
    user.and_then(|user| user.login)
}

/// The end of a run: outcome by the one table; `action_required` and unknown words have none.
fn set_end(event: &mut Event<'_>, conclusion: Option<&str>, started: Option<Micros>, finished: Option<Micros>) {
    set_time(event, "finished_at", finished);
    if let Some(outcome) = conclusion.and_then(Outcome::of_provider) {
        event.set("outcome", Value::text(outcome.as_str()));
    }
    let micros = started.zip(finished).map(|(started, finished)| finished.0.saturating_sub(started.0));
    set_int(event, "duration_ms", micros.filter(|micros| *micros >= 0).map(|micros| micros / 1000));
}

/// What started a run, in our words where there is one.
fn trigger(event: Text<'_>) -> Text<'_> {
    match &*event.0 {
        "workflow_dispatch" => Text("manual".into()),
        "pull_request_target" => Text("pull_request".into()),
        _ => event,
    }
}

fn workflow_run(event: WorkflowRunEvent<'_>) -> Option<Event<'_>> {
    let WorkflowRunEvent { action, repository, workflow, workflow_run: run } = event;
    let attempt = run.run_attempt.unwrap_or(1).max(1);
    let started = run.run_started_at.unwrap_or(run.created_at);
    // The run was created once; a later attempt was asked for when it started.
    let queued = if attempt == 1 { run.created_at.min(started) } else { started };
    let (transition, time) = match &*action.0 {
        "requested" => (Transition::Queued, queued),
        "in_progress" => (Transition::Started, started),
        "completed" => (Transition::Finished, run.updated_at),
        _ => return None,
    };
    let mut said = Event::new(Subject::PipelineRun, transition, repository.html_url.0, run.id.to_string(), time);
    said.attempt = attempt;
    said.derive_id();
    set_time(&mut said, "queued_at", Some(queued));
    if transition != Transition::Queued {
        set_time(&mut said, "started_at", Some(started));
    }
    if transition == Transition::Finished {
        set_end(&mut said, run.conclusion.as_ref().map(|text| &*text.0), Some(started), Some(run.updated_at));
    }
    describe_run(&mut said, run, workflow.and_then(|workflow| workflow.name));
    Some(said)
}

fn describe_run<'a>(said: &mut Event<'a>, run: WorkflowRun<'a>, workflow: Option<Text<'a>>) {
    let named = |text: &Text<'_>| !text.0.is_empty();
    set(said, "pipeline", workflow.filter(named).or(run.name.filter(named)).or(run.path));
    set(said, "status", run.conclusion.or(run.status));
    set(said, "branch", run.head_branch);
    set(said, "commit_sha", run.head_sha);
    set(said, "actor", login(run.triggering_actor).or(login(run.actor)));
    set(said, "trigger", run.event.map(trigger));
    set(said, "url", run.html_url);
    if let Some(change) = run.pull_requests.first() {
        said.set("change_id", Value::text(change.number.to_string()));
    }
}

fn workflow_job(event: WorkflowJobEvent<'_>) -> Option<Event<'_>> {
    let WorkflowJobEvent { action, repository, workflow_job: job } = event;
    let (transition, time) = match &*action.0 {
        "queued" => (Transition::Queued, job.created_at.or(job.started_at)?),
        "waiting" => (Transition::Created, job.created_at.or(job.started_at)?),
        "in_progress" => (Transition::Started, job.started_at.or(job.created_at)?),
        "completed" => (Transition::Finished, job.completed_at.or(job.started_at).or(job.created_at)?),
        _ => return None,
    };
    let mut said = Event::new(Subject::TaskRun, transition, repository.html_url.0, job.id.to_string(), time);
    said.attempt = job.run_attempt.unwrap_or(1).max(1);
    said.derive_id();
    set_time(&mut said, "queued_at", job.created_at);
    let has_run = job.conclusion.as_ref().is_none_or(|conclusion| conclusion.0 != "skipped");
    // Before it starts, GitHub repeats the time of creation as the time of start.
    let started = job.started_at.filter(|_| has_run && matches!(transition, Transition::Started | Transition::Finished));
    set_time(&mut said, "started_at", started);
    if transition == Transition::Finished {
        set_end(&mut said, job.conclusion.as_ref().map(|text| &*text.0), started, Some(time));
    }
    describe_job(&mut said, job);
    Some(said)
}

fn describe_job<'a>(said: &mut Event<'a>, job: WorkflowJob<'a>) {
    said.set("run_id", Value::text(job.run_id.to_string()));
    set(said, "pipeline", job.workflow_name);
    set(said, "task", Some(job.name));
    set(said, "status", job.conclusion.or(job.status));
    set(said, "runner", job.runner_name);
    set(said, "branch", job.head_branch);
    set(said, "commit_sha", job.head_sha);
    set(said, "url", job.html_url);
}

fn deployment(event: DeploymentEvent<'_>) -> Event<'_> {
    let DeploymentEvent { repository, deployment, deployment_status } = event;
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
    match deployment_status {
        None => set(&mut said, "environment", deployment.environment),
        Some(status) => {
            match transition {
                Transition::Started => set_time(&mut said, "started_at", Some(time)),
                Transition::Finished => set_end(&mut said, Some(&status.state.0), None, Some(time)),
                _ => {}
            }
            set(&mut said, "environment", status.environment.or(deployment.environment));
            set(&mut said, "url", status.target_url);
            set(&mut said, "status", Some(status.state));
        }
    }
    said
}

fn pull_request(event: PullRequestEvent<'_>) -> Event<'_> {
    let PullRequestEvent { action, repository, pull_request: pull } = event;
    let is_merged = pull.merged.unwrap_or(false) || pull.merged_at.is_some();
    let (transition, time) = match &*action.0 {
        "opened" => (Transition::Created, pull.created_at),
        "closed" if is_merged => (Transition::Merged, pull.merged_at.unwrap_or(pull.updated_at)),
        "closed" => (Transition::Abandoned, pull.closed_at.unwrap_or(pull.updated_at)),
        _ => (Transition::Updated, pull.updated_at),
    };
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    describe_pull(&mut said, pull, is_merged);
    said
}

fn describe_pull<'a>(said: &mut Event<'a>, pull: PullRequest<'a>, is_merged: bool) {
    set_time(said, "created_at", Some(pull.created_at));
    set_time(said, "merged_at", pull.merged_at);
    if is_merged {
        // Before the merge this is a commit that only tries it.
        set(said, "merge_commit_sha", pull.merge_commit_sha);
    } else {
        set_time(said, "closed_at", pull.closed_at);
    }
    set(said, "title", pull.title);
    set(said, "status", pull.state);
    set(said, "branch", pull.head.reference);
    set(said, "commit_sha", pull.head.sha);
    set(said, "base_branch", pull.base.reference);
    set(said, "author", login(pull.user));
    set(said, "url", pull.html_url);
    set_int(said, "lines_added", pull.additions);
    set_int(said, "lines_deleted", pull.deletions);
    set_int(said, "files_changed", pull.changed_files);
    set_int(said, "commits", pull.commits);
}

/// Each commit that a branch did not have before; tags and deletions say nothing of changes.
fn push(event: PushEvent<'_>) -> Vec<Event<'_>> {
    let PushEvent { reference, repository, commits } = event;
    let Some(branch) = reference.0.strip_prefix("refs/heads/") else { return Vec::new() };
    let commits = commits.into_iter().filter(|commit| commit.distinct);
    commits.map(|commit| pushed(commit, repository.html_url.clone(), branch)).collect()
}

fn pushed<'a>(commit: Commit<'a>, source: Text<'a>, branch: &str) -> Event<'a> {
    let mut said = Event::new(Subject::Change, Transition::Created, source.0, commit.id.0.clone(), commit.timestamp);
    set_time(&mut said, "created_at", Some(commit.timestamp));
    let title = commit.message.map(|message| Text(message.0.lines().next().unwrap_or_default().to_owned().into()));
    set(&mut said, "title", title);
    set(&mut said, "commit_sha", Some(commit.id));
    set(&mut said, "author", commit.author.and_then(|author| author.username.or(author.name)));
    set(&mut said, "url", commit.url);
    said.set("branch", Value::text(branch.to_owned()));
    said
}
