//! A small repository of GitHub, made of the examples of its API's description; and the webhooks of the same facts.

use std::collections::BTreeMap;

use kiro_schemas::Micros;
use serde_json::{Value, json};

use crate::forge::{NOW, Thing, World};

/// GitHub's description of its API, cut to what is asked.
pub(crate) const DESCRIPTION: &str = include_str!("github.openapi.json");
/// The repository.
pub(crate) const REPOSITORY: &str = "acme/shop";
const BASE: &str = "/repos/acme/shop";
const HTML: &str = "https://github.com/acme/shop";

/// The example that the description gives.
fn example(path: &str) -> Value {
    let description: Value = serde_json::from_str(DESCRIPTION).expect("a description");
    description["paths"][path]["example"].clone()
}

pub(crate) fn with(row: &Value, more: Value) -> Value {
    let mut row = row.clone();
    let Value::Object(more) = more else { return row };
    for (name, value) in more {
        row[name] = value;
    }
    row
}

/// The examples of some fields are of an older description.
fn without(mut row: Value, names: &[&str]) -> Value {
    for name in names {
        drop(row.as_object_mut().and_then(|row| row.remove(*name)));
    }
    row
}

/// So many minutes before now.
pub(crate) fn ago(minutes: i64) -> String {
    Micros::parse(NOW).expect("a time").plus(-minutes * 60_000_000).to_string()
}

fn sha(number: i64) -> String {
    format!("{:040x}", number * 7_919)
}

/// A run in one of its attempts.
pub(crate) fn run(row: &Value, number: i64, attempt: i64, created: i64, began: i64) -> Value {
    let outcome = if number % 7 == 3 { "failure" } else { "success" };
    with(
        row,
        json!({
            "id": 9_000_000 + number, "name": "a name of its own", "run_number": number, "run_attempt": attempt, "workflow_id": 161_335 + number % 2 * 107_954,
            "status": "completed", "conclusion": outcome, "event": "push", "head_branch": "main", "head_sha": sha(number),
            "html_url": format!("{HTML}/actions/runs/{}", 9_000_000 + number), "created_at": ago(created), "run_started_at": ago(began),
            "updated_at": ago(began - 9), "pull_requests": [],
        }),
    )
}

fn job(row: &Value, number: i64, attempt: i64, began: i64) -> Value {
    with(
        row,
        json!({
            "id": number * 10 + attempt, "run_id": 9_000_000 + number, "run_attempt": attempt, "name": "compile", "workflow_name": "CI",
            "head_branch": "main", "head_sha": sha(number), "status": "completed", "conclusion": "success", "created_at": ago(began),
            "started_at": ago(began - 1), "completed_at": ago(began - 8), "html_url": format!("{HTML}/jobs/{number}"),
        }),
    )
}

/// Runs from a year ago to this hour, every tenth of them twice; a deployment, a pull request and an issue for every tenth.
pub(crate) fn world(runs: i64) -> World {
    let mut world = World::new();
    let user = example("/user");
    world.insert("/user".to_owned(), Thing::One(user));
    let repository = with(
        &example("/repos/{owner}/{repo}"),
        json!({"name": "shop", "full_name": REPOSITORY, "html_url": HTML, "has_issues": true, "language": "Rust"}),
    );
    world.insert(BASE.to_owned(), Thing::One(without(repository, &["source", "parent", "template_repository"])));
    let workflows = example("/repos/{owner}/{repo}/actions/workflows")["workflows"].as_array().expect("workflows").clone();
    world.insert(format!("{BASE}/actions/workflows"), Thing::List(workflows, Some("workflows")));
    let list = |path: &str, field: &str| example(path)[field][0].clone();
    let first = |path: &str| example(path)[0].clone();
    let run_row = list("/repos/{owner}/{repo}/actions/runs", "workflow_runs");
    let job_row = list("/repos/{owner}/{repo}/actions/runs/{run_id}/jobs", "jobs");
    let mut all: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let step = 364 * 1_440 / runs;
    for number in 0..runs {
        let created = (runs - number) * step;
        let attempts = if number % 10 == 9 { 2 } else { 1 };
        let began = |attempt: i64| created - 1 - (attempt - 1) * 20;
        for attempt in 1..attempts {
            let path = format!("{BASE}/actions/runs/{}/attempts/{attempt}", 9_000_000 + number);
            world.insert(path, Thing::One(run(&run_row, number, attempt, created, began(attempt))));
        }
        let jobs = (1..=attempts).map(|attempt| job(&job_row, number, attempt, began(attempt))).collect();
        world.insert(format!("{BASE}/actions/runs/{}/jobs", 9_000_000 + number), Thing::List(jobs, Some("jobs")));
        all.entry("actions/runs").or_default().push(run(&run_row, number, attempts, created, began(attempts)));
        if number % 10 == 0 {
            beside(&mut world, &mut all, number, created, &first);
        }
    }
    for (path, rows) in all {
        world.insert(format!("{BASE}/{path}"), Thing::List(rows, (path == "actions/runs").then_some("workflow_runs")));
    }
    world
}

/// What else there is at the time of a run.
fn beside(world: &mut World, all: &mut BTreeMap<&str, Vec<Value>>, number: i64, at: i64, first: &dyn Fn(&str) -> Value) {
    let deployment = with(
        &first("/repos/{owner}/{repo}/deployments"),
        json!({"id": 400 + number, "sha": sha(number), "ref": "main", "environment": "production", "payload": {"password": "canary-of-a-payload"},
            "created_at": ago(at), "updated_at": ago(at - 5)}),
    );
    let status = |id: i64, state: &str, at: i64| {
        let row = first("/repos/{owner}/{repo}/deployments/{deployment_id}/statuses");
        let log = format!("{HTML}/actions/runs/{}/job/1", 9_000_000 + number);
        with(&row, json!({"id": id, "state": state, "environment": "production", "log_url": log, "target_url": log, "created_at": ago(at)}))
    };
    let statuses = vec![status(1, "in_progress", at - 1), status(2, "success", at - 5)];
    world.insert(format!("{BASE}/deployments/{}/statuses", 400 + number), Thing::List(statuses, None));
    all.entry("deployments").or_default().push(deployment);

    let is_merged = number % 20 == 0;
    let merged = if is_merged { json!(ago(at - 2)) } else { Value::Null };
    let pull = json!({"id": number, "number": 100 + number, "state": "closed", "title": format!("Change {number}"), "html_url": format!("{HTML}/pull/{}", 100 + number),
        "created_at": ago(at + 600), "updated_at": ago(at - 2), "closed_at": ago(at - 2), "merged_at": merged, "merge_commit_sha": sha(number + 1), "requested_teams": []});
    let whole = with(&example("/repos/{owner}/{repo}/pulls/{pull_number}"), with(&pull, json!({"merged": is_merged, "additions": number})));
    world.insert(format!("{BASE}/pulls/{}", 100 + number), Thing::One(whole));
    let mut commit = first("/repos/{owner}/{repo}/pulls/{pull_number}/commits");
    commit["commit"]["author"]["date"] = ago(at + 900).into();
    world.insert(format!("{BASE}/pulls/{}/commits", 100 + number), Thing::List(vec![commit], None));
    all.entry("pulls").or_default().push(with(&first("/repos/{owner}/{repo}/pulls"), pull));

    let issue = first("/repos/{owner}/{repo}/issues");
    let label = with(&issue["labels"][0], json!({"name": if is_merged { "type: incident" } else { "bug" }}));
    let issue = with(
        &issue,
        json!({"id": number, "number": 1_000 + number, "state": "closed", "title": "It is down", "labels": [label], "created_at": ago(at), "updated_at": ago(at - 3),
            "closed_at": ago(at - 3), "html_url": format!("{HTML}/issues/{}", 1_000 + number)}),
    );
    all.entry("issues").or_default().push(without(issue, &["pull_request"]));

    let release = first("/repos/{owner}/{repo}/releases");
    let tag = json!({"id": number, "tag_name": format!("v{number}"), "created_at": ago(at), "published_at": ago(at - 1), "draft": false});
    all.entry("releases").or_default().push(with(&release, tag));
}

/// A webhook: its event and its body.
pub(crate) type Hook = (&'static str, Value);

/// The rows of a list of the world.
pub(crate) fn rows(world: &World, path: &str) -> Vec<Value> {
    match world.get(&format!("{BASE}/{path}")) {
        Some(Thing::List(rows, _)) => rows.clone(),
        Some(Thing::One(row)) => vec![row.clone()],
        None => Vec::new(),
    }
}

/// The webhooks that would have told of what ended in the world.
pub(crate) fn hooks(world: &World) -> Vec<Hook> {
    let repository = rows(world, "").pop().or_else(|| match world.get(BASE) {
        Some(Thing::One(row)) => Some(row.clone()),
        _ => None,
    });
    let workflows = rows(world, "actions/workflows");
    let hook = |event, body: Value| (event, with(&body, json!({"repository": repository, "sender": {"login": "octocat"}})));
    let mut hooks = Vec::new();
    for row in rows(world, "actions/runs") {
        let base = format!("actions/runs/{}", row["id"]);
        let earlier = (1..row["run_attempt"].as_i64().expect("a number")).flat_map(|n| rows(world, &format!("{base}/attempts/{n}")));
        for row in earlier.chain([row.clone()]) {
            let workflow = workflows.iter().find(|workflow| workflow["id"] == row["workflow_id"]);
            hooks.push(hook("workflow_run", json!({"action": "completed", "workflow": workflow, "workflow_run": row})));
        }
        hooks.extend(
            rows(world, &format!("{base}/jobs"))
                .into_iter()
                .map(|job| hook("workflow_job", json!({"action": "completed", "workflow_job": job}))),
        );
    }
    for row in rows(world, "deployments") {
        hooks.push(hook("deployment", json!({"action": "created", "deployment": row})));
        for status in rows(world, &format!("deployments/{}/statuses", row["id"])) {
            let run = 9_000_000 + row["id"].as_i64().expect("a number") - 400;
            let body = json!({"action": "created", "deployment": row, "deployment_status": status, "workflow_run": {"id": run}});
            hooks.push(hook("deployment_status", body));
        }
    }
    for row in rows(world, "pulls") {
        let pull = rows(world, &format!("pulls/{}", row["number"])).pop();
        hooks.push(hook("pull_request", json!({"action": "closed", "pull_request": pull})));
    }
    hooks.extend(rows(world, "issues").into_iter().map(|row| hook("issues", json!({"action": "closed", "issue": row}))));
    hooks.extend(rows(world, "releases").into_iter().map(|row| hook("release", json!({"action": "published", "release": row}))));
    hooks
}
