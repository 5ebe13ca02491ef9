//! What other systems than GitHub's own tell of a commit: check suites with their runs, and commit statuses; and which of all these
//! a branch requires.
//!
//! The suites and check runs of GitHub's own workflows are passed over: `workflow_run` and `workflow_job` tell of the same, whole.

use std::borrow::Cow;

use kiro_schemas::{Event, Micros, Outcome, Subject, Transition, Value};
use serde::Deserialize;

use super::{Number, Repository};
use crate::reading::{Named, Text, list, note, note_all, set, set_end, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct App<'a> {
    slug: Option<Text<'a>>,
    name: Option<Text<'a>>,
}

impl App<'_> {
    fn is_own(app: Option<&Self>) -> bool {
        let slug = app.and_then(|app| app.slug.as_ref());
        slug.map_or_else(
            || app.and_then(|app| app.name.as_ref()).is_some_and(|name| name.0 == "GitHub Actions"),
            |slug| slug.0 == "github-actions",
        )
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct CheckEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    check_run: CheckRun<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct CheckRun<'a> {
    id: i64,
    name: Text<'a>,
    status: Text<'a>,
    conclusion: Option<Text<'a>>,
    head_sha: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    details_url: Option<Text<'a>>,
    app: Option<App<'a>>,
    check_suite: Option<SuiteOfCheck<'a>>,
    started_at: Option<Micros>,
    completed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct SuiteOfCheck<'a> {
    id: Option<i64>,
    head_branch: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct SuiteEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    check_suite: Suite<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Suite<'a> {
    id: i64,
    status: Option<Text<'a>>,
    conclusion: Option<Text<'a>>,
    head_branch: Option<Text<'a>>,
    head_sha: Option<Text<'a>>,
    app: Option<App<'a>>,
    #[serde(default, deserialize_with = "list")]
    pull_requests: Vec<Number>,
    created_at: Micros,
    updated_at: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct StatusEvent<'a> {
    sha: Text<'a>,
    context: Text<'a>,
    state: Text<'a>,
    target_url: Option<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    branches: Vec<Named<'a>>,
    repository: Repository<'a>,
    created_at: Micros,
    updated_at: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct RuleEvent<'a> {
    action: Text<'a>,
    rule: BranchRule<'a>,
    repository: Repository<'a>,
}

/// What must hold before a change goes into the branches of a pattern.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct BranchRule<'a> {
    id: i64,
    name: Text<'a>,
    #[serde(default, deserialize_with = "list")]
    required_status_checks: Vec<Text<'a>>,
    required_status_checks_enforcement_level: Option<Text<'a>>,
    required_approving_review_count: Option<i64>,
    merge_queue_enforcement_level: Option<Text<'a>>,
    updated_at: Micros,
}

/// Suites and runs have numbers of their own, so their ids say what they count.
fn suite_id(id: i64) -> String {
    format!("check_suite-{id}")
}

pub(in crate::github) fn check_run(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let CheckEvent { action, repository, check_run: check } = serde_json::from_slice(payload)?;
    if App::is_own(check.app.as_ref()) || !matches!(&*action.0, "created" | "in_progress" | "completed") {
        return Ok(Vec::new());
    }
    // An app may create a check that has ended: its status says so, not the action.
    let step = match &*check.status.0 {
        "completed" => check.completed_at.or(check.started_at).map(|time| (Transition::Finished, time)),
        "in_progress" => check.started_at.map(|time| (Transition::Started, time)),
        _ => check.started_at.map(|time| (Transition::Queued, time)),
    };
    let Some((transition, time)) = step else { return Ok(Vec::new()) };
    let mut said = Event::new(Subject::TaskRun, transition, repository.html_url.0, format!("check_run-{}", check.id), time);
    let started = check.started_at.filter(|_| transition != Transition::Queued);
    set_time(&mut said, "queued_at", Some(time).filter(|_| transition == Transition::Queued));
    set_time(&mut said, "started_at", started);
    if transition == Transition::Finished {
        set_end(&mut said, check.conclusion.as_ref().and_then(|word| Outcome::of_provider(&word.0)), started, Some(time));
    }
    set(&mut said, "pipeline", check.app.and_then(|app| app.name));
    set(&mut said, "task", Some(check.name));
    set(&mut said, "status", Some(check.conclusion.unwrap_or(check.status)));
    set(&mut said, "commit_sha", check.head_sha);
    set(&mut said, "url", check.details_url.or(check.html_url));
    if let Some(suite) = check.check_suite {
        said.set_text("run_id", suite.id.map(suite_id));
        set(&mut said, "branch", suite.head_branch);
    }
    Ok(vec![said])
}

pub(in crate::github) fn check_suite(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let SuiteEvent { action, repository, check_suite: suite } = serde_json::from_slice(payload)?;
    let (transition, time) = match &*action.0 {
        "requested" => (Transition::Queued, suite.created_at),
        "completed" => (Transition::Finished, suite.updated_at),
        _ => return Ok(Vec::new()),
    };
    if App::is_own(suite.app.as_ref()) {
        return Ok(Vec::new());
    }
    let mut said = Event::new(Subject::PipelineRun, transition, repository.html_url.0, suite_id(suite.id), time);
    set_time(&mut said, "queued_at", Some(suite.created_at));
    if transition == Transition::Finished {
        set_end(&mut said, suite.conclusion.as_ref().and_then(|word| Outcome::of_provider(&word.0)), Some(suite.created_at), Some(time));
    }
    said.set_text("change_id", suite.pull_requests.first().map(|change| change.number.to_string()));
    set(&mut said, "pipeline", suite.app.and_then(|app| app.name));
    set(&mut said, "status", suite.conclusion.or(suite.status));
    set(&mut said, "branch", suite.head_branch);
    set(&mut said, "commit_sha", suite.head_sha);
    Ok(vec![said])
}

/// A status has no id of what it judges: commit and context name it.
pub(in crate::github) fn status(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let told: StatusEvent<'_> = serde_json::from_slice(payload)?;
    let (transition, time) = match &*told.state.0 {
        "pending" => (Transition::Started, told.created_at),
        _ => (Transition::Finished, told.updated_at),
    };
    let id = format!("status-{}-{}", told.sha.0, told.context.0);
    let mut said = Event::new(Subject::TaskRun, transition, told.repository.html_url.0, id, time);
    if transition == Transition::Finished {
        set_end(&mut said, Outcome::of_provider(&told.state.0), None, Some(time));
    }
    // `ci/circleci: build` is a task of the pipeline `ci/circleci`.
    let pipeline = told.context.0.split_once(':').map(|(pipeline, _)| Cow::Owned(pipeline.to_owned()));
    said.set_text("pipeline", pipeline.or_else(|| Some(told.context.0.clone())));
    set(&mut said, "task", Some(told.context));
    set(&mut said, "status", Some(told.state));
    set(&mut said, "commit_sha", Some(told.sha));
    set(&mut said, "branch", told.branches.into_iter().next().and_then(|branch| branch.name));
    set(&mut said, "url", told.target_url);
    Ok(vec![said])
}

/// Which checks are required, by the names that runs of tasks have. A deletion has no time but that of the last change.
pub(in crate::github) fn branch_rule(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let RuleEvent { action, rule, repository } = serde_json::from_slice(payload)?;
    let id = format!("branch_protection_rule-{}", rule.id);
    let mut said = Event::new(Subject::Other, Transition::Recorded, repository.html_url.0, id, rule.updated_at);
    said.set("type", Value::text("branch_protection_rule"));
    tell_apart(&mut said, &action.0);
    note(&mut said, "action", Some(action.0));
    note(&mut said, "branch", Some(rule.name.0));
    note_all(&mut said, "required_checks", rule.required_status_checks.iter());
    note(&mut said, "required_checks_for", rule.required_status_checks_enforcement_level.map(|level| level.0));
    note(&mut said, "required_approvals", rule.required_approving_review_count.map(|count| count.to_string()));
    note(&mut said, "merge_queue_for", rule.merge_queue_enforcement_level.map(|level| level.0));
    Ok(vec![said])
}
