//! The roles as processes of their own, on a real Kafka and a real PostgreSQL.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http;
use crate::kafka::Broker;
use crate::process::{Postgres, Process};
use crate::server::{Answer, directory, free_port, program, wait_for};

const ROLES: [&str; 5] = ["serve", "ingest", "process", "orchestrate", "maintain"];
const TOPIC: &str = "roles.events";
/// Runs that arrive by Kafka, beside those that are posted.
const PRODUCED: usize = 200;

/// A run of one of seven sources, so that each shard has some.
fn run(id: &str) -> String {
    let source = id.bytes().map(u64::from).sum::<u64>() % 7;
    format!(
        "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/roles/{source}\",\"subject_id\":\"{id}\",\
         \"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}}}"
    )
}

fn post(serve: u16, lines: &str) -> bool {
    let headers = [("content-type", "application/x-ndjson")];
    http::ask(serve, "POST /api/v1/events", &headers, lines.as_bytes()).is_some_and(|reply| reply.status == 202)
}

fn rows(serve: u16, sql: &str) -> Result<Vec<Value>> {
    let body = serde_json::json!({"sql": sql}).to_string();
    let reply = http::must(serve, "POST /api/v1/query", &[("content-type", "application/json")], body.as_bytes())?;
    ensure!(reply.status == 200, "{sql}: {reply:?}");
    let mut answer = reply.json()?;
    match answer["rows"].take() {
        Value::Array(rows) => Ok(rows),
        _ => bail!("{sql}: no rows: {reply:?}"),
    }
}

/// How often each run stands in a table.
fn count(serve: u16, table: &str) -> Result<BTreeMap<String, u64>> {
    let rows = rows(serve, &format!("SELECT run_id AS id, count(*) AS n FROM {table} GROUP BY 1"))?;
    Ok(rows.iter().filter_map(|row| Some((row["id"].as_str()?.to_owned(), row["n"].as_u64()?))).collect())
}

/// Posts runs one after the other until it is told to end; what was acknowledged has a number below `acknowledged`.
#[derive(Default)]
struct Sender {
    acknowledged: AtomicUsize,
    ended: AtomicBool,
}

impl Sender {
    fn run(&self, serve: u16) {
        while !self.ended.load(Ordering::Relaxed) {
            let number = self.acknowledged.load(Ordering::Relaxed);
            if post(serve, &run(&format!("posted-{number}"))) {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until so many more were acknowledged.
    fn wait_more(&self, more: usize) -> Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("runs to be acknowledged", 60, || Ok((self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())))
    }
}

/// Asks again and again, whoever owns the folds and commits meanwhile: no answer shows a run twice. How many were asked for.
fn watch(serve: u16, ended: &AtomicBool) -> Result<usize> {
    let mut answers = 0;
    while !ended.load(Ordering::Relaxed) {
        let counts = rows(serve, "SELECT count(*) AS n, count(DISTINCT source || ' ' || run_id) AS d FROM pipeline_runs")?;
        ensure!(counts[0]["n"] == counts[0]["d"], "a run stands twice in answer {answers}: {counts:?}");
        answers += 1;
        // A pace that leaves the machine to the others.
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(answers)
}

/// What is in the files of a derived table, counted without the product's code.
fn recount(lake: &Path, table: &str, key: &[&str]) -> Result<Value> {
    let scripts = kiro_tests::root().join("scripts");
    let python = Answer::of(Command::new(scripts.join("python.sh")).output()?)?;
    ensure!(python.code == Some(0), "{python:?}");
    let python = python.out.trim();
    let dense = Answer::of(Command::new(python).arg(scripts.join("check_lake.py")).arg(lake).arg("--dense").output()?)?;
    ensure!(dense.code == Some(0), "{}\n{}", dense.out, dense.err);
    Answer::of(Command::new(python).arg(scripts.join("check_derived.py")).arg(lake).arg(table).args(key).output()?)?.json()
}

/// Which of the processes owns the first shard, in a later epoch than one before.
fn owner(process: &mut [Process], after: u64) -> Result<(usize, u64)> {
    wait_for("an owner of the folds", 60, || {
        for (at, process) in process.iter_mut().enumerate() {
            if let Some(epoch) = process.epoch()?.filter(|epoch| *epoch > after) {
                return Ok(Some((at, epoch)));
            }
        }
        Ok(None)
    })
}

#[test]
fn a_role_refuses_what_one_process_owns() -> Result<()> {
    let dir = directory("roles_refuse")?;
    for role in ROLES {
        let ask = |more: &[&str]| -> Result<Answer> {
            let mut command = Command::new(program("kirolinterd")?);
            Answer::of(command.current_dir(&dir).env_remove("KIROLINTER_POSTGRES").args([role, "--data-dir", "data"]).args(more).output()?)
        };
        let alone = ask(&[])?;
        ensure!(alone.code == Some(2) && alone.err.contains("needs Kafka") && alone.err.contains("needs PostgreSQL"), "{role}: {alone:?}");
        let sqlite = ask(&["--kafka", "127.0.0.1:1"])?;
        ensure!(sqlite.code == Some(2) && !sqlite.err.contains("Kafka") && sqlite.err.contains("SQLite"), "{role}: {sqlite:?}");
    }
    ensure!(!dir.join("data").exists(), "a refused configuration made files");
    Ok(())
}

/// The configuration that all roles share; what decisions start goes to a port.
fn configure(dir: &Path, broker: &Broker, postgres: &Postgres, receiver: u16) -> Result<()> {
    std::fs::write(dir.join("postgres.url"), &postgres.url)?;
    std::fs::write(dir.join("hook.secret"), "whsec_c2l4dGVlbiBieXRlcyBhbmQgc29tZSBtb3Jl")?;
    std::fs::write(
        dir.join("quality_gates.yaml"),
        "version: 1\ngates:\n  - name: always\n    type: pre-deploy\n    on_decision: [{target: hook, when: always}]\n    \
         criteria: [{name: one, sql: \"SELECT 1 AS value\", pass: [\"= 1\"]}]\n",
    )?;
    let config = format!(
        "auth: {{loopback_open: true}}\nlake: {{commit_interval_ms: 200}}\nlimits: {{ingest: {{requests: 0, window_seconds: 1}}}}\n\
         log: {{kafka: \"{}\", topic: {TOPIC}}}\ncontrol: {{postgres_file: postgres.url, lease_seconds: 2}}\nfolds: {{shards: 2}}\n\
         gates_file: quality_gates.yaml\nnetwork: {{allow: [\"127.0.0.1:{receiver}\"]}}\n\
         targets: {{hook: {{kind: webhook, url: \"http://127.0.0.1:{receiver}/hook\", secret_file: hook.secret}}}}\n",
        broker.address
    );
    Ok(std::fs::write(dir.join("kirolinter.yaml"), config)?)
}

/// A decision that was taken by one process is sent by another.
fn check_delivery(serve: u16, receiver: &TcpListener) -> Result<()> {
    let body = json!({"gate": "always"}).to_string();
    let reply = http::must(serve, "POST /api/v1/gates/evaluate", &[("content-type", "application/json")], body.as_bytes())?;
    let decision = reply.json()?;
    let id = decision["decision_id"].as_str().with_context(|| format!("no decision: {reply:?}"))?;
    receiver.set_nonblocking(true)?;
    let mut stream = wait_for("the webhook", 20, || Ok(receiver.accept().ok()))?.0;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head: Vec<String> = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    stream.write_all(b"HTTP/1.1 204 taken\r\nconnection: close\r\n\r\n")?;
    let key = format!("{id}/hook");
    ensure!(head.iter().any(|line| line.to_ascii_lowercase().contains(&key)), "the webhook of another decision: {head:?}");
    Ok(())
}

/// From the post of a run to its row in SQL.
#[expect(clippy::disallowed_methods, reason = "a figure for who reads the output")]
fn check_freshness(serve: u16, id: &str) -> Result<()> {
    let began = Instant::now();
    ensure!(post(serve, &run(id)), "not taken");
    let sql = format!("SELECT run_id FROM pipeline_runs WHERE run_id = '{id}'");
    wait_for("a posted run in SQL", 5, || Ok((rows(serve, &sql)?.len() == 1).then_some(())))?;
    eprintln!("a posted run can be queried after {:?}", began.elapsed());
    Ok(())
}

/// The owner is killed; then the next one is stopped for longer than its lease holds, and wakes as if nothing had happened.
fn change_owners(dir: &Path, mut process: Vec<Process>, first: (usize, u64), sender: &Sender) -> Result<Vec<Process>> {
    let (at, epoch) = first;
    process[at].kill()?;
    let mut rest = vec![process.remove(1 - at)];
    let (_, second) = owner(&mut rest, epoch)?;
    ensure!(second == epoch + 1, "epoch {second} follows {epoch}");
    sender.wait_more(100)?;
    let mut third = vec![Process::start(dir, "process", 2)?];
    third[0].wait_ready()?;
    // Whoever has the first shard has both now: there was nobody else.
    rest[0].signal("STOP")?;
    let (_, epoch) = owner(&mut third, second)?;
    sender.wait_more(100)?;
    rest[0].signal("CONT")?;
    wait_for("the zombie to know that it is none", 60, || Ok((rest[0].is_waiting()?).then_some(())))?;
    ensure!(third[0].epoch()? == Some(epoch) && third[0].owns(1)?, "the zombie took a shard back");
    sender.wait_more(100)?;
    rest.append(&mut third);
    Ok(rest)
}

/// Each run stands once, whoever is asked.
fn check_answers(serve: &Process, all: usize) -> Result<()> {
    let runs = wait_for("all runs in SQL", 5, || Ok(Some(count(serve.http, "pipeline_runs")?).filter(|runs| runs.len() >= all)))?;
    ensure!(runs.len() == all && runs.values().all(|n| *n == 1), "{} runs of {all}: {:?}", runs.len(), runs.iter().find(|(_, n)| **n != 1));
    ensure!(count(serve.http, "pipeline_runs_events")? == runs, "the events are not those of the runs");
    let health = rows(serve.http, "SELECT sum(runs) AS n FROM pipeline_health")?;
    if health[0]["n"] != all {
        let by_source =
            |table: &str, what: &str| rows(serve.http, &format!("SELECT source, {what} AS n FROM {table} GROUP BY 1 ORDER BY 1"));
        bail!(
            "pipeline_health counts {} of {all} runs; by source {:?}, where the runs are {:?}",
            health[0]["n"],
            by_source("pipeline_health", "sum(runs)")?,
            by_source("pipeline_runs", "count(*)")?
        );
    }
    let (port, sql) = (serve.pg.to_string(), "SELECT count(*) FROM pipeline_runs");
    let psql = Command::new("psql").args(["-h", "127.0.0.1", "-p", &port, "-U", "loopback", "-d", "kiro", "-Atc", sql]).output()?;
    let psql = Answer::of(psql)?;
    ensure!(psql.out.trim() == all.to_string(), "psql counts {psql:?}");
    Ok(())
}

/// What the owners left, one after the other: each run once, in no two versions that are the same.
fn check_files(lake: &Path, all: usize) -> Result<()> {
    for table in ["pipeline_runs", "features"] {
        let files = recount(lake, table, &["source", "run_id", "attempt"])?;
        ensure!(files["keys"] == all && files["repeats"] == 0, "of {all} runs the files of {table} have {files}");
    }
    Ok(())
}

#[test]
fn five_roles_are_one_product_and_an_owner_that_is_killed_is_followed() -> Result<()> {
    let (broker, postgres, dir) = (Broker::shared()?, Postgres::start()?, directory("roles")?);
    let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    configure(&dir, &broker, &postgres, receiver.local_addr()?.port())?;
    // Who keeps the lake is there before any table is: those that come later are kept as well.
    let maintain = Process::start(&dir, "maintain", 0)?;
    let note = dir.join("data/lake/upkeep.json");
    wait_for("maintain to keep an empty lake", 60, || Ok(note.exists().then_some(())))?;
    let mut process = vec![Process::start(&dir, "process", 0)?, Process::start(&dir, "process", 1)?];
    let others = [("serve", 0), ("ingest", 0), ("ingest", 1), ("orchestrate", 0)];
    let mut others = others.into_iter().map(|(role, number)| Process::start(&dir, role, number)).collect::<Result<Vec<_>>>()?;
    others.push(maintain);
    others.iter_mut().try_for_each(Process::wait_ready)?;
    let serve = others[0].http;
    let first = owner(&mut process, 0)?;

    let sender = Sender::default();
    let checkpoint = dir.join("data/lake/tables/pipeline_runs_events/_delta_log/_last_checkpoint");
    process = std::thread::scope(|scope| {
        let sends = scope.spawn(|| sender.run(serve));
        let watches = scope.spawn(|| watch(serve, &sender.ended));
        let outcome = (|| -> Result<Vec<Process>> {
            sender.wait_more(100)?;
            let records: Vec<_> = (0..PRODUCED).map(|number| (Vec::new(), run(&format!("produced-{number}")))).collect();
            broker.produce(TOPIC, &records)?;
            let process = change_owners(&dir, process, first, &sender)?;
            wait_for("maintain to write a checkpoint", 60, || Ok(checkpoint.exists().then_some(())))?;
            wait_for("the upkeep of the checkpoint to be told", 180, || Ok(is_kept(serve)?.then_some(())))?;
            Ok(process)
        })();
        sender.ended.store(true, Ordering::Relaxed);
        ensure!(sends.join().is_ok(), "the sender broke");
        let Ok(answers) = watches.join() else { bail!("the watcher broke") };
        ensure!(answers? > 50, "too few answers to tell anything");
        outcome
    })?;
    check_delivery(serve, &receiver)?;
    check_freshness(serve, "last")?;

    let all = sender.acknowledged.load(Ordering::Relaxed) + PRODUCED + 1;
    check_answers(&others[0], all)?;
    for process in others.iter_mut().chain(&mut process) {
        process.stop()?;
    }
    check_files(&dir.join("data/lake"), all)
}

/// Whether `serve` tells which process keeps the lake, and that it made a checkpoint.
fn is_kept(serve: u16) -> Result<bool> {
    let status = http::must(serve, "GET /api/v1/status", &[], b"")?.json()?;
    let upkeep = &status["upkeep"];
    let by = upkeep["by"].as_str().is_some_and(|by| by.starts_with("maintain/"));
    let tables = upkeep["tables"].as_array().context("no tables")?;
    let events = tables.iter().find(|table| table["table"] == "pipeline_runs_events");
    let is_told = events.is_some_and(|events| events["checkpoint"].is_i64() && events["vacuumed_seconds_ago"].is_i64());
    Ok(upkeep["state"] == "kept" && by && is_told)
}

/// Decides gates, and waits until the table has all of their audit rows.
fn decide(serve: u16, count: usize, sum: &mut usize) -> Result<()> {
    for _ in 0..count {
        let body = json!({"gate": "always"}).to_string();
        let reply = http::must(serve, "POST /api/v1/gates/evaluate", &[("content-type", "application/json")], body.as_bytes())?;
        ensure!(reply.status == 200, "{reply:?}");
    }
    *sum += count;
    wait_for("audit rows in files", 60, || {
        let rows = rows(serve, "SELECT count(_chain) AS n FROM audit_log")?;
        Ok((rows[0]["n"] == *sum).then_some(()))
    })
}

#[test]
fn members_of_ingest_hand_the_audit_log_over() -> Result<()> {
    let (broker, postgres, dir) = (Broker::shared()?, Postgres::start()?, directory("roles_audit")?);
    configure(&dir, &broker, &postgres, free_port()?)?;
    let config = std::fs::read_to_string(dir.join("kirolinter.yaml"))?;
    std::fs::write(dir.join("kirolinter.yaml"), config.replace(TOPIC, "roles.audit"))?;
    let mut first = Process::start(&dir, "ingest", 0)?;
    let mut serve = Process::start(&dir, "serve", 0)?;
    first.wait_ready()?;
    serve.wait_ready()?;
    let status = http::must(serve.http, "GET /api/v1/status", &[], b"")?.json()?;
    ensure!(status["upkeep"]["state"] == "never", "nobody keeps this lake: {status}");
    let mut sum = 0;
    decide(serve.http, 8, &mut sum)?;
    let mut second = Process::start(&dir, "ingest", 1)?;
    second.wait_ready()?;
    decide(serve.http, 8, &mut sum)?;
    first.kill()?;
    decide(serve.http, 8, &mut sum)?;
    let mut third = Process::start(&dir, "ingest", 2)?;
    third.wait_ready()?;
    decide(serve.http, 8, &mut sum)?;
    second.stop()?;
    decide(serve.http, 8, &mut sum)?;
    let report = http::must(serve.http, "GET /api/v1/audit/verify", &[], b"")?.json()?;
    let partitions = report["partitions"].as_array().map_or(0, Vec::len);
    ensure!(report["is_whole"] == true && report["rows"] == sum && partitions > 1, "{report}");
    third.stop()?;
    serve.stop()?;
    let mut doctor = Command::new(program("kirolinterd")?);
    doctor.current_dir(&dir).args(["doctor", "--role", "ingest", "--config", "kirolinter.yaml", "--data-dir", "data", "--deep"]);
    let told = Answer::of(doctor.args(["--format", "json"]).output()?)?;
    ensure!(told.code == Some(0) && told.json()?["looked_at"]["audit rows"] == sum, "{told:?}");
    Ok(())
}
