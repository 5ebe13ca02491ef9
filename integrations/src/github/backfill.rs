//! GitHub's past: runs with all attempts and their jobs, deployments with their statuses, pull requests, incidents, releases.
//!
//! # Source
//! GitHub REST, version 2022-11-28. Runs are listed by ranges of `created`, of which at most 1,000 are given: a longer range is
//! halved. Runs may be re-run for 30 days. Its lists are read from the newest change on, so that what changes meanwhile is seen
//! twice and not missed.

use kiro_schemas::Micros;
use serde_json::{Map, Value, json};

use super::client::{headers, is_repository, reach};
use crate::backfill::{Ask, Backfill, DAY, Follow, Known, PAGE, Page, Row, Told, Without, id, key, pick, rows, stamp, text, time};

/// How GitHub's past is read.
pub(super) static BACKFILL: Backfill =
    Backfill { api: "https://api.github.com", example: "octocat/hello-world", headers, begin, read, account: &["/user"], reach };

/// Runs are asked for by ranges of so many seconds, always the same ones, so that an old range is known by its tag.
const RANGE: i64 = 8 * DAY / 1_000_000;
/// The shortest range that is halved.
const SHORTEST: i64 = 60;
/// The most rows that GitHub gives of a list with a filter.
const MOST_FILTERED: i64 = 1_000;
/// The attempts of a run that are asked for.
const MOST_ATTEMPTS: i64 = 100;

fn begin(repository: &str) -> Option<Ask> {
    is_repository(repository).then(|| Ask::new("repository", format!("/repos/{repository}"), Follow::No, Without::Nothing))
}

fn read(ask: &Ask, known: &Known<'_>, body: &[u8]) -> serde_json::Result<Page> {
    Ok(match &*ask.what {
        "repository" => repository(known, &serde_json::from_slice(body)?, &ask.path),
        "workflows" => workflows(&list(body, "workflows")?),
        "runs" => runs(ask, known, body)?,
        "attempt" => attempt(known, &serde_json::from_slice(body)?),
        "jobs" => told(known, list(body, "jobs")?, |row| ("workflow_job", json!({"action": action(row, "queued"), "workflow_job": row}))),
        "deployments" => deployments(known, rows(body)?),
        "statuses" => told(known, rows(body)?, |row| status(&ask.with, row)),
        "pull requests" => pulls(known, &rows(body)?),
        "first commit" => first_commit(ask, &rows(body)?, known),
        "pull request" => pull(ask, known, &serde_json::from_slice(body)?),
        "issues" => issues(known, rows(body)?),
        "releases" => releases(known, rows(body)?),
        _ => Page::default(),
    })
}

/// The rows of an answer that is an object; one that is gone has none.
fn list(body: &[u8], name: &str) -> serde_json::Result<Vec<Value>> {
    let mut page: Value = serde_json::from_slice(body)?;
    page.get_mut(name).map_or_else(|| Ok(Vec::new()), |rows| serde_json::from_value(rows.take()))
}

/// The path of the repository, as GitHub names it now.
fn base(known: &Known<'_>) -> String {
    let full_name = known.about.get("repository").map(|repository| text(repository, "full_name")).filter(|name| is_repository(name));
    format!("/repos/{}", full_name.unwrap_or_default())
}

/// What a webhook would have been.
fn hook(known: &Known<'_>, event: &'static str, payload: Value) -> Told {
    let mut payload = if let Value::Object(payload) = payload { payload } else { Map::new() };
    payload.insert("repository".to_owned(), known.about.get("repository").cloned().unwrap_or_default());
    Told::new(event, Value::Object(payload))
}

/// A page of which each row is a webhook.
fn told(known: &Known<'_>, rows: Vec<Value>, to_hook: impl Fn(&Value) -> (&'static str, Value)) -> Page {
    let row = |row: Value| {
        let (event, payload) = to_hook(&row);
        Row { told: vec![hook(known, event, payload)], ..Row::default() }
    };
    Page { rows: rows.into_iter().map(row).collect(), ..Page::default() }
}

/// The action of the webhook that tells of the status, which has another word for what waits.
fn action<'r>(row: &'r Value, waiting: &'r str) -> &'r str {
    match text(row, "status") {
        word @ ("completed" | "in_progress") => word,
        "waiting" if waiting == "queued" => "waiting",
        _ => waiting,
    }
}

fn repository(known: &Known<'_>, row: &Value, asked: &str) -> Page {
    let about = pick(row, &["html_url", "name", "full_name", "updated_at", "pushed_at"]);
    let full_name = Some(text(row, "full_name")).filter(|name| is_repository(name));
    let base = full_name.map_or_else(|| asked.to_owned(), |name| format!("/repos/{name}"));
    let all = |what, query: &str, without| Ask::new(what, format!("{base}/{query}"), Follow::UntilStill, without);
    let mut asks = vec![Ask::new("workflows", format!("{base}/actions/workflows?per_page={PAGE}"), Follow::Pages, Without::Gone)];
    let (first, last) = (known.span.horizon().0 / 1_000_000, known.span.until.0 / 1_000_000);
    let begins = (first.div_euclid(RANGE)..=last.div_euclid(RANGE)).map(|at| at * RANGE);
    asks.extend(begins.map(|begin| range(&base, begin, begin + RANGE - 1)));
    asks.push(all("deployments", &format!("deployments?per_page={PAGE}"), Without::Gone));
    asks.push(all("pull requests", &format!("pulls?state=all&sort=updated&direction=desc&per_page={PAGE}"), Without::Gone));
    if row.get("has_issues").and_then(Value::as_bool) != Some(false) {
        let since = stamp(known.span.fresh);
        asks.push(all("issues", &format!("issues?state=all&sort=updated&direction=desc&since={since}&per_page={PAGE}"), Without::Gone));
    }
    asks.push(all("releases", &format!("releases?per_page={PAGE}"), Without::Gone));
    Page { learnt: vec![("repository".to_owned(), about)], asks, ..Page::default() }
}

/// The names of workflows: a run says under `name` what its file may set for each run.
fn workflows(rows: &[Value]) -> Page {
    let name = |row: &Value| Some((format!("workflow {}", id(row, "id")?), Value::from(text(row, "name"))));
    Page { learnt: rows.iter().filter_map(name).collect(), ..Page::default() }
}

fn range(base: &str, from: i64, to: i64) -> Ask {
    let times = format!("{}..{}", Micros::from_seconds(from), Micros::from_seconds(to));
    let path = format!("{base}/actions/runs?created={times}&per_page={PAGE}");
    Ask::new("runs", path, Follow::UntilStill, Without::Gone).with(json!({"from": from, "to": to}))
}

fn runs(ask: &Ask, known: &Known<'_>, body: &[u8]) -> serde_json::Result<Page> {
    let page: Value = serde_json::from_slice(body)?;
    let (from, to) = (id(&ask.with, "from").unwrap_or(0), id(&ask.with, "to").unwrap_or(0));
    if id(&page, "total_count").is_some_and(|count| count > MOST_FILTERED) && to - from >= SHORTEST {
        let (base, middle) = (base(known), from + (to - from) / 2);
        return Ok(Page { asks: vec![range(&base, from, middle), range(&base, middle + 1, to)], is_replaced: true, ..Page::default() });
    }
    let rows = list(body, "workflow_runs")?;
    Ok(Page { rows: rows.iter().filter_map(|row| run(known, row)).collect(), ..Page::default() })
}

fn is_wanted(known: &Known<'_>, row: &Value, made: &str, changed: &str) -> bool {
    time(row, made).is_some_and(|made| made >= known.span.since) && time(row, changed).is_none_or(|changed| changed >= known.span.fresh)
}

fn run(known: &Known<'_>, row: &Value) -> Option<Row> {
    let number = id(row, "id").filter(|_| is_wanted(known, row, "created_at", "updated_at"))?;
    let attempt = id(row, "run_attempt").unwrap_or(1);
    let key = key(&[&number.to_string(), &attempt.to_string(), text(row, "status"), text(row, "updated_at")]);
    let base = format!("{}/actions/runs/{number}", base(known));
    let attempts =
        (1..attempt.min(MOST_ATTEMPTS + 1)).map(|n| Ask::new("attempt", format!("{base}/attempts/{n}"), Follow::No, Without::Gone));
    let jobs = Ask::new("jobs", format!("{base}/jobs?filter=all&per_page={PAGE}"), Follow::Pages, Without::Gone);
    let asks = attempts.chain([jobs]).collect();
    Some(Row { key, told: vec![run_hook(known, row)], asks })
}

fn run_hook(known: &Known<'_>, row: &Value) -> Told {
    let name = id(row, "workflow_id").and_then(|id| known.about.get(&format!("workflow {id}")));
    let action = action(row, "requested");
    hook(known, "workflow_run", json!({"action": action, "workflow": {"name": name}, "workflow_run": row}))
}

fn attempt(known: &Known<'_>, row: &Value) -> Page {
    let told = (!row.is_null()).then(|| run_hook(known, row));
    Page { rows: vec![Row { told: told.into_iter().collect(), ..Row::default() }], ..Page::default() }
}

fn deployments(known: &Known<'_>, rows: Vec<Value>) -> Page {
    // The newest come first, and old ones do not change any more.
    let is_last = rows.last().and_then(|row| time(row, "created_at")).is_some_and(|made| made < known.span.horizon());
    let row = |row: Value| {
        let number = id(&row, "id").filter(|_| is_wanted(known, &row, "created_at", "updated_at"))?;
        let kept = ["id", "sha", "ref", "task", "environment", "production_environment", "created_at"];
        let mut deployment = pick(&row, &kept);
        deployment["creator"] = pick(row.get("creator").unwrap_or(&Value::Null), &["login"]);
        let path = format!("{}/deployments/{number}/statuses?per_page={PAGE}", base(known));
        let statuses = Ask::new("statuses", path, Follow::Pages, Without::Gone).with(deployment.clone());
        let told = vec![hook(known, "deployment", json!({ "deployment": deployment }))];
        Some(Row { key: key(&[&number.to_string(), text(&row, "updated_at")]), told, asks: vec![statuses] })
    };
    Page { rows: rows.into_iter().filter_map(row).collect(), is_last, ..Page::default() }
}

/// A status names the run that made it in the address of its log.
fn status(deployment: &Value, row: &Value) -> (&'static str, Value) {
    let run = ["log_url", "target_url"].iter().find_map(|name| run_of(text(row, name)));
    ("deployment_status", json!({"deployment": deployment, "deployment_status": row, "workflow_run": run.map(|id| json!({ "id": id }))}))
}

/// `https://github.com/acme/shop/actions/runs/123/job/456`.
fn run_of(address: &str) -> Option<i64> {
    address.split_once("/actions/runs/")?.1.split('/').next()?.parse().ok()
}

fn pulls(known: &Known<'_>, rows: &[Value]) -> Page {
    let is_last = rows.last().and_then(|row| time(row, "updated_at")).is_some_and(|changed| changed < known.span.fresh);
    let row = |row: &Value| {
        let number = id(row, "number").filter(|_| time(row, "updated_at").is_some_and(|changed| changed >= known.span.fresh))?;
        let path = format!("{}/pulls/{number}", base(known));
        let whole = Ask::new("pull request", path.clone(), Follow::No, Without::Gone);
        let commits = Ask::new("first commit", format!("{path}/commits?per_page=1"), Follow::No, Without::Gone);
        let is_merged = time(row, "merged_at").is_some();
        let ask = if is_merged { commits.with(json!({ "number": number })) } else { whole };
        Some(Row { key: key(&[&number.to_string(), text(row, "updated_at")]), told: Vec::new(), asks: vec![ask] })
    };
    Page { rows: rows.iter().filter_map(row).collect(), is_last, ..Page::default() }
}

/// The commits of a pull request are told from the first on.
fn first_commit(ask: &Ask, rows: &[Value], known: &Known<'_>) -> Page {
    let written = rows.first().and_then(|row| row.pointer("/commit/author/date")).and_then(Value::as_str);
    let path = format!("{}/pulls/{}", base(known), id(&ask.with, "number").unwrap_or(0));
    let whole = Ask::new("pull request", path, Follow::No, Without::Gone).with(json!({ "first_commit_at": written }));
    Page { asks: vec![whole], ..Page::default() }
}

fn pull(ask: &Ask, known: &Known<'_>, row: &Value) -> Page {
    if row.is_null() {
        return Page::default();
    }
    // One that is open was opened under another title, perhaps: it is told as it is.
    let action = if text(row, "state") == "closed" { "closed" } else { "edited" };
    let mut told = hook(known, "pull_request", json!({"action": action, "pull_request": row}));
    told.notes.extend(time(&ask.with, "first_commit_at").map(|time| ("first_commit_at", time.to_string())));
    Page { rows: vec![Row { told: vec![told], ..Row::default() }], ..Page::default() }
}

/// Pull requests are issues, too: these are told elsewhere.
fn issues(known: &Known<'_>, rows: Vec<Value>) -> Page {
    let row = |row: Value| {
        let key = key(&[&id(&row, "number")?.to_string(), text(&row, "updated_at")]);
        let action = if text(&row, "state") == "closed" { "closed" } else { "opened" };
        row.get("pull_request").is_none().then(|| Row {
            key,
            told: vec![hook(known, "issues", json!({"action": action, "issue": row}))],
            asks: Vec::new(),
        })
    };
    Page { rows: rows.into_iter().filter_map(row).collect(), ..Page::default() }
}

fn releases(known: &Known<'_>, rows: Vec<Value>) -> Page {
    let row = |row: Value| {
        let published = time(&row, "published_at").filter(|published| *published >= known.span.fresh)?;
        let (key, author) = (key(&[text(&row, "tag_name"), &published.to_string()]), row.get("author").cloned());
        Some(Row {
            key,
            told: vec![hook(known, "release", json!({"action": "published", "release": row, "sender": author}))],
            asks: Vec::new(),
        })
    };
    Page { rows: rows.into_iter().filter_map(row).collect(), ..Page::default() }
}

#[cfg(test)]
mod tests {
    use super::{begin, run_of};

    #[test]
    fn a_repository_is_owner_and_name() {
        assert_eq!(begin("acme/shop.js").map(|ask| ask.path).as_deref(), Some("/repos/acme/shop.js"));
        for text in
            ["", "acme", "acme/", "/shop", "acme/shop/x", "acme/..", "../user", "a?x/b", "acme/sh op", "https://github.com/acme/shop"]
        {
            assert!(begin(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_log_names_its_run() {
        assert_eq!(run_of("https://github.com/acme/shop/actions/runs/123/job/456"), Some(123));
        assert_eq!(run_of("https://github.com/acme/shop/actions/runs/123"), Some(123));
        assert_eq!(run_of("https://ci.acme.example/7"), None);
    }
}
