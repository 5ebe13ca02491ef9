//! `kirolinterd doctor` on damaged data directories: each damage has its finding.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::bad_start::{fill, on_a_small_disk};
use crate::http;
use crate::server::{Answer, OPEN, Server, directory, program, wait_for};

/// Runs the doctor on the directory of a server.
pub(crate) fn examine(server: &Server, more: &[&str]) -> Result<Answer> {
    run(&server.dir, &server.data(), more)
}

fn run(dir: &Path, data: &Path, more: &[&str]) -> Result<Answer> {
    let mut command = Command::new(program("kirolinterd")?);
    command.current_dir(dir).arg("doctor").arg("--config").arg(dir.join("kirolinter.yaml")).arg("--data-dir").arg(data);
    Answer::of(command.args(["--format", "json"]).args(more).output()?)
}

/// What it found.
pub(crate) fn findings(told: &Answer) -> Result<Vec<Value>> {
    told.json()?["findings"].as_array().cloned().context("no findings")
}

fn checks(told: &Answer) -> Result<Vec<String>> {
    Ok(findings(told)?.iter().filter_map(|finding| finding["check"].as_str().map(str::to_owned)).collect())
}

/// A server that has run: with events, a decision, a dead letter, a model and a checkpoint.
fn used() -> Result<Server> {
    let secret = directory("doctor_secret")?.join("secret");
    std::fs::write(&secret, "a secret")?;
    let config =
        format!("{}sources: {{github: {{secret_file: {}}}}}\nlog: {{partitions: 1}}\n", crate::audit::config("doctor")?, secret.display());
    let mut server = Server::start("doctor", &config)?;
    let run = |number: usize| {
        format!(
            "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/a\",\"subject_id\":\"{number}\",\
             \"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}}}\n"
        )
    };
    for round in 0..3 {
        server.send("runs.ndjson", "application/x-ndjson", &(round * 10..round * 10 + 10).map(run).collect::<String>())?;
        crate::audit::decide(&server, 1)?;
    }
    server.must(&["models", "evaluate"])?;
    let body = r#"{"action":"completed","workflow_run":7}"#;
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret")?;
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let headers = [("content-type", "application/json"), ("x-github-event", "workflow_run"), ("x-hub-signature-256", signature.as_str())];
    let taken = http::must(server.http, "POST /webhooks/github", &[&headers[..], &[("x-github-delivery", "1")]].concat(), body.as_bytes())?;
    ensure!(taken.status == 202, "{taken:?}");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    server.stop()?;
    Ok(server)
}

fn first(folder: &Path, end: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = folder.read_dir()?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(end));
    found.sort();
    found.into_iter().next().with_context(|| format!("no {end} in {}", folder.display()))
}

/// Changes the control store behind the product's back.
pub(crate) fn sql(data: &Path, statement: &str) -> Result<()> {
    let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.executescript(sys.argv[2])\ndb.commit()\ndb.close()";
    let done = Command::new("python3").args(["-c", script]).arg(data.join("control.sqlite")).arg(statement).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn runs(data: &Path) -> PathBuf {
    data.join("lake/tables/pipeline_runs_events")
}

fn commit(data: &Path, version: u64) -> PathBuf {
    runs(data).join(format!("_delta_log/{version:020}.json"))
}

/// Another number in the transaction of a commit that is the last to tell it.
fn with_offset(data: &Path, next: i64) -> Result<()> {
    for table in data.join("lake/tables").read_dir()?.flatten() {
        let log = table.path().join("_delta_log");
        let mut commits: Vec<PathBuf> =
            log.read_dir()?.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        commits.sort();
        let last = commits.last().context("a commit")?;
        let version: u64 = last.file_stem().and_then(|name| name.to_str()).context("a name")?.parse()?;
        let text = format!("{{\"txn\":{{\"appId\":\"kiro/main/kiro.events/0\",\"version\":{next}}}}}\n");
        std::fs::write(log.join(format!("{:020}.json", version + 1)), text)?;
    }
    Ok(())
}

type Damage = fn(&Path) -> Result<()>;

/// What is done to the directory, with the findings that tell of it.
const DAMAGES: &[(&str, Damage)] = &[
    ("data.leftovers", |data| Ok(std::fs::write(data.join("lake/tables/sources/part-1.parquet#123456"), "half")?)),
    ("log.lost", |data| Ok(std::fs::remove_dir_all(data.join("log"))?)),
    ("log.damaged", |data| Ok(std::fs::write(first(&data.join("log/topics/kiro.events"), ".redb")?, "no database")?)),
    ("log.newer", |data| Ok(std::fs::write(data.join("log/FORMAT"), "9\n")?)),
    ("log.topic_missing", |data| Ok(std::fs::remove_dir_all(data.join("log/topics/kiro.events"))?)),
    ("log.short", |data| with_offset(data, 1_000)),
    ("lake.lost", |data| Ok(std::fs::remove_dir_all(data.join("lake"))?)),
    ("lake.newer", |data| Ok(std::fs::write(data.join("lake/lake.json"), "{\"format\":9}")?)),
    ("lake.damaged", |data| Ok(std::fs::write(data.join("lake/lake.json"), "{")?)),
    ("lake.commit_missing", |data| Ok(std::fs::remove_file(commit(data, 1))?)),
    ("lake.commit_damaged", |data| Ok(std::fs::write(commit(data, 1), "")?)),
    ("lake.checkpoint_damaged", |data| Ok(std::fs::write(runs(data).join("_delta_log/_last_checkpoint"), "{\"version\":7,\"size\":1}")?)),
    ("lake.misfit", |data| {
        let text = std::fs::read_to_string(commit(data, 0))?;
        Ok(std::fs::write(commit(data, 0), text.replace(r#"\"type\":\"timestamp\""#, r#"\"type\":\"long\""#))?)
    }),
    ("lake.file_missing", |data| Ok(std::fs::remove_file(first(&runs(data), ".parquet")?)?)),
    ("lake.file_size", |data| Ok(std::fs::write(first(&runs(data), ".parquet")?, "PAR1")?)),
    ("lake.file_digest", |data| {
        let path = first(&runs(data), ".parquet")?;
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(std::fs::write(path, bytes)?)
    }),
    ("lake.unnamed_files", |data| Ok(std::fs::write(runs(data).join("part-left.parquet"), "left")?)),
    ("audit.broken", |data| Ok(std::fs::write(first(&data.join("lake/tables/audit_log"), ".parquet")?, "PAR1")?)),
    ("letters.bytes_missing", |data| Ok(std::fs::remove_file(first(&data.join("quarantine"), "")?)?)),
    ("letters.bytes_damaged", |data| Ok(std::fs::write(first(&data.join("quarantine"), "")?, "other bytes")?)),
    ("control.absent", |data| Ok(std::fs::remove_file(data.join("control.sqlite"))?)),
    ("control.newer", |data| sql(data, "UPDATE kiro_schema SET version = 99")),
    ("control.older", |data| sql(data, "UPDATE kiro_schema SET version = 1")),
    ("control.unreadable", |data| {
        Ok(std::fs::write(data.join("control.sqlite"), "no database at all, and long enough to be one".repeat(100))?)
    }),
    ("control.lease_left", |data| sql(data, "INSERT INTO leases VALUES ('fold/x', 'somebody', 1, 4000000000000000)")),
    ("control.deliveries_dead", |data| {
        sql(data, "INSERT INTO outbox VALUES ('a/b', 'default', 'deploy', '{}', 'dead', 24, 1, 1, NULL, 'HTTP 410')")
    }),
    ("control.deliveries_stuck", |data| {
        sql(data, "INSERT INTO outbox VALUES ('a/b', 'default', 'deploy', '{}', 'waiting', 0, 1, 1, NULL, NULL)")
    }),
    ("control.model_missing", |data| Ok(std::fs::remove_dir_all(data.join("lake/models"))?)),
];

#[test]
fn each_damage_has_its_finding() -> Result<()> {
    let server = used()?;
    let clean = examine(&server, &["--deep"])?;
    ensure!(clean.code == Some(0) && checks(&clean)?.is_empty(), "{clean:?}");
    let looked = &clean.json()?["looked_at"];
    ensure!(looked["dead letters"] == 1 && looked["audit rows"].as_u64() > Some(3) && looked["partitions of the log"] == 3, "{looked}");
    let before = digest(&server.data())?;
    ensure!(examine(&server, &["--deep"])?.code == Some(0) && digest(&server.data())? == before, "the doctor changed something");
    let copy = server.dir.join("damaged");
    for (check, damage) in DAMAGES {
        if copy.exists() {
            std::fs::remove_dir_all(&copy)?;
        }
        ensure!(Command::new("cp").arg("-a").arg(server.data()).arg(&copy).status()?.success(), "no copy");
        damage(&copy).with_context(|| format!("{check}: the damage"))?;
        let told = run(&server.dir, &copy, &["--deep"])?;
        let found = findings(&told)?;
        let finding =
            found.iter().find(|finding| finding["check"] == *check).with_context(|| format!("{check} was not found: {told:?}"))?;
        let is_note = finding["severity"] == "note";
        ensure!(told.code == Some(i32::from(found.iter().any(|finding| finding["severity"] != "note"))), "{check}: {told:?}");
        ensure!(!is_note || found.len() == 1, "{check}: more than the damage was found: {told:?}");
        for key in ["place", "what", "means", "do"] {
            ensure!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{check} does not tell {key}: {finding}");
        }
    }
    Ok(())
}

/// Names and contents of all files but of the lock, which is taken.
fn digest(data: &Path) -> Result<String> {
    let script = "cd \"$0\" && find . -type f ! -name LOCK ! -name '*-shm' -exec sha256sum {} + | sort";
    Answer::of(Command::new("sh").args(["-c", script]).arg(data).output()?).map(|answer| answer.out)
}

#[test]
fn beside_a_running_server_it_looks_at_what_it_can() -> Result<()> {
    let mut server = Server::start("doctor_beside", OPEN)?;
    let told = examine(&server, &[])?;
    ensure!(told.code == Some(0) && checks(&told)? == ["log.in_use"], "{told:?}");
    sql(&server.data(), "INSERT INTO leases VALUES ('fold/x', 'somebody', 1, 1)")?;
    let dead = examine(&server, &[])?;
    ensure!(dead.code == Some(1) && checks(&dead)?.contains(&"control.lease_dead".to_owned()), "{dead:?}");
    sql(&server.data(), "DELETE FROM leases WHERE name = 'fold/x'")?;
    let away = examine(&server, &["--kafka", "127.0.0.1:1"])?;
    ensure!(away.code == Some(1) && checks(&away)? == ["log.unreachable"; 3], "{away:?}");
    server.kill()?;
    let killed = examine(&server, &[])?;
    ensure!(killed.code == Some(0) && checks(&killed)?.iter().all(|check| check == "control.lease_left"), "{killed:?}");
    let text = Answer::of(Command::new(program("kirolinterd")?).current_dir(&server.dir).args(["doctor", "--data-dir", "data"]).output()?)?;
    ensure!(text.out.contains("note: control.lease_left at ") && text.out.contains("0 errors, 0 warnings"), "{text:?}");
    Ok(())
}

#[test]
fn a_stopped_partition_and_a_gap_to_come_are_told() -> Result<()> {
    let mut server = Server::start("doctor_gap", &format!("{OPEN}log: {{partitions: 1}}\n"))?;
    crate::audit::decide(&server, 0)?;
    server.must(&["token", "create", "a", "--role", "viewer"])?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    server.stop()?;
    // The tables stand where another log has not come yet.
    with_offset(&server.data(), 500)?;
    ensure!(checks(&examine(&server, &[])?)?.contains(&"log.short".to_owned()), "not seen before the start");
    server.spawn()?;
    wait_for("the partition to be stopped", 30, || {
        let status = http::ask(server.http, "GET /api/v1/status", &[], b"").and_then(|reply| reply.json().ok());
        Ok(status.filter(|status| status["gaps"] == 1).map(drop))
    })?;
    server.stop()?;
    let told = examine(&server, &[])?;
    ensure!(told.code == Some(1) && checks(&told)? == ["log.stopped"], "{told:?}");
    // What the runbook says: another topic, and the rows of before stay.
    std::fs::write(server.dir.join("kirolinter.yaml"), format!("{OPEN}log: {{partitions: 1, topic: kiro.events2}}\n"))?;
    server.up()?;
    server.must(&["token", "create", "b", "--role", "viewer"])?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    ensure!(server.rows("SELECT count(*) AS n FROM audit_log")?[0]["n"] == 2, "it does not go on with another topic");
    server.stop()
}

#[test]
fn configured_files_that_cannot_be_used_are_told() -> Result<()> {
    let server = Server::prepare("doctor_files_bad", OPEN)?;
    let nothing = examine(&server, &[])?;
    ensure!(nothing.code == Some(2) && nothing.err.contains("there is no data directory"), "{nothing:?}");
    std::fs::create_dir(server.data())?;
    let bad = server.dir.join("bad.yaml");
    std::fs::write(&bad, "version: 1\ngates: 7\n")?;
    for (config, code, words) in [
        (format!("{OPEN}gates_file: {}\n", bad.display()), 1, "bad.yaml"),
        (format!("{OPEN}gates_file: /nowhere.yaml\n"), 1, "/nowhere.yaml"),
        (format!("{OPEN}sources: {{github: {{secret_file: /nowhere}}}}\n"), 1, "sources.github"),
        (format!("{OPEN}pg: {{tls: {{certificate_file: /nowhere, key_file: /nowhere}}}}\n"), 1, "pg.tls"),
        (format!("{OPEN}log: {{mapped_topics: {{t: {}}}}}\n", bad.display()), 1, "bad.yaml"),
        (format!("{OPEN}log: {{partitions: 0}}\n"), 2, "log.partitions"),
        ("nothing: known\n".to_owned(), 2, "nothing"),
    ] {
        std::fs::write(server.dir.join("kirolinter.yaml"), &config)?;
        let told = examine(&server, &[])?;
        ensure!(told.code == Some(code), "{config}: {told:?}");
        let found = findings(&told)?;
        ensure!(found[0]["check"] == "config.file" && found[0].to_string().contains(words), "{config}: {told:?}");
    }
    Ok(())
}

#[test]
fn a_disk_without_room_is_told() -> Result<()> {
    let (server, disk) = on_a_small_disk("doctor_room", OPEN, "24m")?;
    fill(&disk.join("filler"))?;
    let told = run(&server.dir, &disk, &[])?;
    ensure!(checks(&told)?.contains(&"data.disk_full".to_owned()), "{told:?}");
    Ok(())
}
