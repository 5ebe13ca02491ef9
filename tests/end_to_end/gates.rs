//! Gates and risks: the answer, its exit code, and what can be asked about it afterwards.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::history::{native, runs};
use crate::server::{OPEN, Server, wait_for};

const GATES: &str = r#"
version: 1
gates:
  - name: deploy
    type: pre-deploy
    criteria:
      - name: failures
        key: true
        sql: "SELECT avg(CASE WHEN outcome = 'failure' THEN 1.0 ELSE 0.0 END) AS value, count(*) AS n FROM pipeline_runs WHERE pipeline = $1 AND branch = $2"
        parameters: [pipeline, branch]
        pass: ["<= 0.5"]
        min_samples: 5
  - name: strict
    type: pre-merge
    criteria:
      - name: failures
        key: true
        sql: "SELECT count(*) AS value, count(*) AS n FROM pipeline_runs WHERE outcome = 'failure'"
        pass: ["= 0"]
  - name: odds
    type: post-deploy
    criteria:
      - {name: odds, risk: true, pass: ["< 0.9"]}
"#;

fn decided(server: &Server, arguments: &[&str], code: i32) -> Result<Value> {
    let answer = server.ask(arguments)?;
    ensure!(answer.code == Some(code), "exit code {code} was expected: {answer:?}");
    answer.json()
}

#[test]
fn a_gate_answers_and_its_decision_can_be_queried() -> Result<()> {
    let dir = crate::server::directory("gates_file")?;
    std::fs::write(dir.join("quality_gates.yaml"), GATES)?;
    let server = Server::start("gates", &format!("{OPEN}gates_file: {}\n", dir.join("quality_gates.yaml").display()))?;
    let lines: Vec<String> = runs().iter().flat_map(native).collect();
    server.send("events.ndjson", "application/x-ndjson", &lines.join("\n"))?;

    let deploy = ["gate", "--type=pre-deploy", "-p", "pipeline=build", "--exit-code", "-p"];
    let passed = decided(&server, &[&deploy[..], &["branch=main"]].concat(), 0)?;
    ensure!(passed["status"] == "passed" && passed["verdict"] == "passed", "{passed}");
    let unknown = decided(&server, &[&deploy[..], &["branch=nowhere"]].concat(), 3)?;
    ensure!(unknown["verdict"] == "inconclusive" && unknown["status"] == "failed", "{unknown}");
    let failed = decided(&server, &["devops", "gate", "--gate", "strict", "--exit-code"], 1)?;
    ensure!(failed["status"] == "failed" && failed["verdict"] == "failed", "{failed}");
    ensure!(failed["criteria"][0]["sample_size"].as_i64().is_some_and(|n| n > 0), "the evidence is missing: {failed}");
    decided(&server, &["gate", "--gate", "strict"], 0)?;

    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let id = passed["decision_id"].as_str().unwrap_or_default();
    let kept = server.rows(&format!("SELECT gate, gate_type, verdict, status, actor FROM gate_decisions WHERE decision_id = '{id}'"))?;
    ensure!(kept.len() == 1 && kept[0]["gate"] == "deploy" && kept[0]["verdict"] == "passed", "{kept:?}");
    let audit = server.rows("SELECT object, count(*) AS n FROM audit_log WHERE action = 'gate.evaluate' GROUP BY 1 ORDER BY 1")?;
    ensure!(audit.len() == 2 && audit[0]["n"] == 2 && audit[1]["n"] == 2, "{audit:?}");

    let risk = ["risk", "--source", "https://ci.example/acme/shop", "--pipeline", "build"];
    let answer = wait_for("a model", 30, || {
        let answer = server.ask(&risk)?;
        Ok((answer.code == Some(0)).then_some(answer))
    })?;
    let risk = answer.json()?;
    let score = risk["overall_risk_score"].as_f64().unwrap_or(f64::NAN);
    ensure!((0.0..=1.0).contains(&score) && risk["confidence_level"].is_string() && risk["served_by"].is_string(), "{risk}");
    let odds = ["gate", "--gate", "odds", "--source", "https://ci.example/acme/shop", "--pipeline", "build", "--exit-code"];
    let odds = decided(&server, &odds, 0)?;
    ensure!(odds["criteria"][0]["value"].as_f64().is_some_and(|value| (value - score).abs() < 0.05), "{odds} differs from {risk}");
    Ok(())
}

#[test]
fn one_idempotency_key_is_one_decision() -> Result<()> {
    let dir = crate::server::directory("gate_keys_file")?;
    std::fs::write(dir.join("quality_gates.yaml"), GATES)?;
    let server = Server::start("gate_keys", &format!("{OPEN}gates_file: {}\n", dir.join("quality_gates.yaml").display()))?;
    let ask = ["gate", "--gate", "strict", "--idempotency-key", "build-17"];
    let (first, second) = (server.must(&ask)?, server.must(&ask)?);
    ensure!(first["decision_id"] == second["decision_id"], "{first} and {second}");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let kept = server.rows("SELECT decision_id, count(*) AS n FROM gate_decisions GROUP BY 1")?;
    ensure!(kept.len() == 1, "{kept:?}");
    Ok(())
}
