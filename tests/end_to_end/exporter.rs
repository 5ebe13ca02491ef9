//! What is exported: a real Prometheus scrapes a real server, and every query of the shipped board and rules is asked.

mod board;
mod feed;
mod prometheus;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::http;
use crate::server::{OPEN, Server, wait_for};
use crate::tls::authority::Authority;
use board::Board;
use prometheus::{Prometheus, promtool, shipped};

/// What one process may export.
const MOST_SERIES: usize = 20_000;

/// Starts a server that has gates, a certificate, and a webhook that can bring what cannot be decoded.
fn server(test: &str, more: &str) -> Result<Server> {
    let mut server = Server::prepare(test, "")?;
    for (name, text) in [("gates.yaml", feed::GATES), ("secret", feed::SECRET)] {
        std::fs::write(server.dir.join(name), text)?;
    }
    let certificate = Authority::new(&server.dir.join("pki"), "authority")?.certify("door", 2)?.yaml();
    let dir = server.dir.display();
    let config =
        format!("{OPEN}{more}gates_file: {dir}/gates.yaml\nsources: {{github: {{secret_file: {dir}/secret}}}}\npg: {{{certificate}}}\n");
    std::fs::write(server.dir.join("kirolinter.yaml"), config)?;
    server.up()?;
    Ok(server)
}

fn token(server: &Server, name: &str) -> Result<String> {
    let answer = server.must(&["token", "create", name, "--role", "viewer"])?;
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}

/// What is exported to who has a token.
fn exported(server: &Server, token: &str) -> Result<String> {
    let reply = http::must(server.http, "GET /metrics", &[("authorization", &format!("Bearer {token}"))], b"")?;
    ensure!(reply.status == 200, "{reply:?}");
    Ok(reply.body)
}

fn names(metrics: &str) -> BTreeSet<&str> {
    metrics.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next()).collect()
}

#[test]
fn prometheus_and_grafana_get_what_they_ask_for() -> Result<()> {
    let server = server("exporter", "")?;
    let token = token(&server, "prometheus")?;
    feed::history(&server)?;
    feed::traffic(&server, 1)?;
    let prometheus = Prometheus::start(&server, &token)?;
    prometheus.scraped(3)?;
    // Rates need a change between two scrapes.
    feed::traffic(&server, 2)?;
    let metrics = exported(&server, &token)?;
    let series = metrics.lines().filter(|l| !l.starts_with('#')).count();
    ensure!((200..MOST_SERIES).contains(&series), "{series} series");
    promtool(&["check", "metrics"], metrics.as_bytes())?;
    let board = Board::read(&server, &prometheus)?;
    let mut unknown: Vec<String> = board.metrics()?;
    unknown.extend(prometheus::metrics_of(&std::fs::read_to_string(shipped("prometheus/kirolinter.rules.yml"))?));
    let known = names(&metrics);
    unknown.retain(|name| !known.contains(name.as_str()) && name != "up");
    ensure!(unknown.is_empty(), "board or rules name what is not exported: {unknown:?}");
    let asked = board.ask_everything()?;
    ensure!(asked.0 >= 45 && asked.1 >= 9, "only {asked:?} queries of metrics and of SQL were found");
    let rules = prometheus.get("/api/v1/rules")?;
    let all: Vec<&Value> =
        rules["data"]["groups"].as_array().into_iter().flatten().flat_map(|g| g["rules"].as_array().into_iter().flatten()).collect();
    ensure!(all.len() >= 10 && all.iter().all(|rule| rule["health"] == "ok" || rule["health"] == "unknown"), "{rules}");
    Ok(())
}

#[test]
fn the_rules_do_what_they_say() -> Result<()> {
    let rules = shipped("prometheus/kirolinter.rules.yml").display().to_string();
    promtool(&["check", "rules", &rules], b"")?;
    let tests = shipped("prometheus/kirolinter.rules.test.yml").display().to_string();
    promtool(&["test", "rules", &tests], b"").map(drop)
}

#[test]
fn without_a_token_nothing_is_exported() -> Result<()> {
    let mut server = server("exporter_closed", "")?;
    let token = token(&server, "prometheus")?;
    server.stop()?;
    let file = server.dir.join("kirolinter.yaml");
    std::fs::write(&file, std::fs::read_to_string(&file)?.replace("loopback_open: true", "loopback_open: false"))?;
    server.up()?;
    let reply = http::must(server.http, "GET /metrics", &[], b"")?;
    ensure!(reply.status == 401 && !reply.body.contains("kiro_"), "{reply:?}");
    ensure!(exported(&server, &token)?.contains("kiro_build_info{version="), "no build");
    ensure!(exported(&server, &token)?.contains("kiro_http_refused_total 1"), "the refusal was not counted");
    Ok(())
}

#[test]
fn a_caller_over_its_quota_is_told_when_to_come_back() -> Result<()> {
    let server =
        server("exporter_limits", "limits: {query: {requests: 5, window_seconds: 600}, ingest: {requests: 3, window_seconds: 600}}\n")?;
    let ask = |headers: &[(&str, &str)]| http::must(server.http, "GET /api/v1/gates", headers, b"");
    for left in (0..5).rev() {
        let reply = ask(&[])?;
        ensure!(reply.status == 200, "{reply:?}");
        ensure!(reply.header("ratelimit-policy") == Some("\"query\";q=5;w=600"), "{reply:?}");
        ensure!(reply.header("ratelimit").is_some_and(|v| v.starts_with(&format!("\"query\";r={left};t="))), "{reply:?}");
    }
    let refused = ask(&[])?;
    let problem = refused.json()?;
    ensure!(refused.status == 429 && problem["status"] == 429 && problem["code"] == "KIR-1008", "{refused:?}");
    ensure!(refused.header("content-type") == Some("application/problem+json"), "{refused:?}");
    let wait: u64 = refused.header("retry-after").context("no Retry-After")?.parse()?;
    ensure!((60..=120).contains(&wait), "one request fills up in 120 s: {refused:?}");
    ensure!(refused.header("ratelimit") == Some(&format!("\"query\";r=0;t={wait}")), "{refused:?}");
    // Probes, and the other class, are not counted with it.
    for (path, status) in [("GET /", 200), ("GET /healthz", 200), ("GET /readyz", 200), ("POST /api/v1/events", 202)] {
        let reply = http::must(server.http, path, &[("content-type", "application/x-ndjson")], b"")?;
        ensure!(reply.status == status, "{path}: {reply:?}");
        ensure!(reply.header("ratelimit").is_some_and(|v| v.starts_with("\"ingest\"")) == path.starts_with("POST"), "{reply:?}");
    }
    // A wrong token costs as well: who guesses runs out of tries.
    let guesses: Vec<u16> = (0..6).map(|_| Ok(ask(&[("authorization", "Bearer kiro_wrong")])?.status)).collect::<Result<_>>()?;
    ensure!(guesses == [401, 401, 401, 401, 401, 429], "{guesses:?}");
    Ok(())
}

#[test]
fn a_token_has_a_quota_of_its_own() -> Result<()> {
    let mut server = server("exporter_tokens", "")?;
    let (one, other) = (token(&server, "one")?, token(&server, "other")?);
    server.stop()?;
    let file = server.dir.join("kirolinter.yaml");
    std::fs::write(&file, format!("{}limits: {{query: {{requests: 2, window_seconds: 600}}}}\n", std::fs::read_to_string(&file)?))?;
    server.up()?;
    let status = |token: &str| -> Result<u16> {
        Ok(http::must(server.http, "GET /api/v1/gates", &[("authorization", &format!("Bearer {token}"))], b"")?.status)
    };
    ensure!([status(&one)?, status(&one)?, status(&one)?] == [200, 200, 429], "the third is over the quota");
    ensure!([status(&other)?, status(&other)?, status(&other)?] == [200, 200, 429], "tokens share a quota");
    let limited = wait_for("a metric", 5, || {
        let reply = http::must(server.http, "GET /metrics", &[], b"")?;
        Ok((reply.status == 200).then_some(reply.body))
    })?;
    ensure!(limited.contains("kiro_http_limited_total{class=\"query\"} 2"), "not counted");
    Ok(())
}
