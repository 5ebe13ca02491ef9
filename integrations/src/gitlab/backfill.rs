//! GitLab's past: pipelines with their jobs, deployments, merge requests, incidents, releases.
//!
//! GitLab's API and its webhooks name the same things differently: each row is put into the form of the webhook, where times are
//! whole seconds.
//!
//! # Source
//! GitLab REST v4: "Pipelines", "Jobs", "Deployments", "Merge requests", "Issues", "Releases". Lists are ordered by `updated_at`,
//! the newest first, so that what changes meanwhile is seen twice and not missed. The ref of a merge request's pipeline is
//! `refs/merge-requests/<iid>/head`. A webhook's `retries_count` is the number of earlier jobs of the same name in the pipeline.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::{headers, is_project, reach};
use crate::backfill::{Ask, Backfill, Follow, Known, PAGE, Page, Row, Told, Without, id, key, pick, rows, stamp, text, time};

/// How GitLab's past is read.
pub(super) static BACKFILL: Backfill = Backfill {
    api: "https://gitlab.com/api/v4",
    example: "group/project",
    headers,
    begin,
    read,
    account: &["/personal_access_tokens/self", "/user"],
    reach,
};

/// The jobs of a pipeline, or the commits of a merge request, that are read.
const MOST_CARRIED: usize = 5_000;

fn begin(project: &str) -> Option<Ask> {
    is_project(project).then(|| Ask::new("project", format!("/projects/{}", project.replace('/', "%2F")), Follow::No, Without::Nothing))
}

fn read(ask: &Ask, known: &Known<'_>, body: &[u8]) -> serde_json::Result<Page> {
    Ok(match &*ask.what {
        "project" => project(known, &serde_json::from_slice(body)?),
        "pipelines" => pipelines(known, &rows(body)?),
        "jobs" => jobs(ask, known, &rows(body)?),
        "pipeline" => pipeline(ask, known, &serde_json::from_slice(body)?),
        "deployments" => each(known, rows(body)?, deployment),
        "merge requests" => merges(known, rows(body)?),
        "fork" => fork(ask, known, &serde_json::from_slice(body)?),
        "commits" => commits(ask, known, &rows(body)?),
        "issues" => each(known, rows(body)?, issue),
        "releases" => releases(known, rows(body)?),
        _ => Page::default(),
    })
}

fn project(known: &Known<'_>, row: &Value) -> Page {
    let about = pick(row, &["id", "web_url", "name", "path_with_namespace", "ci_config_path"]);
    let (base, since) = (format!("/projects/{}", id(row, "id").unwrap_or(0)), stamp(known.span.fresh));
    let changed = format!("updated_after={since}&order_by=updated_at&sort=desc&per_page={PAGE}");
    let all = |what, query: String| Ask::new(what, format!("{base}/{query}"), Follow::UntilStill, Without::Off);
    let asks = vec![
        all("pipelines", format!("pipelines?{changed}")),
        all("deployments", format!("deployments?{changed}")),
        all("merge requests", format!("merge_requests?scope=all&state=all&{changed}")),
        all("issues", format!("issues?scope=all&{changed}")),
        all("releases", format!("releases?order_by=released_at&sort=desc&per_page={PAGE}")),
    ];
    Page { learnt: vec![("project".to_owned(), about)], asks, ..Page::default() }
}

fn about<'k>(known: &'k Known<'_>) -> &'k Value {
    known.about.get("project").unwrap_or(&Value::Null)
}

/// A path below the project.
fn below(known: &Known<'_>, path: &str) -> String {
    format!("/projects/{}/{path}", id(about(known), "id").unwrap_or(0))
}

/// A time as webhooks tell it: in whole seconds.
fn second(row: &Value, name: &str) -> Value {
    time(row, name).map_or(Value::Null, |time| stamp(time).into())
}

/// What a row says changes with its id and the moment of its change.
fn changed(row: &Value, number: &str) -> u64 {
    key(&[&id(row, number).unwrap_or(0).to_string(), text(row, "updated_at")])
}

/// A page of which each row is told at once.
fn each(known: &Known<'_>, rows: Vec<Value>, told: impl Fn(&Known<'_>, &Value) -> (Told, &'static str)) -> Page {
    let row = |row: Value| {
        let (told, number) = told(known, &row);
        Row { key: changed(&row, number), told: vec![told], asks: Vec::new() }
    };
    Page { rows: rows.into_iter().map(row).collect(), ..Page::default() }
}

/// A pipeline does not tell when its first job began: the jobs are asked for before it.
fn pipelines(known: &Known<'_>, rows: &[Value]) -> Page {
    let row = |row: &Value| {
        let number = id(row, "id")?;
        let path = below(known, &format!("pipelines/{number}/jobs?include_retried=true&per_page={PAGE}"));
        let jobs = Ask::new("jobs", path, Follow::Pages, Without::Gone).with(json!({"pipeline": number, "jobs": []}));
        Some(Row { key: changed(row, "id"), told: Vec::new(), asks: vec![jobs] })
    };
    Page { rows: rows.iter().filter_map(row).collect(), ..Page::default() }
}

/// Rows are carried from page to page: only with all jobs it is known which is whose retry.
fn jobs(ask: &Ask, known: &Known<'_>, rows: &[Value]) -> Page {
    let number = id(&ask.with, "pipeline").unwrap_or(0);
    let mut all = ask.with.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
    let kept = [
        "id",
        "name",
        "stage",
        "status",
        "created_at",
        "started_at",
        "finished_at",
        "queued_duration",
        "allow_failure",
        "failure_reason",
        "ref",
    ];
    all.extend(rows.iter().map(|row| {
        let mut job = pick(row, &kept);
        job["sha"] = row.pointer("/commit/id").cloned().unwrap_or_default();
        job["runner"] = row.pointer("/runner/description").cloned().unwrap_or_default();
        job
    }));
    if known.has_next && all.len() < MOST_CARRIED {
        return Page { carried: json!({"pipeline": number, "jobs": all}), ..Page::default() };
    }
    all.sort_by_key(|job| id(job, "id"));
    let (mut earlier, mut latest) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, Value>::new());
    let mut told = Vec::new();
    for job in &all {
        let name = text(job, "name").to_owned();
        let retries = earlier.entry(name.clone()).or_default();
        told.push(self::job(known, job, number, *retries));
        *retries += 1;
        latest.insert(name, second(job, "started_at"));
    }
    let builds: Vec<Value> = latest.into_values().map(|started| json!({ "started_at": started })).collect();
    let whole = Ask::new("pipeline", below(known, &format!("pipelines/{number}")), Follow::No, Without::Gone);
    let whole = whole.with(json!({ "builds": builds }));
    Page { rows: vec![Row { told, ..Row::default() }], asks: vec![whole], is_last: true, ..Page::default() }
}

fn job(known: &Known<'_>, job: &Value, pipeline: i64, retries: i64) -> Told {
    let project = about(known);
    let payload = json!({
        "object_kind": "build", "build_id": job["id"], "build_name": job["name"], "build_stage": job["stage"],
        "build_status": job["status"], "build_created_at": second(job, "created_at"), "build_started_at": second(job, "started_at"),
        "build_finished_at": second(job, "finished_at"), "build_queued_duration": job["queued_duration"],
        "build_allow_failure": job["allow_failure"], "build_failure_reason": job["failure_reason"], "retries_count": retries,
        "pipeline_id": pipeline, "ref": job["ref"], "sha": job["sha"], "runner": {"description": job["runner"]},
        "repository": {"homepage": project["web_url"]}, "project": project,
    });
    Told::new("Job Hook", payload)
}

/// The merge request of a pipeline's ref.
fn merge_request(reference: &str) -> Option<i64> {
    reference.strip_prefix("refs/merge-requests/")?.split('/').next()?.parse().ok()
}

fn pipeline(ask: &Ask, known: &Known<'_>, row: &Value) -> Page {
    if row.is_null() {
        return Page::default();
    }
    let merge = merge_request(text(row, "ref"));
    let payload = json!({
        "object_kind": "pipeline", "project": about(known), "user": row["user"], "builds": ask.with["builds"],
        "merge_request": merge.map(|iid| json!({ "iid": iid })),
        "object_attributes": {
            "id": row["id"], "name": row["name"], "ref": if merge.is_some() { &Value::Null } else { &row["ref"] }, "tag": row["tag"],
            "sha": row["sha"], "source": row["source"], "status": row["status"], "created_at": second(row, "created_at"),
            "finished_at": second(row, "finished_at"), "queued_duration": row["queued_duration"], "url": row["web_url"],
        },
    });
    Page { rows: vec![Row { told: vec![Told::new("Pipeline Hook", payload)], ..Row::default() }], ..Page::default() }
}

/// The API tells only how a deployment stands, and since when.
fn deployment(known: &Known<'_>, row: &Value) -> (Told, &'static str) {
    let (project, job) = (about(known), &row["deployable"]);
    let payload = json!({
        "object_kind": "deployment", "status": row["status"], "status_changed_at": second(row, "updated_at"), "deployment_id": row["id"],
        "deployable_id": job["id"], "deployable_url": job["web_url"], "environment": row["environment"]["name"],
        "environment_tier": row["environment"]["tier"], "project": project, "ref": row["ref"], "user": row["user"],
        "short_sha": row["sha"], "commit_title": job["commit"]["title"],
    });
    (Told::new("Deployment Hook", payload), "id")
}

/// What is kept of a merge request until it is told.
const OF_MERGE: &[&str] = &[
    "iid",
    "title",
    "state",
    "source_branch",
    "target_branch",
    "source_project_id",
    "target_project_id",
    "sha",
    "merge_commit_sha",
    "squash_commit_sha",
    "draft",
    "web_url",
    "created_at",
    "updated_at",
    "merged_at",
    "closed_at",
    "labels",
];

fn merges(known: &Known<'_>, rows: Vec<Value>) -> Page {
    let mut of_forks = BTreeMap::<i64, Vec<Value>>::new();
    let row = |row: Value| {
        let key = id(&row, "iid").map(|_| changed(&row, "iid"))?;
        let mut merge = pick(&row, OF_MERGE);
        merge["author"] = pick(row.get("author").unwrap_or(&Value::Null), &["username", "name"]);
        let fork = id(&merge, "source_project_id").filter(|fork| is_of_fork(&merge) && !known.about.contains_key(&fork_name(*fork)));
        if let Some(fork) = fork {
            of_forks.entry(fork).or_default().push(merge);
            return Some(Row { key, ..Row::default() });
        }
        Some(Row { key, ..whole(known, merge) })
    };
    let rows = rows.into_iter().filter_map(row).collect();
    let ask = |(fork, merges)| {
        let ask = Ask::new("fork", format!("/projects/{fork}"), Follow::No, Without::Off);
        ask.with(json!({"fork": fork, "merges": merges}))
    };
    Page { rows, asks: of_forks.into_iter().map(ask).collect(), ..Page::default() }
}

/// Whether the branch of a merge request is another project's. A fork that was deleted has no number any more.
fn is_of_fork(merge: &Value) -> bool {
    id(merge, "target_project_id").is_some() && id(merge, "source_project_id") != id(merge, "target_project_id")
}

fn fork_name(number: i64) -> String {
    format!("fork {number}")
}

/// A merge request names the project of its branch by a number alone; the answer is null where that is gone, or not for everybody.
fn fork(ask: &Ask, known: &Known<'_>, row: &Value) -> Page {
    let name = fork_name(id(&ask.with, "fork").unwrap_or(-1));
    let mut about = known.about.clone();
    about.insert(name.clone(), row["web_url"].clone());
    let merges = ask.with["merges"].as_array().cloned().unwrap_or_default();
    let rows = merges.into_iter().map(|merge| whole(&Known { about: &about, ..*known }, merge)).collect();
    Page { rows, learnt: vec![(name, row["web_url"].clone())], ..Page::default() }
}

/// Tells a merge request; of one that is merged the first commit is asked for before.
fn whole(known: &Known<'_>, mut merge: Value) -> Row {
    if is_of_fork(&merge) {
        let number = id(&merge, "source_project_id").unwrap_or(-1);
        let address = known.about.get(&fork_name(number)).filter(|url| url.is_string());
        merge["source"] = address.map_or(Value::Null, |url| json!({ "web_url": url }));
        merge["source_project_id"] = number.into();
    }
    if text(&merge, "state") != "merged" {
        return Row { told: self::merge(known, &merge), ..Row::default() };
    }
    let path = below(known, &format!("merge_requests/{}/commits?per_page={PAGE}", id(&merge, "iid").unwrap_or(0)));
    let commits = Ask::new("commits", path, Follow::Pages, Without::Gone).with(json!({ "merge": merge }));
    Row { asks: vec![commits], ..Row::default() }
}

/// The commits of a merge request are told from the last on.
fn commits(ask: &Ask, known: &Known<'_>, rows: &[Value]) -> Page {
    let written = rows.iter().filter_map(|row| time(row, "authored_date").or_else(|| time(row, "created_at")));
    let first = written.chain(time(&ask.with, "first")).min();
    let row = &ask.with["merge"];
    if known.has_next {
        return Page { carried: json!({"merge": row, "first": first.map(|time| time.to_string())}), ..Page::default() };
    }
    let mut told = merge(known, row);
    if let (Some(told), Some(first)) = (told.last_mut(), first) {
        told.notes.push(("first_commit_at", first.to_string()));
    }
    Page { rows: vec![Row { told, ..Row::default() }], ..Page::default() }
}

/// That it was opened, by whom, and how it stands.
fn merge(known: &Known<'_>, row: &Value) -> Vec<Told> {
    let action = match text(row, "state") {
        "merged" => "merge",
        "closed" => "close",
        _ => "update",
    };
    let labels: Vec<Value> = row["labels"].as_array().into_iter().flatten().map(|title| json!({ "title": title })).collect();
    let opened = json!({
        "object_kind": "merge_request", "user": row["author"], "project": about(known), "object_attributes": {
            "iid": row["iid"], "state": "opened", "action": "open", "source_branch": row["source_branch"],
            "target_branch": row["target_branch"], "source_project_id": row["source_project_id"],
            "target_project_id": row["target_project_id"], "source": row["source"], "url": row["web_url"], "created_at": second(row, "created_at"),
        },
    });
    let stands = json!({
        "object_kind": "merge_request", "project": about(known), "labels": labels, "object_attributes": {
            "iid": row["iid"], "title": row["title"], "state": row["state"], "action": action, "source_branch": row["source_branch"],
            "target_branch": row["target_branch"], "source_project_id": row["source_project_id"],
            "target_project_id": row["target_project_id"], "source": row["source"], "last_commit": {"id": row["sha"]}, "merge_commit_sha": row["merge_commit_sha"],
            "squash_commit_sha": row["squash_commit_sha"], "draft": row["draft"], "url": row["web_url"],
            "created_at": second(row, "created_at"), "updated_at": second(row, "updated_at"), "merged_at": second(row, "merged_at"),
            "closed_at": second(row, "closed_at"),
        },
    });
    [opened, stands].into_iter().map(|payload| Told::new("Merge Request Hook", payload)).collect()
}

fn issue(known: &Known<'_>, row: &Value) -> (Told, &'static str) {
    let labels: Vec<Value> = row["labels"].as_array().into_iter().flatten().map(|title| json!({ "title": title })).collect();
    let payload = json!({
        "object_kind": "issue", "project": about(known), "labels": labels, "object_attributes": {
            "iid": row["iid"], "title": row["title"], "state": row["state"], "type": row["issue_type"],
            "action": if text(row, "state") == "closed" { "close" } else { "open" }, "severity": text(row, "severity").to_lowercase(),
            "confidential": row["confidential"], "url": row["web_url"], "created_at": second(row, "created_at"),
            "updated_at": second(row, "updated_at"), "closed_at": second(row, "closed_at"),
        },
    });
    (Told::new("Issue Hook", payload), "iid")
}

/// One that is announced for later is told when it comes.
fn releases(known: &Known<'_>, rows: Vec<Value>) -> Page {
    let span = known.span;
    let is_last = rows.last().and_then(|row| time(row, "released_at")).is_some_and(|released| released < span.fresh);
    let row = |row: Value| {
        let released = time(&row, "released_at").filter(|released| (span.fresh..=span.until).contains(released))?;
        let payload = json!({
            "object_kind": "release", "action": "create", "tag": row["tag_name"], "name": row["name"], "url": row["_links"]["self"],
            "created_at": second(&row, "created_at"), "released_at": second(&row, "released_at"), "project": about(known),
            "commit": {"id": row["commit"]["id"]},
        });
        let key = key(&[text(&row, "tag_name"), &released.to_string()]);
        Some(Row { key, told: vec![Told::new("Release Hook", payload)], asks: Vec::new() })
    };
    Page { rows: rows.into_iter().filter_map(row).collect(), is_last, ..Page::default() }
}

#[cfg(test)]
mod tests {
    use kiro_schemas::Micros;
    use serde_json::{Value, json};

    use super::{begin, merge_request, merges};
    use crate::backfill::{Known, Span};

    /// A fork that was deleted, or that was never one.
    #[test]
    fn a_branch_of_a_deleted_fork_is_not_ours() {
        let span = Span { since: Micros(0), fresh: Micros(0), until: Micros(0) };
        let source = |number: Value| {
            let row = json!({"iid": 1, "state": "opened", "source_project_id": number, "target_project_id": 15, "created_at": "2026-02-01T00:00:00Z",
                "source_branch": "fix", "updated_at": "2026-02-01T00:00:00Z"});
            let about = [("project".to_owned(), json!({"id": 15, "web_url": "https://gitlab.example/acme/shop"}))].into_iter().collect();
            let page = merges(&Known { span, about: &about, has_next: false }, vec![row]);
            let told = page.rows.into_iter().flat_map(|row| row.told).flat_map(|told| told.events(&crate::gitlab::webhook::PLATFORM));
            let attributes = told.flatten().flat_map(|event| event.attributes);
            attributes.filter(|(name, _)| name == "head_source").map(|(_, text)| text.into_owned()).collect::<Vec<_>>()
        };
        assert!(source(json!(15)).is_empty());
        assert_eq!(source(Value::Null), ["unknown", "unknown"]);
    }

    #[test]
    fn a_project_is_a_path_of_groups() {
        assert_eq!(begin("acme/web/shop").map(|ask| ask.path).as_deref(), Some("/projects/acme%2Fweb%2Fshop"));
        for text in ["", "acme", "acme/", "/shop", "acme/../user", "a?x/b", "acme/sh op", "https://gitlab.com/acme/shop"] {
            assert!(begin(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_ref_names_its_merge_request() {
        assert_eq!(merge_request("refs/merge-requests/12/head"), Some(12));
        assert_eq!(merge_request("main"), None);
    }
}
