//! Pipelines and their jobs.

use kiro_schemas::{Event, Outcome, Subject, Transition, Value};
use serde::Deserialize;

use super::{PIPELINE_FILE, Project, User, after, before, username};
use crate::reading::{Text, When, list, note, note_all, set, set_end, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PipelineEvent<'a> {
    object_attributes: Pipeline<'a>,
    merge_request: Option<MergeRequest>,
    user: Option<User<'a>>,
    project: Project<'a>,
    source_pipeline: Option<Parent<'a>>,
    #[serde(default, deserialize_with = "list")]
    builds: Vec<Build>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Pipeline<'a> {
    id: i64,
    name: Option<Text<'a>>,
    #[serde(rename = "ref")]
    reference: Option<Text<'a>>,
    tag: Option<bool>,
    sha: Option<Text<'a>>,
    source: Option<Text<'a>>,
    status: Text<'a>,
    created_at: When,
    finished_at: Option<When>,
    queued_duration: Option<f64>,
    url: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct MergeRequest {
    iid: i64,
}

/// The pipeline that started this one.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Parent<'a> {
    pipeline_id: Option<i64>,
    project: Option<Project<'a>>,
}

#[derive(Deserialize)]
struct Build {
    started_at: Option<When>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct JobEvent<'a> {
    build_id: i64,
    build_name: Text<'a>,
    build_stage: Option<Text<'a>>,
    build_status: Text<'a>,
    build_created_at: Option<When>,
    build_started_at: Option<When>,
    build_finished_at: Option<When>,
    build_queued_duration: Option<f64>,
    build_allow_failure: Option<bool>,
    build_failure_reason: Option<Text<'a>>,
    retries_count: Option<i64>,
    pipeline_id: Option<i64>,
    #[serde(rename = "ref")]
    reference: Option<Text<'a>>,
    sha: Option<Text<'a>>,
    commit: Option<PipelineOfJob>,
    repository: Option<Homepage<'a>>,
    project: Option<Project<'a>>,
    runner: Option<Runner<'a>>,
    environment: Option<Environment<'a>>,
}

/// What is called the job's commit has the id of its pipeline.
#[derive(Deserialize)]
struct PipelineOfJob {
    id: Option<i64>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Homepage<'a> {
    homepage: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Runner<'a> {
    description: Option<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    tags: Vec<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Environment<'a> {
    name: Option<Text<'a>>,
    action: Option<Text<'a>>,
    deployment_tier: Option<Text<'a>>,
}

/// What started a pipeline, in the words that GitHub's become where there is one.
fn trigger(source: Text<'_>) -> Text<'_> {
    let word = match &*source.0 {
        "web" | "webide" | "chat" => "manual",
        "merge_request_event" | "external_pull_request_event" => "pull_request",
        _ => return source,
    };
    Text(word.into())
}

/// The step that a status tells of. `manual` waits for a person and `canceling` still runs: neither is an end.
fn step(status: &str) -> Transition {
    match status {
        "created" | "waiting_for_resource" | "preparing" | "pending" | "scheduled" | "waiting_for_callback" => Transition::Queued,
        "running" => Transition::Started,
        "success" | "failed" | "canceled" | "skipped" => Transition::Finished,
        _ => Transition::Updated,
    }
}

pub(in crate::gitlab) fn pipeline(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PipelineEvent { object_attributes: run, merge_request, user, project, source_pipeline, builds } = serde_json::from_slice(payload)?;
    let created = run.created_at.0;
    // A pipeline does not say when it started: its first job does, or how long it was queued.
    let first = builds.iter().filter_map(|build| Some(build.started_at?.0)).min();
    let started = first.or_else(|| after(Some(created), run.queued_duration));
    let transition = step(&run.status.0);
    let time = match transition {
        Transition::Started => started,
        Transition::Finished => run.finished_at.map(|time| time.0),
        _ => None,
    };
    let time = time.unwrap_or(created);
    let mut said = Event::new(Subject::PipelineRun, transition, project.web_url.0.clone(), run.id.to_string(), time);
    set_time(&mut said, "queued_at", Some(created));
    let has_run = run.status.0 != "skipped" && matches!(transition, Transition::Started | Transition::Finished);
    let started = started.filter(|_| has_run);
    set_time(&mut said, "started_at", started);
    if transition == Transition::Finished {
        set_end(&mut said, Outcome::of_provider(&run.status.0), started, Some(time));
    }
    if transition == Transition::Updated {
        tell_apart(&mut said, &run.status.0);
    }
    said.set_text("change_id", merge_request.map(|change| change.iid.to_string()));
    set(&mut said, "actor", username(user));
    if let Some(parent) = source_pipeline {
        note(&mut said, "parent_run_id", parent.pipeline_id.map(|id| id.to_string()));
        note(&mut said, "parent_source", parent.project.map(|project| project.web_url.0));
    }
    describe_pipeline(&mut said, run, project);
    Ok(vec![said])
}

fn describe_pipeline<'a>(said: &mut Event<'a>, run: Pipeline<'a>, project: Project<'a>) {
    let page = || Text(format!("{}/-/pipelines/{}", project.web_url.0, run.id).into());
    set(said, "url", Some(run.url.unwrap_or_else(page)));
    set(said, "pipeline", Some(project.pipeline()));
    set(said, "status", Some(run.status));
    set(said, "branch", run.reference);
    set(said, "commit_sha", run.sha);
    set(said, "trigger", run.source.map(trigger));
    note(said, "title", run.name.map(|name| name.0));
    note(said, "ref_type", run.tag.filter(|is| *is).map(|_| "tag"));
}

/// Why a job failed, where the reason is not the job's own doing.
///
/// # Source
/// GitLab's `CommitStatus.failure_reasons`.
fn outcome(status: &str, reason: Option<&str>) -> Option<Outcome> {
    let not_its_own = [
        "api_failure",
        "archived_failure",
        "data_integrity_failure",
        "job_execution_timeout",
        "no_matching_runner",
        "runner_system_failure",
        "runner_unsupported",
        "scheduler_failure",
        "stale_schedule",
        "stuck_or_timeout_failure",
    ];
    match (status, reason) {
        ("failed", Some(reason)) if not_its_own.contains(&reason) => Some(Outcome::Error),
        _ => Outcome::of_provider(status),
    }
}

pub(in crate::gitlab) fn job(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let job: JobEvent<'_> = serde_json::from_slice(payload)?;
    let homepage = job.repository.as_ref().and_then(|repository| repository.homepage.clone());
    let Some(source) = homepage.or_else(|| job.project.as_ref().map(|project| project.web_url.clone())) else { return Ok(Vec::new()) };
    let (created, started) = (job.build_created_at.map(|time| time.0), job.build_started_at.map(|time| time.0));
    let finished = job.build_finished_at.map(|time| time.0);
    let queued = before(started, job.build_queued_duration).or(created);
    let transition = match &*job.build_status.0 {
        "created" => Transition::Created,
        status => step(status),
    };
    let time = match transition {
        Transition::Started => started.or(created),
        Transition::Finished => finished.or(started).or(created),
        _ => created.or(queued),
    };
    // Old servers say of a waiting job at no place when that was.
    let Some(time) = time else { return Ok(Vec::new()) };
    let mut said = Event::new(Subject::TaskRun, transition, source.0.clone(), job.build_id.to_string(), time);
    said.attempt = job.retries_count.unwrap_or(0).clamp(0, 1_000_000) + 1;
    said.derive_id();
    if transition == Transition::Updated {
        tell_apart(&mut said, &job.build_status.0);
    }
    set_time(&mut said, "queued_at", queued);
    set_time(&mut said, "started_at", started);
    let reason = job.build_failure_reason.as_ref().map(|reason| &*reason.0);
    if transition == Transition::Finished {
        set_end(&mut said, outcome(&job.build_status.0, reason), started, Some(time));
    }
    describe_job(&mut said, job, &source);
    Ok(vec![said])
}

fn describe_job<'a>(said: &mut Event<'a>, job: JobEvent<'a>, source: &Text<'a>) {
    let run = job.pipeline_id.or(job.commit.and_then(|pipeline| pipeline.id));
    said.set_text("run_id", run.map(|id| id.to_string()));
    said.set("url", Value::text(format!("{}/-/jobs/{}", source.0, job.build_id)));
    set(said, "pipeline", Some(job.project.map_or(Text(PIPELINE_FILE.into()), Project::pipeline)));
    set(said, "task", Some(job.build_name));
    set(said, "branch", job.reference);
    set(said, "commit_sha", job.sha);
    note(said, "stage", job.build_stage.map(|stage| stage.0));
    // The reason of an earlier attempt may stand beside a job that has not ended.
    let is_failed = job.build_status.0 == "failed";
    note(said, "failure_reason", job.build_failure_reason.filter(|_| is_failed).map(|reason| reason.0));
    note(said, "allow_failure", job.build_allow_failure.filter(|is| *is).map(|_| "true"));
    set(said, "status", Some(job.build_status));
    if let Some(runner) = job.runner {
        note_all(said, "runner_labels", runner.tags.iter());
        set(said, "runner", runner.description);
    }
    if let Some(environment) = job.environment {
        note(said, "environment", environment.name.map(|name| name.0));
        note(said, "environment_action", environment.action.map(|action| action.0));
        note(said, "environment_tier", environment.deployment_tier.map(|tier| tier.0));
    }
}

#[cfg(test)]
mod tests {
    use kiro_schemas::{Outcome, Transition};

    use super::{outcome, step};

    #[test]
    fn every_status_has_its_step() {
        for (status, expected) in [
            ("created", Transition::Queued),
            ("waiting_for_resource", Transition::Queued),
            ("preparing", Transition::Queued),
            ("pending", Transition::Queued),
            ("scheduled", Transition::Queued),
            ("running", Transition::Started),
            ("success", Transition::Finished),
            ("failed", Transition::Finished),
            ("canceled", Transition::Finished),
            ("skipped", Transition::Finished),
            ("manual", Transition::Updated),
            ("canceling", Transition::Updated),
            ("a word of tomorrow", Transition::Updated),
        ] {
            assert_eq!(step(status), expected, "{status}");
        }
    }

    #[test]
    fn a_failure_that_is_not_the_jobs_own_is_an_error() {
        assert_eq!(outcome("failed", Some("script_failure")), Some(Outcome::Failure));
        assert_eq!(outcome("failed", None), Some(Outcome::Failure));
        assert_eq!(outcome("failed", Some("job_execution_timeout")), Some(Outcome::Error));
        assert_eq!(outcome("success", Some("runner_system_failure")), Some(Outcome::Success));
        assert_eq!(outcome("canceled", None), Some(Outcome::Cancel));
        assert_eq!(outcome("skipped", None), Some(Outcome::Skip));
        assert_eq!(outcome("manual", None), None);
    }
}
