//! A small project of GitLab, as its documents describe the API; and the webhooks of the same facts.

use serde_json::{Value, json};

use crate::forge::{Thing, World};
use crate::github_world::{Hook, ago};

/// GitLab publishes no description of these: written by hand of its documents.
pub(crate) const DESCRIPTION: &str = include_str!("gitlab.openapi.json");
/// The project.
pub(crate) const PROJECT: &str = "acme/web/shop";
const WEB: &str = "https://gitlab.com/acme/web/shop";
/// A fork of it.
const FORK: i64 = 99;

/// As the API says it: with a part of a second.
fn exact(minutes: i64) -> String {
    ago(minutes).replace('Z', ".417Z")
}

/// As webhooks say it.
fn second(minutes: i64) -> String {
    ago(minutes).replace('T', " ").replace('Z', " UTC")
}

fn sha(number: i64) -> String {
    format!("{:040x}", number * 7_919)
}

fn user() -> Value {
    json!({"id": 7, "username": "ada", "name": "Ada", "state": "active", "avatar_url": null, "web_url": "https://gitlab.com/ada"})
}

fn project() -> Value {
    json!({"id": 15, "name": "Shop", "path": "shop", "path_with_namespace": PROJECT, "web_url": WEB, "default_branch": "main",
        "ci_config_path": null, "created_at": exact(900_000), "last_activity_at": exact(1)})
}

fn commit(number: i64, minutes: i64) -> Value {
    json!({"id": sha(number), "short_id": "abc", "title": "Mend", "message": "Mend", "author_name": "Ada", "author_email": "a@acme.example",
        "created_at": exact(minutes), "authored_date": exact(minutes), "committed_date": exact(minutes)})
}

/// Which project the branch of a merge request is of: every sixth comes from a fork.
fn of_branch(number: i64) -> i64 {
    if number % 6 == 0 { FORK } else { 15 }
}

fn fork() -> Value {
    let mut fork = project();
    (fork["id"], fork["path_with_namespace"], fork["web_url"]) = (FORK.into(), "ada/shop".into(), "https://gitlab.com/ada/shop".into());
    fork
}

/// The jobs of a pipeline: the third one was tried twice.
fn jobs(number: i64, at: i64) -> Vec<Value> {
    let job = |(index, name): (i64, &str)| {
        let began = at - 1 - index;
        let status = if index == 2 { "failed" } else { "success" };
        json!({"id": number * 10 + index, "name": name, "stage": "test", "status": status, "ref": "main", "tag": false, "allow_failure": false,
            "created_at": exact(at), "started_at": exact(began), "finished_at": exact(began - 1), "duration": 60.0, "queued_duration": 60.25, "user": user(),
            "failure_reason": "script_failure", "commit": commit(number, at),
            "pipeline": {"id": number, "project_id": 15, "ref": "main", "sha": sha(number), "status": "success"}, "web_url": format!("{WEB}/-/jobs/{}", number * 10 + index),
            "runner": {"id": 1, "description": "runner-7", "active": true, "is_shared": true}, "tag_list": ["linux"]})
    };
    let all = [(0, "build"), (1, "lint"), (2, "unit"), (3, "unit")];
    all.into_iter().map(job).rev().collect()
}

fn pipeline(number: i64, at: i64) -> Value {
    json!({"id": number, "iid": number, "project_id": 15, "sha": sha(number), "ref": "main", "status": "success", "source": "web", "name": null,
        "created_at": exact(at), "updated_at": exact(at - 9), "web_url": format!("{WEB}/-/pipelines/{number}"), "before_sha": sha(0), "tag": false,
        "yaml_errors": null, "user": user(), "started_at": exact(at - 1), "finished_at": exact(at - 9), "committed_at": null, "duration": 480,
        "queued_duration": 60, "coverage": null})
}

/// Pipelines of a year, each with jobs; a deployment, a merge request, an incident and a release for every third.
pub(crate) fn world(pipelines: i64) -> World {
    let base = "/projects/15".to_owned();
    let mut world = World::new();
    world.insert("/user".to_owned(), Thing::One(user()));
    let token = json!({"id": 4, "name": "kirolinter", "revoked": false, "created_at": exact(9), "scopes": ["read_api"], "user_id": 7, "active": true, "expires_at": null});
    world.insert("/personal_access_tokens/self".to_owned(), Thing::One(token));
    world.insert("/projects/acme%2Fweb%2Fshop".to_owned(), Thing::One(project()));
    world.insert(format!("/projects/{FORK}"), Thing::One(fork()));
    let mut all = [vec![], vec![], vec![], vec![], vec![]];
    let step = 364 * 1_440 / pipelines;
    for number in 1..=pipelines {
        let at = (pipelines - number) * step + 30;
        let row = pipeline(number, at);
        world.insert(format!("{base}/pipelines/{number}"), Thing::One(row.clone()));
        world.insert(format!("{base}/pipelines/{number}/jobs"), Thing::List(jobs(number, at), None));
        all[0].push(row);
        if number % 3 == 0 {
            all[1].push(json!({"id": number, "iid": number, "ref": "main", "sha": sha(number), "created_at": exact(at), "updated_at": exact(at - 5), "status": "success",
                "user": user(), "environment": {"id": 1, "name": "production", "external_url": null, "tier": "production"},
                "deployable": {"id": number * 10, "status": "success", "stage": "deploy", "name": "deploy", "web_url": format!("{WEB}/-/jobs/{}", number * 10), "commit": commit(number, at)}}));
            all[2].push(json!({"id": number, "iid": number, "project_id": 15, "title": format!("Change {number}"), "state": "merged", "created_at": exact(at + 500),
                "updated_at": exact(at), "merged_at": exact(at), "closed_at": null, "target_branch": "main", "source_branch": "mend", "author": user(), "labels": ["backend"],
                "source_project_id": of_branch(number), "target_project_id": 15, "draft": false, "sha": sha(number), "merge_commit_sha": sha(number + 1), "squash_commit_sha": null, "web_url": format!("{WEB}/-/merge_requests/{number}")}));
            world.insert(
                format!("{base}/merge_requests/{number}/commits"),
                Thing::List(vec![commit(number, at + 400), commit(number, at + 900)], None),
            );
            all[3].push(json!({"id": number, "iid": number, "project_id": 15, "title": "Down", "state": "closed", "created_at": exact(at), "updated_at": exact(at - 4),
                "closed_at": exact(at - 4), "labels": [], "author": user(), "type": "INCIDENT", "issue_type": "incident", "severity": "HIGH", "confidential": false,
                "web_url": format!("{WEB}/-/issues/{number}")}));
            all[4].push(json!({"tag_name": format!("v{number}"), "name": format!("v{number}"), "created_at": exact(at), "released_at": exact(at), "author": user(),
                "commit": commit(number, at), "upcoming_release": false, "_links": {"self": format!("{WEB}/-/releases/v{number}")}}));
        }
    }
    for (name, rows) in ["pipelines", "deployments", "merge_requests", "issues", "releases"].into_iter().zip(all) {
        world.insert(format!("{base}/{name}"), Thing::List(rows, None));
    }
    world
}

/// Adds a pipeline without jobs that ended just now.
pub(crate) fn one_more(world: &mut World) {
    let row = pipeline(7_777, 12);
    world.insert("/projects/15/pipelines/7777".to_owned(), Thing::One(row.clone()));
    world.insert("/projects/15/pipelines/7777/jobs".to_owned(), Thing::List(Vec::new(), None));
    if let Some(Thing::List(rows, _)) = world.get_mut("/projects/15/pipelines") {
        rows.push(row);
    }
}

/// The webhooks that would have told of the same: of merge requests that they were opened, of all how they ended.
pub(crate) fn hooks(pipelines: i64) -> Vec<Hook> {
    let (step, mut hooks) = (364 * 1_440 / pipelines, Vec::new());
    let project = json!({"id": 15, "name": "Shop", "path_with_namespace": PROJECT, "web_url": WEB, "ci_config_path": null});
    for number in 1..=pipelines {
        let at = (pipelines - number) * step + 30;
        let builds = json!([{"id": 1, "started_at": second(at - 1)}, {"id": 2, "started_at": second(at - 4)}]);
        let attributes = json!({"id": number, "iid": number, "ref": "main", "tag": false, "sha": sha(number), "source": "web", "status": "success",
            "created_at": second(at), "finished_at": second(at - 9), "queued_duration": 60, "variables": [], "url": format!("{WEB}/-/pipelines/{number}")});
        hooks.push((
            "Pipeline Hook",
            json!({"object_kind": "pipeline", "object_attributes": attributes, "user": user(), "project": project, "builds": builds}),
        ));
        for (index, name, retries) in [(0, "build", 0), (1, "lint", 0), (2, "unit", 0), (3, "unit", 1)] {
            let began = at - 1 - index;
            let status = if index == 2 { "failed" } else { "success" };
            hooks.push(("Job Hook", json!({"object_kind": "build", "build_id": number * 10 + index, "build_name": name, "build_stage": "test", "build_status": status,
                "build_created_at": second(at), "build_started_at": second(began), "build_finished_at": second(began - 1), "build_queued_duration": 60.25,
                "build_allow_failure": false, "build_failure_reason": "script_failure", "retries_count": retries, "pipeline_id": number, "ref": "main", "sha": sha(number),
                "commit": {"id": number}, "repository": {"homepage": WEB}, "project": project, "runner": {"id": 1, "description": "runner-7"}})));
        }
        if number % 3 == 0 {
            hooks.push(("Deployment Hook", json!({"object_kind": "deployment", "status": "success", "status_changed_at": second(at - 5), "deployment_id": number,
                "deployable_id": number * 10, "deployable_url": format!("{WEB}/-/jobs/{}", number * 10), "environment": "production", "environment_tier": "production",
                "project": project, "short_sha": "abc", "commit_url": format!("{WEB}/-/commit/{}", sha(number)), "commit_title": "Mend", "ref": "main", "user": user()})));
            let source = if of_branch(number) == FORK { fork() } else { project.clone() };
            let opened = json!({"iid": number, "title": format!("Change {number}"), "state": "opened", "source_branch": "mend", "target_branch": "main",
                "source_project_id": of_branch(number), "target_project_id": 15, "source": source, "url": format!("{WEB}/-/merge_requests/{number}"),
                "created_at": second(at + 500), "updated_at": second(at + 500), "action": "open"});
            hooks.push(("Merge Request Hook", json!({"user": user(), "project": project, "object_attributes": opened})));
            let request = json!({"iid": number, "source_project_id": of_branch(number), "target_project_id": 15, "source": source, "title": format!("Change {number}"), "state": "merged", "source_branch": "mend", "target_branch": "main",
                "last_commit": {"id": sha(number)}, "merge_commit_sha": sha(number + 1), "draft": false, "url": format!("{WEB}/-/merge_requests/{number}"),
                "created_at": second(at + 500), "updated_at": second(at), "action": "merge"});
            hooks.push((
                "Merge Request Hook",
                json!({"user": user(), "project": project, "object_attributes": request, "labels": [{"title": "backend"}]}),
            ));
            let issue = json!({"iid": number, "title": "Down", "state": "closed", "action": "close", "type": "Incident", "severity": "high", "confidential": false,
                "url": format!("{WEB}/-/issues/{number}"), "created_at": second(at), "updated_at": second(at - 4), "closed_at": second(at - 4)});
            hooks.push(("Issue Hook", json!({"project": project, "object_attributes": issue, "labels": []})));
            hooks.push(("Release Hook", json!({"action": "create", "tag": format!("v{number}"), "name": format!("v{number}"), "url": format!("{WEB}/-/releases/v{number}"),
                "created_at": second(at), "released_at": second(at), "project": project, "commit": {"id": sha(number)}})));
        }
    }
    hooks
}
