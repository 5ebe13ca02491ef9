//! From the webhooks of a platform to DORA's metrics: what runs is followed by a merged change, which breaks something and is mended.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{SECRET, payload};
use crate::github::Hook;
use crate::http;
use crate::server::{OPEN, Server, directory};

/// An issue is an incident by a label that the defaults do not know, or by its type.
const RULES: &str = "delivery: {incidents: [{label: sev1}, {type: incident}]}\n";

/// A payload of GitHub's, of another year.
fn of_github(name: &str) -> Result<Value> {
    let text = String::from_utf8(payload(&format!("github/{name}.own.json"))?)?;
    Ok(serde_json::from_str(&text.replace("2019-05-14", "2026-02-01").replace("2019-05-15", "2026-02-02"))?)
}

/// After another deployment a change is pushed to its branch and merged, deployed for ten minutes, and an incident lasts from half past until ten past.
fn github(server: &Server) -> Result<()> {
    let merged = of_github("pull_request.merged")?;
    let (repository, sha) = (merged["repository"].clone(), merged["pull_request"]["merge_commit_sha"].clone());
    let before =
        json!({"id": 6, "sha": "a".repeat(40), "ref": "master", "environment": "production", "created_at": "2026-02-01T05:00:00Z"});
    let was_well = json!({"state": "success", "environment": "production", "created_at": "2026-02-01T05:10:00Z"});
    let deployment = json!({"id": 7, "sha": sha, "ref": "master", "environment": "production", "created_at": "2026-02-02T16:00:00Z"});
    let status = json!({"state": "success", "environment": "production", "created_at": "2026-02-02T16:10:00Z"});
    let issue = |number: i64, label: &str, action: &str, state: &str, closed_at: Option<&str>| {
        let issue = json!({
            "number": number, "title": "Nobody can pay", "state": state, "labels": [{"name": label}], "created_at": "2026-02-02T16:30:00Z",
            "updated_at": closed_at.unwrap_or("2026-02-02T16:30:00Z"), "closed_at": closed_at,
        });
        json!({"action": action, "repository": repository, "issue": issue})
    };
    let told = [
        ("deployment_status", json!({"repository": repository, "deployment": before, "deployment_status": was_well})),
        ("push", of_github("push.branch")?),
        ("push", of_github("push.merge")?),
        ("pull_request", merged.clone()),
        ("deployment", json!({"repository": repository, "deployment": deployment})),
        ("deployment_status", json!({"repository": repository, "deployment": deployment, "deployment_status": status})),
        ("issues", issue(9, "sev1", "opened", "open", None)),
        ("issues", issue(10, "question", "opened", "open", None)),
        ("issues", issue(9, "sev1", "closed", "closed", Some("2026-02-02T17:10:00Z"))),
    ];
    for (at, (event, body)) in told.iter().enumerate() {
        let taken = Hook::new(event, body).deliver(server.http, &format!("d-{at}"), SECRET)?;
        ensure!(taken.status == 202, "{event}: {taken:?}");
    }
    Ok(())
}

/// The same at GitLab, by its own payloads.
fn gitlab(server: &Server) -> Result<()> {
    let deployed = String::from_utf8(payload("gitlab/Deployment-Hook.failed.own.json")?)?;
    let deployed = deployed.replace("\"failed\"", "\"success\"");
    let before = deployed.replace("2293ada6", "1111ada6").replace("2026-02-03", "2026-02-01").replace(": 15,", ": 14,");
    ensure!(before != deployed && before.contains(": 14,"), "{before}");
    let told = [
        ("Deployment Hook", before.into_bytes()),
        ("Push Hook", payload("gitlab/Push-Hook.branch.own.json")?),
        ("Push Hook", payload("gitlab/Push-Hook.merge.own.json")?),
        ("Merge Request Hook", payload("gitlab/Merge-Request-Hook.merged.own.json")?),
        ("Deployment Hook", payload("gitlab/Deployment-Hook.created.own.json")?),
        ("Deployment Hook", deployed.into_bytes()),
        ("Issue Hook", payload("gitlab/Issue-Hook.incident-opened.own.json")?),
        ("Issue Hook", payload("gitlab/Issue-Hook.issue-event.json")?),
        ("Issue Hook", payload("gitlab/Issue-Hook.incident-closed.own.json")?),
    ];
    for (at, (event, body)) in told.iter().enumerate() {
        let key = format!("g-{at}");
        let headers =
            [("content-type", "application/json"), ("x-gitlab-event", event), ("idempotency-key", &key), ("x-gitlab-token", SECRET)];
        let taken = http::must(server.http, "POST /webhooks/gitlab", &headers, body)?;
        ensure!(taken.status == 202, "{event}: {taken:?}");
    }
    Ok(())
}

#[test]
fn what_platforms_tell_gives_the_metrics_of_dora() -> Result<()> {
    let secret = directory("delivered_secrets")?.join("secret");
    std::fs::write(&secret, SECRET)?;
    let file = format!("{{secret_file: {}}}", secret.display());
    let server = Server::start("delivered", &format!("{OPEN}{RULES}sources: {{github: {file}, gitlab: {file}}}\n"))?;
    github(&server)?;
    gitlab(&server)?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;

    let incidents = server.rows("SELECT incident_id FROM incidents ORDER BY incident_id")?;
    ensure!(incidents.iter().map(|row| row["incident_id"].as_str()).eq([Some("23"), Some("9")]), "{incidents:?}");
    let rows = server.rows(
        "SELECT service, deployments, changes, lead_time_p50_ms, change_failures, recoveries, recovery_p50_ms, evidence FROM dora \
         WHERE period = 'day' AND environment = 'production' AND variant = 'kirolinter' AND deployments > 0 \
         AND period_start >= '2026-02-02' ORDER BY service",
    )?;
    ensure!(rows.len() == 2, "{rows:#?}");
    // From the first commit of the change to the end of the deployment, and from there to the end of the incident, in milliseconds.
    let expected = [("Hello-World", 119_400_000.0, 3_600_000.0), ("shop", 158_490_000.0, 2_310_000.0)];
    for (row, (service, lead, recovery)) in rows.iter().zip(expected) {
        ensure!(row["service"] == service && row["deployments"] == 1 && row["changes"] == 1, "{row:#}");
        ensure!(row["lead_time_p50_ms"] == lead && row["change_failures"] == 1, "{row:#}");
        ensure!(row["recoveries"] == 1 && row["recovery_p50_ms"] == recovery, "{row:#}");
        ensure!(row["evidence"].as_str().context("no evidence")?.len() > 2, "{row:#}");
    }
    Ok(())
}
