//! Sources: added, tried, given new secrets, removed; deliveries that come again; webhooks read again as they came.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::http::{self, Reply};
use crate::kafka::Broker;
use crate::process::{Postgres, Process};
use crate::server::{OPEN, Server, directory, wait_for};

mod canaries;
mod slow;

pub(crate) use canaries::told_by_sql;

const SECRET: &str = "a secret of the webhook";

/// A delivery of GitHub to an address.
struct Delivery<'d> {
    source: &'d str,
    event: &'d str,
    id: &'d str,
    secret: &'d str,
    body: &'d str,
}

impl Delivery<'_> {
    fn send(&self, port: u16) -> Result<Reply> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())?;
        mac.update(self.body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", self.event),
            ("x-github-delivery", self.id),
            ("x-hub-signature-256", signature.as_str()),
        ];
        http::must(port, &format!("POST /webhooks/{}", self.source), &headers, self.body.as_bytes())
    }
}

/// A run that has ended.
fn run(id: usize) -> String {
    json!({
        "action": "completed", "repository": {"html_url": "https://github.com/acme/shop", "name": "shop"},
        "workflow_run": {
            "id": id, "name": "ci", "run_attempt": 1, "status": "completed", "conclusion": "success", "event": "push", "head_branch": "main",
            "head_sha": "0a1b2c", "html_url": "https://github.com/acme/shop/runs/1", "created_at": "2026-11-20T10:00:00Z",
            "run_started_at": "2026-11-20T10:00:05Z", "updated_at": "2026-11-20T10:07:00Z",
        },
    })
    .to_string()
}

fn deliver(port: u16, source: &str, id: &str, secret: &str, body: &str) -> Result<Reply> {
    Delivery { source, event: "workflow_run", id, secret, body }.send(port)
}

/// The lines of one source in the list.
fn listed(server: &Server, name: &str) -> Result<Value> {
    let answer = server.must(&["sources", "list"])?;
    let found = answer["sources"].as_array().into_iter().flatten().find(|source| source["name"] == name);
    found.cloned().with_context(|| format!("{name} is not in {answer}"))
}

fn problems(source: &Value) -> String {
    source["problems"].to_string()
}

/// The files below a folder that hold a text.
pub(crate) fn holds(folder: &Path, text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(holds(&path, text)?);
        } else if std::fs::read(&path)?.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[test]
fn a_source_is_added_tried_rotated_and_removed() -> Result<()> {
    let server = Server::start("sources", OPEN)?;
    ensure!(server.must(&["sources", "list"])?["sources"] == json!([]), "there is a source");
    let added = server.must(&["sources", "add", "github", "--name", "shop"])?;
    let first = added["secret"].as_str().context("no secret")?.to_owned();
    ensure!(first.len() == 64 && added["address"] == format!("http://127.0.0.1:{}/webhooks/shop", server.http), "{added}");
    let file = server.data().join("secrets").read_dir()?.next().context("no file")??.path();
    ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others can read {}", file.display());
    ensure!(problems(&listed(&server, "shop")?).contains("no delivery has come yet"), "silence is not told");

    ensure!(deliver(server.http, "shop", "1", &first, &run(1))?.status == 202, "not taken");
    let again = deliver(server.http, "shop", "1", &first, &run(1))?;
    ensure!(again.status == 202 && again.json()?["accepted"] == 0 && again.body.contains("taken before"), "{again:?}");
    ensure!(deliver(server.http, "shop", "2", "another secret", &run(2))?.status == 401, "a forgery is taken");
    let shop = listed(&server, "shop")?;
    ensure!(shop["deliveries"] == 1 && shop["known"] == 1 && shop["refused"] == 1 && shop["last_event"] == "workflow_run", "{shop}");
    ensure!(shop["configured_in"] == "control store" && problems(&shop).contains("the last delivery was refused"), "{shop}");
    let tried = server.must(&["sources", "test", "shop"])?;
    ensure!(tried["is_ok"] == true && tried["checks"].as_array().is_some_and(|checks| checks.len() == 2), "{tried}");

    let second = server.must(&["sources", "rotate", "shop"])?["secret"].as_str().context("no secret")?.to_owned();
    ensure!(second != first, "the same secret");
    for (id, secret) in [(3, &first), (4, &second)] {
        ensure!(deliver(server.http, "shop", &id.to_string(), secret, &run(id))?.status == 202, "both are live while it changes");
    }
    let third = server.must(&["sources", "rotate", "shop"])?["secret"].as_str().context("no secret")?.to_owned();
    ensure!(deliver(server.http, "shop", "5", &first, &run(5))?.status == 401, "the oldest secret is live");
    ensure!(deliver(server.http, "shop", "6", &third, &run(6))?.status == 202, "the newest secret is not live");
    ensure!(server.data().join("secrets").read_dir()?.count() == 2, "old secrets are kept");

    server.must(&["sources", "remove", "shop"])?;
    ensure!(deliver(server.http, "shop", "7", &third, &run(7))?.status == 404, "a removed source is taken");
    ensure!(server.data().join("secrets").read_dir()?.count() == 0, "its secrets are kept");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = server.rows("SELECT run_id FROM pipeline_runs ORDER BY run_id")?;
    ensure!(rows.len() == 4, "{rows:?}");
    for secret in [&first, &second, &third] {
        let found = holds(&server.dir, secret)?;
        ensure!(found.is_empty(), "a secret is in {found:?}");
    }
    let actions = server.rows("SELECT action FROM audit_log WHERE starts_with(action, 'source.')")?;
    ensure!(actions.len() == 4, "{actions:?}");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() -> Result<()> {
    let files = directory("sources_refused_files")?;
    std::fs::write(files.join("github"), SECRET)?;
    std::fs::write(files.join("token"), "a token")?;
    let yaml = format!("{OPEN}sources: {{github: {{secret_file: {}}}}}\n", files.join("github").display());
    let server = Server::start("sources_refused", &yaml)?;
    let token = files.join("token").display().to_string();
    let refused: [(&[&str], &str); 9] = [
        (&["sources", "add", "jenkins"], "known: github"),
        (&["sources", "add", "github"], "a source named \\\"github\\\" is there already"),
        (&["sources", "add", "github", "--name", "gitlab"], "cannot be named"),
        (&["sources", "add", "github", "--name", "../b"], "1 to 63 of a-z"),
        (&["sources", "add", "github", "--name", "shop", "--token-file", "token"], "absolute path"),
        (&["sources", "add", "github", "--name", "shop", "--token-file", "/nowhere"], "cannot read /nowhere"),
        (&["sources", "remove", "github"], "is in kirolinter.yaml"),
        (&["sources", "rotate", "nobody"], "no source"),
        (&["sources", "replay", "github", "--since", "yesterday"], "such as 2d, 12h or 30m"),
    ];
    for (arguments, reason) in refused {
        let answer = server.ask(arguments)?;
        ensure!(answer.code == Some(2) && format!("{:?}", answer.err).contains(reason), "{arguments:?}: {answer:?}");
    }
    ensure!(server.data().join("secrets").read_dir().map_or(0, Iterator::count) == 0, "a refused source left a secret");

    // A tenant sees and changes its own sources, and names no files of the server.
    let make = |name: &str, role: &str| -> Result<String> {
        let made = server.must(&["token", "create", name, "--role", role, "--tenant", "acme"])?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    };
    let (admin, viewer) = (make("acme-admin", "admin")?, make("acme-viewer", "viewer")?);
    ensure!(server.ask_as(Some(&viewer), &["sources", "list"])?.code == Some(2), "a viewer sees sources");
    let stolen = server.ask_as(Some(&admin), &["sources", "add", "github", "--name", "mine", "--token-file", &token])?;
    ensure!(stolen.code == Some(2) && stolen.err.contains("tenant `default`"), "{stolen:?}");
    ensure!(server.ask_as(Some(&admin), &["sources", "add", "github", "--name", "mine"])?.code == Some(0), "not added");
    server.must(&["sources", "add", "gitea", "--name", "ours", "--token-file", &token])?;
    let seen = server.ask_as(Some(&admin), &["sources", "list"])?.json()?;
    let names: Vec<&str> = seen["sources"].as_array().into_iter().flatten().filter_map(|source| source["name"].as_str()).collect();
    ensure!(names == ["mine"], "{seen}");
    ensure!(server.ask_as(Some(&admin), &["sources", "remove", "ours"])?.code == Some(2), "another tenant's source is removed");
    ensure!(listed(&server, "github")?["configured_in"] == "kirolinter.yaml", "the file's source is not listed");
    ensure!(server.must(&["sources", "test", "ours"])?["is_ok"] == true, "it does not hold");

    // What was well when it was added goes wrong later.
    std::fs::remove_file(files.join("token"))?;
    ensure!(problems(&listed(&server, "ours")?).contains("token: cannot read"), "a missing token is not told");
    let tried = server.ask(&["sources", "test", "ours"])?;
    ensure!(tried.code == Some(1) && tried.json()?["is_ok"] == false, "{tried:?}");
    Ok(())
}

/// Answers as GitHub does when it is asked who a token stands for.
fn stand_in(scopes: &'static str) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let is_ours = head.any(|line| line.eq_ignore_ascii_case("authorization: Bearer a token"));
            let status = if is_ours { "200 OK" } else { "401 Unauthorized" };
            let body = r#"{"login":"ada"}"#;
            let head = format!("HTTP/1.1 {status}\r\nx-oauth-scopes: {scopes}\r\nx-ratelimit-remaining: 4999\r\nconnection: close");
            drop(write!(stream, "{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    });
    Ok(port)
}

#[test]
fn what_a_token_permits_is_asked() -> Result<()> {
    let (good, poor) = (stand_in("repo, read:org")?, stand_in("gist")?);
    let server = Server::start("sources_scopes", &format!("{OPEN}network: {{allow: [\"127.0.0.1:{good}\", \"127.0.0.1:{poor}\"]}}\n"))?;
    let file = server.dir.join("token");
    std::fs::write(&file, "a token")?;
    let file = file.display().to_string();
    for (name, port, is_ok, words) in
        [("good", good, true, "stands for ada: repo read:org, 4999 requests left"), ("poor", poor, false, "it lacks repo")]
    {
        let api = format!("http://127.0.0.1:{port}");
        server.must(&["sources", "add", "github", "--name", name, "--token-file", &file, "--api", &api])?;
        let tried = server.ask(&["sources", "test", name])?;
        ensure!(tried.code == Some(i32::from(!is_ok)) && tried.out.contains(words) && !tried.out.contains("a token"), "{tried:?}");
    }
    std::fs::write(&file, "another")?;
    let wrong = server.ask(&["sources", "test", "good"])?;
    ensure!(wrong.code == Some(1) && !wrong.out.contains("another"), "{wrong:?}");
    Ok(())
}

/// Each door takes what was added, and refuses what was removed, at another door.
#[test]
fn every_door_knows_of_a_source() -> Result<()> {
    let (dir, broker, postgres) = (directory("sources_doors")?, Broker::shared()?, Postgres::start()?);
    std::fs::write(dir.join("postgres.url"), &postgres.url)?;
    let config = format!(
        "{OPEN}log: {{kafka: \"{}\", topic: sources.doors, partitions: 2}}\ncontrol: {{postgres_file: postgres.url}}\n",
        broker.address
    );
    std::fs::write(dir.join("kirolinter.yaml"), config)?;
    let mut doors = [Process::start(&dir, "serve", 0)?, Process::start(&dir, "serve", 1)?];
    doors.iter_mut().try_for_each(Process::wait_ready)?;
    let [one, two] = doors.each_ref().map(|door| door.http);
    let body = json!({"platform": "github", "name": "shop"}).to_string();
    let added = http::must(one, "POST /api/v1/sources", &[("content-type", "application/json")], body.as_bytes())?.json()?;
    let secret = added["secret"].as_str().with_context(|| added.to_string())?.to_owned();
    wait_for("the other door to take it", 10, || Ok((deliver(two, "shop", "1", &secret, &run(1))?.status == 202).then_some(())))?;
    ensure!(deliver(one, "shop", "2", &secret, &run(2))?.status == 202, "the door that added it does not take it");
    wait_for("both doors' counts", 10, || {
        let list = http::must(one, "GET /api/v1/sources", &[], b"")?.json()?;
        Ok((list["sources"][0]["deliveries"] == 2).then_some(()))
    })?;
    ensure!(http::must(two, "DELETE /api/v1/sources/shop", &[], b"")?.status == 204, "not removed");
    ensure!(deliver(two, "shop", "3", &secret, &run(3))?.status == 404, "the door that removed it takes it");
    wait_for("the other door to refuse it", 10, || Ok((deliver(one, "shop", "4", &secret, &run(4))?.status == 404).then_some(())))?;
    Ok(())
}

/// A server that takes GitHub's webhooks, and more of them than a quota lets in.
fn with_github(test: &str, more: &str) -> Result<Server> {
    let files = directory(&format!("{test}_files"))?;
    std::fs::write(files.join("github"), SECRET)?;
    let limits = "limits: {ingest: {requests: 0, window_seconds: 1}}\n";
    Server::start(test, &format!("{OPEN}{limits}{more}sources: {{github: {{secret_file: {}}}}}\n", files.join("github").display()))
}

/// Sends deliveries from several connections; how often each status was answered `known`.
fn send_all(port: u16, ids: &[(String, usize)]) -> Result<usize> {
    let known = Mutex::new(0);
    std::thread::scope(|scope| {
        let send = |part: &[(String, usize)]| -> Result<()> {
            for (id, number) in part {
                let taken = deliver(port, "github", id, SECRET, &run(*number))?;
                ensure!(taken.status == 202, "{taken:?}");
                if taken.body.contains("taken before") {
                    *known.lock().ok().context("a thread panicked")? += 1;
                }
            }
            Ok(())
        };
        let threads: Vec<_> = ids.chunks(ids.len().div_ceil(8).max(1)).map(|part| scope.spawn(move || send(part))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
    })?;
    known.into_inner().ok().context("a thread panicked")
}

#[test]
fn ten_thousand_replays_add_no_row() -> Result<()> {
    const RUNS: usize = 25;
    let mut server = with_github("sources_replays", "")?;
    let first: Vec<(String, usize)> = (0..RUNS).map(|number| (format!("d-{number}"), number)).collect();
    ensure!(send_all(server.http, &first)? == 0, "known before it came");
    let state = |server: &Server| -> Result<(Value, Value)> {
        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        let runs = server.rows("SELECT * FROM pipeline_runs ORDER BY run_id")?;
        let events = server.rows("SELECT count(*) AS n, count(DISTINCT event_id) AS d FROM pipeline_runs_events")?;
        Ok((runs.into(), events.into()))
    };
    let before = state(&server)?;
    ensure!(before.0.as_array().is_some_and(|runs| runs.len() == RUNS) && before.1[0]["n"] == before.1[0]["d"], "{before:?}");

    // The same deliveries; then the same facts by other ids.
    let same: Vec<_> = (0..4_000).map(|at| first[at % RUNS].clone()).collect();
    ensure!(send_all(server.http, &same)? == same.len(), "a delivery that came again was appended");
    let other: Vec<_> = (0..3_000).map(|at| (format!("other-{at}"), at % RUNS)).collect();
    ensure!(send_all(server.http, &other)? == 0, "other deliveries are taken for known");
    ensure!(state(&server)? == before, "a replay changed the tables");

    // Another life knows no delivery, and still every fact.
    server.kill()?;
    server.up()?;
    let again: Vec<_> = (0..2_000).map(|at| first[at % RUNS].clone()).chain(other.into_iter().take(1_000)).collect();
    let known = send_all(server.http, &again)?;
    ensure!(known >= 2_000 - 8 * RUNS, "only {known} were known");
    ensure!(state(&server)? == before, "a replay after a restart changed the tables");
    let metrics = http::must(server.http, "GET /metrics", &[], b"")?.body;
    ensure!(metrics.contains(r#"kiro_webhooks_total{outcome="known",platform="github"}"#), "{metrics}");
    Ok(())
}

#[test]
fn webhooks_are_read_again_as_they_came() -> Result<()> {
    let server = with_github("sources_read_again", "")?;
    for number in 0..40 {
        ensure!(deliver(server.http, "github", &format!("d-{number}"), SECRET, &run(number))?.status == 202, "not taken");
    }
    let wiki = Delivery { source: "github", event: "gollum", id: "w-1", secret: SECRET, body: r#"{"pages":[]}"# };
    ensure!(wiki.send(server.http)?.status == 202, "an event that is not read is refused");
    ensure!(deliver(server.http, "github", "bad", SECRET, "no JSON")?.status == 202, "not taken");
    let count = || -> Result<Value> {
        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        let tables = ["pipeline_runs", "pipeline_runs_events", "dead_letters"];
        Ok(tables
            .iter()
            .map(|table| server.rows(&format!("SELECT count(*) AS n FROM {table}")))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    };
    let before = count()?;
    ensure!(before[0]["n"] == 40 && before[2]["n"] == 1, "{before}");
    let github = listed(&server, "github")?;
    ensure!(github["deliveries"] == 42 && github["unread"] == 1, "{github}");
    let topics = server.rows("SELECT DISTINCT _topic AS t FROM pipeline_runs_events")?;
    ensure!(topics.len() == 1 && topics[0]["t"] == "kiro.events.webhooks", "{topics:?}");

    let again = server.must(&["sources", "replay", "github", "--since", "2d"])?;
    ensure!(again["deliveries"] == 42 && again["events"] == 40 && again["unreadable"] == 1, "{again}");
    ensure!(server.must(&["sources", "replay", "gitlab", "--since", "2d"])?["deliveries"] == 0, "another platform's are read");
    ensure!(count()? == before, "what was read before has more rows");
    let late = server.must(&["sources", "replay", "github", "--since", "2100-01-01T00:00:00Z"])?;
    ensure!(late["read"] == 0, "{late}");
    Ok(())
}

/// GitHub sends up to 25 MB: a push of many commits.
#[test]
fn large_deliveries_are_read() -> Result<()> {
    let broker = Broker::shared()?;
    let kafka = format!("log: {{kafka: \"{}\", topic: sources.large, partitions: 1}}\n", broker.address);
    for (test, more) in [("sources_large", ""), ("sources_large_kafka", kafka.as_str())] {
        let server = with_github(test, more)?;
        let mut body: Value = serde_json::from_str(&run(1))?;
        body["what_nobody_reads"] = "x".repeat(20 << 20).into();
        let body = body.to_string();
        let taken = deliver(server.http, "github", "large", SECRET, &body)?;
        ensure!(taken.status == 202, "{test}: {taken:?}");
        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        let rows = server.rows("SELECT run_id FROM pipeline_runs")?;
        ensure!(rows.len() == 1, "{test}: {rows:?} {:?}", server.rows("SELECT reason FROM dead_letters")?);
        // The door may close before all of it is sent.
        if let Ok(over) = deliver(server.http, "github", "too large", SECRET, &"x".repeat(26 << 20)) {
            ensure!(over.status == 413, "{over:?}");
        }
        let native = "x".repeat(2 << 20);
        let event = http::must(server.http, "POST /api/v1/events", &[("content-type", "application/json")], native.as_bytes())?;
        ensure!(event.status == 422 || event.status == 413, "{event:?}");
    }
    Ok(())
}

/// How long it takes until a delivery is answered, when 500 come a second.
#[test]
#[expect(clippy::disallowed_methods, reason = "a figure for who reads the output")]
fn deliveries_are_answered_soon() -> Result<()> {
    const RATE: usize = 500;
    const SENDERS: usize = 16;
    let server = with_github("sources_acks", "")?;
    let (took, begin) = (Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        let send = |sender: usize| -> Result<()> {
            let mut own = Vec::new();
            for number in (sender..RATE * 5).step_by(SENDERS) {
                let due = begin + Duration::from_secs_f64(number as f64 / RATE as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let taken = deliver(server.http, "github", &format!("d-{number}"), SECRET, &run(number))?;
                ensure!(taken.status == 202, "{taken:?}");
                // Counted from when it was due: one that waits for another to be answered has waited.
                own.push(due.elapsed());
            }
            took.lock().ok().context("a thread panicked")?.extend(own);
            Ok(())
        };
        let threads: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || send(sender))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
    })?;
    let mut took = took.into_inner().ok().context("a thread panicked")?;
    took.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| took[took.len() * percent / 100]);
    eprintln!("{} deliveries at {RATE}/s: p50 {p50:?}, p99 {p99:?}, longest {:?}", took.len(), took.last());
    // Loose: the machine may have other things to do.
    ensure!(p50 < Duration::from_millis(250), "half of the deliveries took {p50:?}");
    Ok(())
}

#[test]
fn a_rule_is_explained() -> Result<()> {
    let rules =
        "delivery: {deployments: [{pipeline: \"ci\", branch: main, set_environment: production}], hotfixes: [{branch: \"hotfix/*\"}]}\n";
    let server = with_github("sources_explain", rules)?;
    std::fs::write(server.dir.join("run.json"), run(7))?;
    let told = server.must(&["sources", "explain", "run.json", "--platform", "github", "--kind", "workflow_run"])?;
    let answer = |told: &Value, question: &str| {
        let reasons = told["events"][0]["reasons"].as_array().cloned().unwrap_or_default();
        reasons.into_iter().find(|reason| reason["question"] == question).unwrap_or_default()
    };
    let deployment = answer(&told, "deployment");
    ensure!(deployment["answer"] == "yes" && deployment["because"].to_string().contains("delivery.deployments[0]"), "{told}");
    ensure!(answer(&told, "environment")["answer"] == "production" && answer(&told, "hotfix")["answer"] == "no", "{told}");
    ensure!(deliver(server.http, "github", "d", SECRET, &run(7))?.status == 202, "not taken");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let event = server.rows("SELECT event_id FROM pipeline_runs_events")?[0]["event_id"].as_str().context("no id")?.to_owned();
    for id in ["7", event.as_str()] {
        let stored = server.must(&["sources", "explain", id])?;
        ensure!(stored["events"][0]["reasons"] == told["events"][0]["reasons"], "{stored} is not {told}");
    }
    let nothing = server.must(&["sources", "explain", "nowhere"])?;
    ensure!(nothing["events"] == json!([]) && nothing["note"].is_string(), "{nothing}");
    std::fs::write(
        server.dir.join("native.json"),
        r#"{"subject":"incident","transition":"detected","source":"https://pager/a","subject_id":"1","time":"2026-11-20T00:00:00Z","fields":{"service":"shop"}}"#,
    )?;
    let incident = server.must(&["sources", "explain", "native.json"])?;
    ensure!(answer(&incident, "incident")["answer"] == "yes", "{incident}");
    let wrong: [(&[&str], &str); 3] = [
        (&["sources", "explain", "run.json", "--platform", "github"], "--kind is needed"),
        (&["sources", "explain", "nowhere.json", "--platform", "github"], "there is no file"),
        (&["sources", "explain", "run.json"], "subject"),
    ];
    for (arguments, reason) in wrong {
        let refused = server.ask(arguments)?;
        ensure!(refused.code == Some(2) && refused.err.contains(reason), "{arguments:?}: {refused:?}");
    }
    Ok(())
}
