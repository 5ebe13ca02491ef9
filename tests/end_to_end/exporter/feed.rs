//! Data as of a busy week, and traffic that moves every metric.

use anyhow::{Result, ensure};
use hmac::{Hmac, Mac as _};
use kiro_ports::{Clock as _, SystemClock};
use kiro_schemas::Micros;
use serde_json::json;
use sha2::Sha256;

use crate::http;
use crate::server::{Server, wait_for};

pub(super) const SECRET: &str = "a secret of the webhook";

pub(super) const GATES: &str = r#"
version: 1
gates:
  - name: deploy
    type: pre-deploy
    criteria:
      - name: failures
        key: true
        sql: "SELECT avg(CASE WHEN outcome = 'failure' THEN 1.0 ELSE 0.0 END) AS value, count(*) AS n FROM pipeline_runs WHERE pipeline = $1"
        parameters: [pipeline]
        pass: ["<= 0.9"]
        min_samples: 5
      - {name: odds, risk: true, pass: ["< 0.99"]}
  - name: strict
    type: pre-merge
    criteria:
      - name: failures
        key: true
        sql: "SELECT count(*) AS value, count(*) AS n FROM pipeline_runs WHERE outcome = 'failure'"
        pass: ["= 0"]
"#;

/// Runs of the last days; enough of them for a model to be judged.
const RUNS: i64 = 280;
const MINUTE: i64 = 60_000_000;

/// Sends them, and has a model trained and judged on them.
pub(super) fn history(server: &Server) -> Result<()> {
    let now = SystemClock.now();
    let event = |at: i64| {
        let end = now.plus(-(RUNS - at) * 30 * MINUTE);
        let event = json!({
            "subject": "pipeline_run", "transition": "finished", "subject_id": format!("run-{at}"), "time": end.to_string(),
            "source": format!("https://ci.example/acme/{}", if at % 3 == 0 { "shop" } else { "api" }),
            "fields": {
                "pipeline": if at % 4 < 2 { "build" } else { "deploy" }, "branch": "main",
                "outcome": if at / 5 % 3 == 0 { "failure" } else { "success" },
                "started_at": end.plus(-(2 + at % 9) * MINUTE).to_string(), "queued_at": end.plus(-(3 + at % 9) * MINUTE).to_string(),
            },
        });
        event.to_string()
    };
    let lines: Vec<String> = (0..RUNS).map(event).chain(deliveries(now)).collect();
    // Twice: repeats are counted.
    for _ in 0..2 {
        server.send("history.ndjson", "application/x-ndjson", &lines.join("\n"))?;
    }
    let judged = server.must(&["models", "evaluate"])?;
    ensure!(judged["examples"].as_i64() >= Some(200), "{judged}");
    Ok(())
}

/// A deployment a day, the last of which had an incident.
fn deliveries(now: Micros) -> impl Iterator<Item = String> {
    let source = "https://ci.example/acme/shop";
    let deployments = (0..5).map(move |day| {
        json!({
            "subject": "deployment", "transition": "finished", "subject_id": format!("deployment-{day}"), "source": source,
            "time": now.plus(-(day * 24 * 60 + 5) * MINUTE).to_string(),
            "fields": {"environment": "production", "service": "shop", "outcome": "success"},
        })
    });
    let incident = json!({
        "subject": "incident", "transition": "detected", "subject_id": "incident-1", "source": "https://pager.example/acme",
        "time": now.plus(-2 * MINUTE).to_string(), "fields": {"service": "shop"},
    });
    deployments.chain([incident]).map(|event| event.to_string())
}

/// Decisions, assessments, events, and a webhook that cannot be decoded.
pub(super) fn traffic(server: &Server, round: usize) -> Result<()> {
    let source = "https://ci.example/acme/shop";
    server.must(&["risk", "--source", source, "--pipeline", "build"])?;
    server.must(&["gate", "--gate", "deploy", "-p", "pipeline=build", "--source", source, "--pipeline", "build"])?;
    server.must(&["gate", "--gate", "strict"])?;
    ensure!(server.ask(&["gate", "--gate", "nowhere"])?.code == Some(2), "an unknown gate is decided");
    let body = format!("no JSON at all {round}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", "workflow_run"),
        ("x-github-delivery", &format!("delivery-{round}")),
        ("x-hub-signature-256", &signature),
    ];
    let reply = http::must(server.http, "POST /webhooks/github", &headers, body.as_bytes())?;
    ensure!(reply.status == 202, "{reply:?}");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    wait_for("the dead letter", 10, || {
        let letters = server.rows("SELECT reason FROM dead_letters")?;
        Ok((letters.len() >= round).then_some(()))
    })
}
