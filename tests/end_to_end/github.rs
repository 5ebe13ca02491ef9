//! The history as GitHub tells it: signed webhooks; and what GitHub tells beside runs, in native events, too.

use anyhow::Result;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::history::Run;
use crate::http::{self, Reply};

/// What the sender and the server share.
pub(crate) const SECRET: &str = "a secret of the webhook";

/// A webhook.
#[derive(Debug)]
pub(crate) struct Hook {
    event: &'static str,
    body: String,
}

impl Hook {
    pub(crate) fn new(event: &'static str, body: &Value) -> Self {
        Self { event, body: body.to_string() }
    }

    /// Sends it as a delivery of this id, signed with a secret.
    pub(crate) fn deliver(&self, port: u16, delivery: &str, secret: &str) -> Result<Reply> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
        mac.update(self.body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let headers = [
            ("content-type", "application/json"),
            ("user-agent", "GitHub-Hookshot/abc"),
            ("x-github-event", self.event),
            ("x-github-delivery", delivery),
            ("x-hub-signature-256", signature.as_str()),
        ];
        http::must(port, "POST /webhooks/github", &headers, self.body.as_bytes())
    }
}

fn repository(run: &Run) -> Value {
    json!({"html_url": run.source, "name": run.source.rsplit('/').next(), "private": false})
}

/// The webhooks of a run.
pub(crate) fn of_run(run: &Run) -> Vec<Hook> {
    let [queued, started, finished, _] = &run.times;
    // A later attempt keeps the moment when the run was made.
    let created = if run.attempt == 1 { queued.as_str() } else { "2026-02-27T00:00:00Z" };
    let hook = |(at, action): (usize, &str)| {
        let conclusion = if at == 2 { Value::from(run.outcome) } else { Value::Null };
        let status = ["queued", "in_progress", "completed"][at];
        let workflow_run = json!({
            "id": run.id, "name": run.pipeline, "run_attempt": run.attempt, "status": status, "conclusion": conclusion, "event": "push",
            "head_branch": run.branch, "head_sha": run.commit, "html_url": run.url, "path": ".github/workflows/ci.yml",
            "actor": {"login": "someone"}, "triggering_actor": {"login": run.actor}, "pull_requests": [{"number": run.change}],
            "created_at": created, "run_started_at": started, "updated_at": if at == 2 { finished } else { started },
        });
        let body = json!({
            "action": action, "repository": repository(run), "workflow": {"name": run.pipeline}, "workflow_run": workflow_run,
            "sender": {"login": run.actor},
        });
        Hook::new("workflow_run", &body)
    };
    ["requested", "in_progress", "completed"].into_iter().enumerate().map(hook).collect()
}

/// A fact in both tongues: a native event, and GitHub's webhook.
pub(crate) type Fact = (String, Hook);

fn native(run: &Run, subject: &str, transition: &str, (id, attempt, time): (i64, i64, &str), fields: &Value) -> String {
    let event = json!({
        "subject": subject, "transition": transition, "source": run.source, "subject_id": id.to_string(), "attempt": attempt, "time": time,
        "known_at": run.times[3], "fields": fields,
    });
    event.to_string()
}

fn with(mut fields: Value, more: &[(&str, Value)]) -> Value {
    for (name, value) in more {
        fields[*name] = value.clone();
    }
    fields
}

/// The job of a run.
fn job(run: &Run) -> Vec<Fact> {
    let id = run.id * 10 + run.attempt;
    let [queued, started, finished, _] = &run.times;
    let fields = json!({
        "run_id": run.id.to_string(), "pipeline": run.pipeline, "task": "compile", "runner": "runner-7", "branch": run.branch,
        "commit_sha": run.commit, "url": run.url, "queued_at": queued,
    });
    let payload = json!({
        "id": id, "run_id": run.id, "run_attempt": run.attempt, "name": "compile", "workflow_name": run.pipeline, "labels": ["linux"],
        "head_branch": run.branch, "head_sha": run.commit, "html_url": run.url, "runner_name": "runner-7", "created_at": queued,
    });
    let fact = |transition, action, time: &str, own: &[(&str, Value)], theirs: &[(&str, Value)]| {
        let body = json!({"action": action, "repository": repository(run), "workflow_job": with(payload.clone(), theirs)});
        let line = native(run, "task_run", transition, (id, run.attempt, time), &with(fields.clone(), own));
        (line, Hook::new("workflow_job", &body))
    };
    let status = |word: &str| ("status", Value::from(word));
    let (began, ended) = (("started_at", json!(started)), ("completed_at", json!(finished)));
    vec![
        // While it waits, GitHub gives the moment of creation as that of the start.
        fact("queued", "queued", queued, &[status("queued")], &[status("queued"), ("started_at", json!(queued))]),
        fact("started", "in_progress", started, &[status("in_progress"), began.clone()], &[status("in_progress"), began.clone()]),
        fact(
            "finished",
            "completed",
            finished,
            &[status(run.outcome), ("outcome", run.outcome.into()), began.clone()],
            &[status("completed"), ("conclusion", run.outcome.into()), began, ended],
        ),
    ]
}

/// The deployment that a run makes.
fn deployment(run: &Run) -> Vec<Fact> {
    let id = run.id * 10 + run.attempt;
    let [queued, started, finished, _] = &run.times;
    let fields = json!({
        "service": run.source.rsplit('/').next(), "environment": "production", "commit_sha": run.commit, "branch": run.branch,
        "actor": run.actor, "queued_at": queued,
    });
    let deployment = json!({
        "id": id, "sha": run.commit, "ref": run.branch, "environment": "production", "creator": {"login": run.actor}, "created_at": queued,
    });
    let body = json!({"repository": repository(run), "deployment": deployment});
    let created = native(run, "deployment", "created", (id, 1, queued), &fields);
    let mut facts = vec![(created, Hook::new("deployment", &body))];
    for (transition, state, time) in [("started", "in_progress", started), ("finished", run.outcome, finished)] {
        let status = json!({"state": state, "environment": "production", "target_url": run.url, "created_at": time});
        let mut own = vec![("status", json!(state)), ("url", json!(run.url))];
        if transition == "finished" {
            own.push(("outcome", json!(run.outcome)));
        }
        let line = native(run, "deployment", transition, (id, 1, time), &with(fields.clone(), &own));
        facts.push((line, Hook::new("deployment_status", &with(body.clone(), &[("deployment_status", status)]))));
    }
    facts
}

/// All that GitHub tells of a history beside the runs.
pub(crate) fn facts(history: &[Run]) -> Vec<Fact> {
    let jobs = history.iter().flat_map(job);
    let deployments = history.iter().filter(|run| run.pipeline == "deploy").flat_map(deployment);
    let changes = history.iter().filter(|run| run.attempt == 1).flat_map(change);
    jobs.chain(deployments).chain(changes).collect()
}

/// The pull request that a run belongs to.
fn change(run: &Run) -> Vec<Fact> {
    let [opened, _, merged, _] = &run.times;
    let fields = json!({
        "title": "Mend \"it\"", "branch": run.branch, "base_branch": "main", "commit_sha": run.commit, "author": run.actor, "url": run.url,
        "lines_added": run.change, "lines_deleted": 3, "files_changed": 2, "commits": 1, "created_at": opened,
    });
    let pull = json!({
        "number": run.change, "title": "Mend \"it\"", "html_url": run.url, "user": {"login": run.actor},
        "head": {"ref": run.branch, "sha": run.commit}, "base": {"ref": "main", "sha": "0".repeat(40)}, "merge_commit_sha": "f".repeat(40),
        "additions": run.change, "deletions": 3, "changed_files": 2, "commits": 1, "created_at": opened,
    });
    let fact = |transition, action: &str, time: &String, own: &[(&str, Value)], theirs: &[(&str, Value)]| {
        let pull = with(with(pull.clone(), &[("updated_at", json!(time))]), theirs);
        let body = json!({"action": action, "number": run.change, "repository": repository(run), "pull_request": pull});
        let line = native(run, "change", transition, (run.change, 1, time), &with(fields.clone(), own));
        (line, Hook::new("pull_request", &body))
    };
    let status = |word: &str| ("status", Value::from(word));
    let (state_open, state_closed) = (("state", json!("open")), ("state", json!("closed")));
    let merge = [status("closed"), ("merge_commit_sha", json!("f".repeat(40)))];
    vec![
        fact("created", "opened", opened, &[status("open")], &[state_open, ("merged", json!(false))]),
        fact("merged", "closed", merged, &merge, &[state_closed, ("merged", json!(true)), ("merged_at", json!(merged))]),
    ]
}
