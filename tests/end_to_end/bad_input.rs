//! What is wrong is refused, and the refusal says what and where.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bad_start::refused_start;
use crate::server::{Answer, OPEN, Server, free_port, wait_for};

const GOOD: &str = r#"{"subject":"pipeline_run","transition":"finished","source":"https://ci/a","subject_id":"1","time":"2026-03-01T00:00:00Z","fields":{"pipeline":"ci","outcome":"success"}}"#;

fn refused(answer: &Answer, words: &[&str]) -> Result<()> {
    ensure!(answer.code == Some(2), "exit code 2 was expected: {answer:?}");
    for word in words {
        ensure!(answer.err.contains(word), "{word:?} is not named: {answer:?}");
    }
    ensure!(answer.out.is_empty(), "a refusal prints nothing to be read as an answer: {answer:?}");
    Ok(())
}

#[test]
fn a_bad_request_names_what_is_wrong() -> Result<()> {
    let server = Server::start("bad_input", OPEN)?;
    let bad = format!("{GOOD}\n{}\n", GOOD.replace("pipeline\"", "pipelin\""));
    std::fs::write(server.dir.join("bad.ndjson"), bad)?;
    refused(&server.ask(&["events", "send", "bad.ndjson"])?, &["event 2", "pipelin", "422"])?;
    ensure!(server.rows("SELECT * FROM pipeline_runs_events")?.is_empty(), "a part of a refused post was taken");
    std::fs::write(server.dir.join("broken.ndjson"), format!("{GOOD}\n{{\"subject\":\n"))?;
    refused(&server.ask(&["events", "send", "broken.ndjson"])?, &["422"])?;
    refused(&server.ask(&["gate", "--gate", "nowhere"])?, &["nowhere", "404"])?;
    refused(&server.ask(&["gate"])?, &["a gate or a type is needed"])?;
    refused(&server.ask(&["query", "SELECT nothing FROM pipeline_runs"])?, &["nothing"])?;
    refused(&server.ask(&["query", "DROP TABLE pipeline_runs"])?, &["HTTP 4"])?;
    refused(&server.ask(&["token", "create", "x", "--role", "king"])?, &["king"])?;
    refused(&server.ask(&["events", "send", "nowhere.ndjson"])?, &["nowhere.ndjson"])?;
    std::fs::write(server.dir.join("a.csv"), "a\n1\n")?;
    std::fs::write(server.dir.join("m.yaml"), "version: 1\nevents:\n  - {subject: pipe, transition: finished, fields: {}}\n")?;
    refused(&server.ask(&["import", "a.csv", "--mapping", "m.yaml"])?, &["pipe"])
}

#[test]
fn a_token_opens_its_own_tenant_only() -> Result<()> {
    let mut server = Server::start("tokens", OPEN)?;
    server.send("one.ndjson", "application/x-ndjson", GOOD)?;
    let token = |name: &str, role: &str, tenant: &str| -> Result<String> {
        let answer = server.must(&["token", "create", name, "--role", role, "--tenant", tenant])?;
        Ok(answer["token"].as_str().context("no token")?.to_owned())
    };
    let (own, other, writer) = (token("own", "viewer", "default")?, token("other", "viewer", "b")?, token("writer", "ingest", "b")?);
    std::fs::write(server.dir.join("kirolinter.yaml"), OPEN.replace("true", "false"))?;
    server.stop()?;
    server.up()?;

    let sql = "SELECT tenant, run_id FROM pipeline_runs";
    let rows = |token: &str, sql: &str| -> Result<usize> {
        let answer = server.ask_as(Some(token), &["query", sql])?;
        ensure!(answer.code == Some(0), "{answer:?}");
        Ok(answer.json()?["rows"].as_array().map_or(0, Vec::len))
    };
    refused(&server.ask(&["query", sql])?, &["401"])?;
    refused(&server.ask_as(Some("kiro_wrong"), &["query", sql])?, &["401", "token"])?;
    ensure!(rows(&own, sql)? == 1, "the own tenant's run is not seen");
    for sql in [sql, "SELECT * FROM pipeline_runs_events", "SELECT * FROM pipeline_health", "SELECT * FROM audit_log WHERE tenant <> 'b'"] {
        ensure!(rows(&other, sql)? == 0, "{sql} shows another tenant's rows");
    }
    std::fs::write(server.dir.join("two.ndjson"), GOOD.replace("\"1\"", "\"2\""))?;
    refused(&server.ask_as(Some(&other), &["events", "send", "two.ndjson"])?, &["403"])?;
    refused(&server.ask_as(Some(&writer), &["query", sql])?, &["403"])?;
    let sent = server.ask_as(Some(&writer), &["events", "send", "two.ndjson"])?;
    ensure!(sent.code == Some(0), "{sent:?}");
    wait_for("the run of tenant b", 10, || Ok((rows(&other, sql)? == 1).then_some(())))?;
    ensure!(rows(&own, sql)? == 1, "a run of tenant b is seen by tenant default");
    let audit: Vec<Value> = {
        let answer = server.ask_as(Some(&other), &["query", "SELECT actor, result FROM audit_log WHERE result = 'refused'"])?;
        answer.json()?["rows"].as_array().cloned().unwrap_or_default()
    };
    ensure!(audit.iter().any(|row| row["actor"] == "other"), "the refusal is not in the audit log: {audit:?}");
    Ok(())
}

#[test]
fn a_second_server_says_why_it_does_not_start() -> Result<()> {
    let server = Server::start("second", OPEN)?;
    let other = server.dir.join("other");
    let ended = |data: &std::path::Path, http: u16| refused_start(server.command(data, http, free_port()?)?);
    let answer = ended(&other, server.http)?;
    ensure!(answer.err.contains("cannot listen at") && answer.err.contains(&server.http.to_string()), "{answer:?}");
    let answer = ended(&server.data(), free_port()?)?;
    ensure!(answer.err.contains("data") && (answer.err.contains("in use") || answer.err.contains("another process")), "{answer:?}");
    std::fs::write(server.dir.join("kirolinter.yaml"), "http: {listen: 0.0.0.0:1}\nauth: {loopback_opne: true}\n")?;
    ensure!(ended(&other, free_port()?)?.err.contains("loopback_opne"), "an unknown key is not named");
    ensure!(server.rows("SELECT 1 AS one")?.len() == 1, "the first server is no longer well");
    Ok(())
}

#[test]
fn listening_beyond_loopback_needs_tls() -> Result<()> {
    let dir = crate::server::directory("beyond")?;
    let data = dir.join("data");
    let mut command = std::process::Command::new(crate::server::program("kirolinterd")?);
    command.current_dir(&dir).args(["up", "--http", "0.0.0.0:18080", "--pg", "0.0.0.0:15433", "--data-dir"]).arg(&data);
    let answer = Answer::of(command.output()?)?;
    ensure!(answer.code == Some(2), "{answer:?}");
    for word in ["http.tls", "pg.tls", "certificate"] {
        ensure!(answer.err.contains(word), "{word:?} is not named: {answer:?}");
    }
    ensure!(!data.exists(), "a refused configuration made files");
    Ok(())
}
