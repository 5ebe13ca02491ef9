//! The fixtures of Apache DevLake, and the numbers that its tables and dashboards make of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiro_ports::Folding as _;
use kiro_schemas::{Event, Micros, Subject, Transition, Value};
use serde_json::json;

use super::{Current, NOW, apply, folds, settings, take};
use crate::Shard;

type Records = Vec<BTreeMap<String, String>>;

fn read(name: &str) -> Records {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/devlake").join(name);
    let mut reader =
        csv::Reader::from_path(&path).unwrap_or_else(|error| panic!("DevLake's fixture {} is needed: {error}", path.display()));
    let records: Records = reader.deserialize().map(|record| record.expect("a record")).collect();
    assert!(!records.is_empty(), "{} is empty", path.display());
    records
}

/// `2023-4-11 4:51:47`, or RFC 3339.
fn time(text: &str) -> Option<Micros> {
    if text.is_empty() || text.contains('T') {
        return Micros::parse(text);
    }
    let numbers: Vec<u32> = text.split(['-', ' ', ':']).map(|n| n.parse().expect("a number")).collect();
    let [year, month, day, hour, minute, second] = numbers[..] else { panic!("{text:?} is no time") };
    Micros::parse(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

fn deployment(source: &str, id: &str, at: Micros, result: &str, environment: &str) -> Event<'static> {
    let mut event = Event::new(Subject::Deployment, Transition::Finished, source.to_owned(), id.to_owned(), at);
    event.set_text("environment", Some(environment.to_owned()).filter(|text| !text.is_empty()));
    event.set("finished_at", Value::Time(at));
    event.set("status", Value::text(result.to_owned()));
    event
}

fn current(events: &[Event<'_>]) -> Current {
    let mut fold = folds(&settings(&json!({"variants": ["devlake"], "keep_days": 3_000})), Shard::default());
    apply(&mut fold, events);
    let mut current = Current::new();
    take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    current
}

/// The deployments of project1 with the commits that DevLake's diffs say they brought.
fn lead_time_deployments() -> Vec<Event<'static>> {
    let (deployments, diffs) = (read("change_lead_time/cicd_deployment_commits.csv"), read("change_lead_time/commits_diffs.csv"));
    let sha_of = |id: &str| deployments.iter().find(|d| d["id"] == id).map(|d| d["commit_sha"].clone());
    let ours = deployments.iter().filter(|d| ["cicd1", "cicd2"].contains(&&*d["cicd_scope_id"]));
    let events = ours.map(|d| {
        let mut event = deployment("project1", &d["id"], time(&d["finished_date"]).expect("a time"), &d["result"], &d["environment"]);
        // DevLake keeps the difference between a deployment and the successful one before it; the first has none.
        let before = sha_of(&d["prev_success_deployment_commit_id"]);
        let brought: Vec<_> = diffs
            .iter()
            .filter(|diff| before.as_ref() == Some(&diff["old_commit_sha"]) && diff["new_commit_sha"] == d["commit_sha"])
            .map(|diff| diff["commit_sha"].clone())
            .collect();
        if !brought.is_empty() {
            event.attributes.push(("commits".into(), brought.join(" ").into()));
        }
        event
    });
    events.collect()
}

fn lead_time_changes() -> Vec<Event<'static>> {
    let commits = read("change_lead_time/pull_request_commits.csv");
    let changes = read("change_lead_time/pull_requests.csv").into_iter().map(|pull| {
        let first = commits.iter().filter(|c| c["pull_request_id"] == pull["id"]).filter_map(|c| time(&c["commit_authored_date"])).min();
        let created = time(&pull["created_date"]).expect("a time");
        let merged = time(&pull["merged_date"]);
        let transition = if merged.is_some() { Transition::Merged } else { Transition::Created };
        let mut event = Event::new(Subject::Change, transition, "project1", pull["id"].clone(), merged.unwrap_or(created));
        event.set("created_at", Value::Time(created));
        if let Some(merged) = merged {
            event.set("merged_at", Value::Time(merged));
            event.set_text("merge_commit_sha", Some(pull["merge_commit_sha"].clone()));
        }
        event.attributes.extend(first.map(|first| ("first_commit_at".into(), first.to_string().into())));
        event
    });
    changes.collect()
}

#[test]
fn each_change_takes_as_long_as_devlake_says() {
    let (deployments, changes, expected) = (lead_time_deployments(), lead_time_changes(), read("change_lead_time/project_pr_metrics.csv"));
    let mut deployed = 0;
    for metrics in &expected {
        let change = changes.iter().find(|c| c.subject_id == metrics["id"]).expect("the change");
        let events: Vec<_> = deployments.iter().chain([change]).cloned().collect();
        let current = current(&events);
        let rows = current
            .values()
            .map(|(_, row)| row)
            .filter(|row| row["period"] == "month" && row["environment"] == "production" && row["changes"] != "0");
        let found: Vec<_> =
            rows.map(|row| [&row["changes"], &row["lead_time_p50_ms"], &row["deploy_time_p50_ms"]].map(Clone::clone)).collect();
        let ms = |name: &str| metrics[name].parse::<i64>().map_or("null".to_owned(), |minutes| (minutes * 60_000).to_string());
        let is_deployed = !metrics["deployment_commit_id"].is_empty();
        deployed += usize::from(is_deployed);
        let wanted = is_deployed.then(|| ["1".to_owned(), ms("pr_cycle_time"), ms("pr_deploy_time")]);
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "{}", metrics["id"]);
    }
    assert_eq!((expected.len(), deployed), (6, 3));
}

#[test]
fn the_month_of_the_lead_times_has_devlakes_median() {
    let events: Vec<_> = lead_time_deployments().into_iter().chain(lead_time_changes()).collect();
    let current = current(&events);
    let (_, row) = current.values().find(|(_, row)| row["period"] == "month" && row["environment"] == "production").expect("the month");
    // 4478, 1598 and 10203 minutes: the greatest whose percent_rank is at most 0.5.
    assert_eq!([&row["changes"], &row["lead_time_p50_ms"]], ["3", &(4478 * 60_000).to_string()]);
    assert_eq!([&row["deployments"], &row["deployment_days"], &row["failed_attempts"]], ["10", "2", "1"]);
    assert_eq!([&row["reworks"], &row["rework_ratio"]], ["null", "null"], "DevLake 1.0.3 has no rework rate");
}

#[test]
fn the_deployment_before_is_devlakes() {
    let records = read("prev_success_deployment_commit/cicd_deployment_commits_after.csv");
    let mut fold = folds(&settings(&json!({"keep_days": 3_000})), Shard::default());
    let events = records.iter().map(|d| {
        let source = format!("{}/{}", d["cicd_scope_id"], d["repo_url"]);
        deployment(&source, &d["id"], time(&d["finished_date"]).expect("a time"), &d["result"], &d["environment"])
    });
    apply(&mut fold, &events.collect::<Vec<_>>());
    let mut looked_at = 0;
    for record in &records {
        let units = &fold.dora().state.units;
        let found = units.iter().find_map(|unit| unit.deployments.keys().find(|at| *at.1.id == *record["id"]).map(|at| (unit, at)));
        let Some((unit, at)) = found else {
            assert_eq!(record["environment"], "", "only what has no environment is not there");
            continue;
        };
        let before = unit.successes_before(at.0).next().filter(|_| record["result"] == "SUCCESS").map_or("", |(at, _)| &*at.1.id);
        assert_eq!(before, record["prev_success_deployment_commit_id"], "before {}", record["id"]);
        looked_at += 1;
    }
    assert_eq!(looked_at, 15);
}

#[test]
fn failures_and_recoveries_are_devlakes() {
    let (mapping, boards) = (read("raw_tables/project_mapping.csv"), read("raw_tables/board_issues.csv"));
    let is_ours =
        |table: &str, id: &str| mapping.iter().any(|m| m["project_name"] == "project1" && m["table"] == table && m["row_id"] == id);
    let tasks = read("raw_tables/cicd_tasks.csv")
        .into_iter()
        .filter(|task| task["type"] == "DEPLOYMENT" && is_ours("cicd_scopes", &task["cicd_scope_id"]));
    let deployments = tasks
        .filter_map(|task| Some(deployment("project1", &task["id"], time(&task["finished_date"])?, &task["result"], &task["environment"])));
    let issues = read("raw_tables/issues.csv").into_iter().filter(|issue| {
        let is_on = |board: &&BTreeMap<String, String>| board["issue_id"] == issue["id"] && is_ours("boards", &board["board_id"]);
        issue["type"] == "INCIDENT" && boards.iter().any(|board| is_on(&board))
    });
    let incidents = issues.map(|issue| {
        let end = time(&issue["updated_date"]).expect("a time");
        let mut event = Event::new(Subject::Incident, Transition::Resolved, "project1", issue["id"].clone(), end);
        event.set("detected_at", Value::Time(time(&issue["created_date"]).expect("a time")));
        event.set("resolved_at", Value::Time(end));
        event
    });
    let current = current(&deployments.chain(incidents).collect::<Vec<_>>());
    let (_, row) = current.values().find(|(_, row)| row["period"] == "month" && row["environment"] == "production").expect("the month");
    // Four of seven deployments have an incident; they were over after 1, 1, 2 and 2 days.
    let names = ["deployments", "failed_attempts", "change_failures", "recoveries", "recovery_p50_ms", "recovery_band"];
    assert_eq!(names.map(|name| row[name].as_str()), ["7", "1", "4", "4", "86400000", "medium"]);
    assert_eq!(row["change_fail_ratio"], (4.0 / 7.0).to_string());
}
