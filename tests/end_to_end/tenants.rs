//! Two tenants on one server: neither sees the other by any door, and what each does is written down.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http::{self, Reply};
use crate::server::{Answer, OPEN, Server, directory};

const OURS: &str = "https://ci.example/acme/secret-shop";
const THEIRS: &str = "https://ci.example/globex/open-source";
const GATES: &str = r#"
version: 1
gates:
  - name: runs
    type: pre-deploy
    criteria:
      - {name: runs, sql: "SELECT count(*) AS value, count(*) AS n FROM pipeline_runs", pass: [">= 1"], min_samples: 1}
"#;

/// The server with a token of each role in both tenants; loopback is closed.
struct Two {
    server: Server,
    tokens: Vec<(&'static str, &'static str, String)>,
}

fn lines(source: &str, runs: usize) -> String {
    let line = |at: usize| {
        let event = json!({
            "subject": "pipeline_run", "transition": "finished", "source": source, "subject_id": at.to_string(),
            "time": format!("2026-03-01T00:{at:02}:00Z"), "fields": {"pipeline": "build", "branch": "main", "outcome": "success"},
        });
        format!("{event}\n")
    };
    (0..runs).map(line).collect()
}

impl Two {
    fn start() -> Result<Self> {
        let dir = directory("tenants_files")?;
        std::fs::write(dir.join("quality_gates.yaml"), GATES)?;
        let open = format!("{OPEN}gates_file: {}/quality_gates.yaml\n", dir.display());
        let mut server = Server::start("tenants", &open)?;
        let mut tokens = Vec::new();
        for tenant in ["default", "globex"] {
            for role in ["ingest", "viewer", "developer", "operator", "admin"] {
                let answer = server.must(&["token", "create", &format!("{tenant}-{role}"), "--role", role, "--tenant", tenant])?;
                tokens.push((tenant, role, answer["token"].as_str().context("no token")?.to_owned()));
            }
        }
        std::fs::write(server.dir.join("kirolinter.yaml"), open.replace("loopback_open: true", "loopback_open: false"))?;
        server.stop()?;
        server.up()?;
        let two = Self { server, tokens };
        two.send("default", &lines(OURS, 20))?;
        two.send("globex", &lines(THEIRS, 3))?;
        Ok(two)
    }

    fn token(&self, tenant: &str, role: &str) -> &str {
        self.tokens.iter().find(|(t, r, _)| *t == tenant && *r == role).map_or("", |(_, _, token)| token)
    }

    fn send(&self, tenant: &str, text: &str) -> Result<()> {
        std::fs::write(self.server.dir.join("sent.ndjson"), text)?;
        let sent = self.server.ask_as(Some(self.token(tenant, "ingest")), &["events", "send", "sent.ndjson"])?;
        ensure!(sent.code == Some(0), "{sent:?}");
        let settled = self.http(tenant, "viewer", "POST /api/v1/settle", "")?;
        ensure!(settled.status == 204, "{settled:?}");
        Ok(())
    }

    fn http(&self, tenant: &str, role: &str, line: &str, body: &str) -> Result<Reply> {
        let bearer = format!("Bearer {}", self.token(tenant, role));
        http::must(self.server.http, line, &[("authorization", &bearer), ("content-type", "application/json")], body.as_bytes())
    }

    fn rows(&self, tenant: &str, sql: &str) -> Result<Vec<Value>> {
        let reply = self.http(tenant, "viewer", "POST /api/v1/query", &json!({"sql": sql}).to_string())?;
        ensure!(reply.status == 200, "{sql}: {reply:?}");
        Ok(reply.json()?["rows"].as_array().cloned().unwrap_or_default())
    }

    /// The psql program, with a token as its password.
    fn psql(&self, tenant: &str, password: &str, sql: &str) -> Result<Answer> {
        let user = format!("{tenant}-viewer");
        let port = self.server.pg.to_string();
        let mut command = Command::new("psql");
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", &user, "-d", "kirolinter", "-At", "-w", "-c", sql]);
        Answer::of(command.env("PGPASSWORD", password).output().context("psql is not installed")?)
    }
}

/// What names the other tenant.
fn names_ours(text: &str) -> bool {
    text.contains("secret-shop") || text.contains("acme")
}

fn questions_show_the_own_tenant(two: &Two) -> Result<()> {
    let tables = two.http("globex", "viewer", "GET /api/v1/tables", "")?.json()?;
    let names: Vec<&str> = tables["tables"].as_array().into_iter().flatten().filter_map(|table| table["name"].as_str()).collect();
    ensure!(names.len() > 20, "{names:?}");
    for name in names {
        let rows = two.rows("globex", &format!("SELECT * FROM {name}"))?;
        let seen = Value::from(rows).to_string();
        ensure!(!names_ours(&seen) && !seen.contains("\"tenant\":\"default\""), "{name} shows another tenant's rows: {seen}");
    }
    let count = "SELECT count(*) AS n FROM pipeline_runs";
    ensure!(two.rows("globex", count)?[0]["n"] == 3 && two.rows("default", count)?[0]["n"] == 20, "not the own runs");
    for sql in [
        "SELECT count(*) AS n FROM pipeline_runs WHERE tenant = 'default'",
        "SELECT count(*) AS n FROM pipeline_runs WHERE tenant <> 'globex' OR 1 = 1 AND tenant = 'default'",
        "SELECT count(*) AS n FROM (SELECT * FROM pipeline_runs UNION ALL SELECT * FROM pipeline_runs) WHERE tenant = 'default'",
        "WITH a AS (SELECT tenant FROM pipeline_runs_events) SELECT count(*) AS n FROM a JOIN pipeline_health h ON h.tenant <> a.tenant",
    ] {
        ensure!(two.rows("globex", sql)?[0]["n"] == 0, "{sql} sees another tenant");
    }
    let cli = two.server.ask_as(Some(two.token("globex", "viewer")), &["query", "SELECT source FROM pipeline_runs"])?;
    ensure!(cli.code == Some(0) && cli.out.contains("globex") && !names_ours(&cli.out), "{cli:?}");
    Ok(())
}

fn psql_shows_the_own_tenant(two: &Two) -> Result<()> {
    let sql = "SELECT DISTINCT source FROM pipeline_runs";
    for (tenant, source) in [("default", OURS), ("globex", THEIRS)] {
        let answer = two.psql(tenant, two.token(tenant, "viewer"), sql)?;
        ensure!(answer.code == Some(0) && answer.out.trim() == source, "{answer:?}");
    }
    for password in [two.token("default", "viewer"), "", "kiro_wrong"] {
        let refused = two.psql("globex", password, sql)?;
        ensure!(refused.code == Some(2) && !refused.out.contains("https"), "another's password lets in: {refused:?}");
    }
    Ok(())
}

fn metrics_and_status_name_nobody_else(two: &Two) -> Result<()> {
    for line in ["GET /metrics", "GET /api/v1/status", "GET /api/v1/gates"] {
        let reply = two.http("globex", "viewer", line, "")?;
        ensure!(reply.status == 200 && !names_ours(&reply.body), "{line} names another tenant's repository: {}", reply.body);
    }
    Ok(())
}

fn decisions_know_the_own_tenant(two: &Two) -> Result<()> {
    let gate = |tenant: &str| -> Result<Value> {
        let reply =
            two.http(tenant, "developer", "POST /api/v1/gates/evaluate", &json!({"gate": "runs", "idempotency_key": "k"}).to_string())?;
        ensure!(reply.status == 200, "{reply:?}");
        reply.json()
    };
    let (ours, theirs) = (gate("default")?, gate("globex")?);
    ensure!(ours["criteria"][0]["value"] == 20.0 && theirs["criteria"][0]["value"] == 3.0, "{ours} and {theirs}");
    ensure!(ours["decision_id"] != theirs["decision_id"], "one key of two tenants is one decision");
    for tenant in ["default", "globex"] {
        let trained = two.http(tenant, "operator", "POST /api/v1/models/evaluate", "{}")?;
        ensure!(trained.status == 200, "{trained:?}");
    }
    let risk = two.http("globex", "viewer", "POST /api/v1/risk", &json!({"source": OURS, "pipeline": "build"}).to_string())?;
    ensure!(risk.status == 200, "{risk:?}");
    let risk = risk.json()?;
    ensure!(risk["confidence_level"] == "low" && risk["served_by"] == "base_rate: no run of the pipeline is known yet", "{risk}");
    let own = two.http("globex", "viewer", "POST /api/v1/risk", &json!({"source": THEIRS, "pipeline": "build"}).to_string())?.json()?;
    ensure!(own["served_by"].as_str().is_some_and(|by| by.contains("there are 3 labelled runs")), "{own}");
    Ok(())
}

fn operators_reach_their_own_things(two: &Two) -> Result<()> {
    let listed = two.http("globex", "admin", "GET /api/v1/tokens", "")?;
    ensure!(listed.status == 200 && !listed.body.contains("default-") && listed.body.contains("globex-viewer"), "{listed:?}");
    let revoked = two.http("globex", "admin", "DELETE /api/v1/tokens/default-viewer", "")?;
    ensure!(revoked.status == 404, "{revoked:?}");
    ensure!(two.http("default", "viewer", "GET /api/v1/status", "")?.status == 200, "another tenant's token was revoked");
    let made =
        two.http("globex", "admin", "POST /api/v1/tokens", &json!({"name": "x", "role": "admin", "tenant": "default"}).to_string())?;
    ensure!(made.status == 422, "{made:?}");
    let import = json!({"name": "a.csv", "mapping": "version: 1\nevents: [{subject: pipeline_run, transition: finished, fields: {source: s, subject_id: i, time: t}}]\n", "format": "csv", "size_bytes": 10, "sha256": "0".repeat(64)});
    let begun = two.http("default", "operator", "POST /api/v1/imports", &import.to_string())?;
    ensure!(begun.status == 200, "{begun:?}");
    let id = begun.json()?["id"].as_str().context("no id")?.to_owned();
    for (method, path) in [("GET", format!("/api/v1/imports/{id}")), ("PUT", format!("/api/v1/imports/{id}/bytes?offset=0"))] {
        let reply = two.http("globex", "operator", &format!("{method} {path}"), "0123456789")?;
        ensure!(reply.status == 404, "{reply:?}");
    }
    Ok(())
}

/// A row for each decision and each refusal, in the tenant that it belongs to.
fn everything_is_written_down(two: &Two) -> Result<()> {
    for (role, line) in [("ingest", "POST /api/v1/query"), ("viewer", "POST /api/v1/gates/evaluate"), ("developer", "GET /api/v1/tokens")] {
        let refused = two.http("globex", role, line, "{}")?;
        ensure!(refused.status == 403, "{line}: {refused:?}");
    }
    let nobody = http::must(two.server.http, "GET /api/v1/status", &[("authorization", "Bearer kiro_nobody")], b"")?;
    ensure!(nobody.status == 401 && nobody.header("www-authenticate").is_some(), "{nobody:?}");
    ensure!(two.http("globex", "viewer", "POST /api/v1/settle", "")?.status == 204, "not settled");
    let rows = |tenant: &str, result: &str| {
        two.rows(tenant, &format!("SELECT actor, action, object FROM audit_log WHERE result = '{result}' ORDER BY time"))
    };
    let refused = rows("globex", "refused")?;
    for (actor, action) in [
        ("globex-ingest", "POST /api/v1/query"),
        ("globex-viewer", "POST /api/v1/gates/evaluate"),
        ("globex-developer", "GET /api/v1/tokens"),
    ] {
        let found = refused.iter().filter(|row| row["actor"] == actor && row["action"] == action).count();
        ensure!(found == 1, "{found} rows of {actor} {action}: {refused:?}");
    }
    let logins = refused.iter().filter(|row| row["actor"] == "globex-viewer" && row["action"] == "psql login").count();
    ensure!(logins == 2, "two wrong passwords, {logins} refused logins: {refused:?}");
    let strangers = rows("default", "refused")?;
    ensure!(strangers.iter().any(|row| row["actor"] == "-" && row["action"] == "GET /api/v1/status"), "{strangers:?}");
    let allowed = rows("globex", "allowed")?;
    let of = |action: &str| allowed.iter().filter(|row| row["action"] == action).count();
    ensure!(of("gate.evaluate") == 1 && of("model.evaluate") == 1 && of("token.revoke") == 1, "{allowed:?}");
    ensure!(allowed.iter().all(|row| row["actor"].as_str().is_some_and(|actor| actor.starts_with("globex-"))), "{allowed:?}");
    Ok(())
}

#[test]
fn neither_tenant_sees_the_other_by_any_door() -> Result<()> {
    let two = Two::start()?;
    questions_show_the_own_tenant(&two)?;
    psql_shows_the_own_tenant(&two)?;
    decisions_know_the_own_tenant(&two)?;
    operators_reach_their_own_things(&two)?;
    metrics_and_status_name_nobody_else(&two)?;
    everything_is_written_down(&two)
}
