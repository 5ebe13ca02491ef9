//! The audit log: every change of it is found, and what cannot be written down is not done.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bad_start::{fill, on_a_small_disk};
use crate::http::{self, Reply};
use crate::server::{Dice, OPEN, Server, directory, wait_for};

const GATES: &str = r#"
version: 1
gates:
  - name: always
    type: pre-deploy
    criteria:
      - {name: one, sql: "SELECT 1 AS value, 1 AS n", pass: [">= 1"]}
"#;

/// The configuration of a server with a gate.
pub(crate) fn config(test: &str) -> Result<String> {
    let dir = directory(&format!("{test}_files"))?;
    std::fs::write(dir.join("quality_gates.yaml"), GATES)?;
    Ok(format!("{OPEN}gates_file: {}/quality_gates.yaml\n", dir.display()))
}

/// Decides some gates, and waits until the table has their rows.
pub(crate) fn decide(server: &Server, count: usize) -> Result<()> {
    for _ in 0..count {
        server.must(&["gate", "--type=pre-deploy"])?;
    }
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    wait_for("audit rows to be in files", 20, || {
        let rows = server.rows("SELECT count(*) AS n FROM audit_log WHERE _chain IS NULL")?;
        Ok((rows[0]["n"] == 0).then_some(()))
    })
}

fn verify(server: &Server) -> Result<Value> {
    http::must(server.http, "GET /api/v1/audit/verify", &[], b"")?.json()
}

/// The folder of the table.
fn folder(data: &Path) -> PathBuf {
    data.join("lake/tables/audit_log")
}

fn files(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn each_of_a_thousand_flipped_bits_is_found() -> Result<()> {
    let server = Server::start("audit_flips", &config("audit_flips")?)?;
    for _ in 0..4 {
        decide(&server, 5)?;
    }
    let whole = verify(&server)?;
    ensure!(whole["is_whole"] == true && whole["rows"] == 20 && whole["files_without_digest"] == 0, "{whole}");
    let files = files(&folder(&server.data()), "parquet")?;
    ensure!(files.len() >= 4 && whole["files"] == files.len(), "{} files, {whole}", files.len());
    let bytes: Vec<Vec<u8>> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let mut dice = Dice(2026);
    let (mut found, all) = (0, bytes.iter().map(Vec::len).sum::<usize>());
    for _ in 0..1_000 {
        let mut place = usize::try_from(dice.below(all as u64))?;
        let file = bytes
            .iter()
            .position(|bytes| {
                if place < bytes.len() {
                    true
                } else {
                    place -= bytes.len();
                    false
                }
            })
            .context("a byte")?;
        let mut flipped = bytes[file].clone();
        flipped[place] ^= 1 << dice.below(8);
        std::fs::write(&files[file], flipped)?;
        let report = verify(&server)?;
        let name = files[file].file_name().map(|name| name.to_string_lossy().into_owned());
        let is_named = report["breaks"].as_array().into_iter().flatten().any(|found| found["file"].as_str() == name.as_deref());
        ensure!(report["is_whole"] == false && is_named, "byte {place} of {name:?}: {report}");
        found += 1;
        std::fs::write(&files[file], &bytes[file])?;
    }
    ensure!(found == 1_000 && verify(&server)?["is_whole"] == true);
    let client = server.ask(&["audit", "verify"])?;
    ensure!(client.code == Some(0), "{client:?}");
    std::fs::write(&files[0], b"PAR1")?;
    let client = server.ask(&["audit", "verify"])?;
    ensure!(client.code == Some(1) && client.json()?["is_whole"] == false, "{client:?}");
    Ok(())
}

#[test]
fn kills_and_restarts_leave_the_chain_whole_and_a_lost_end_is_missed() -> Result<()> {
    let mut server = Server::start("audit_kills", &config("audit_kills")?)?;
    for round in 0..6 {
        server.must(&["gate", "--type=pre-deploy"])?;
        if round % 2 == 0 {
            server.kill()?;
        } else {
            server.stop()?;
        }
        server.up()?;
        decide(&server, 2)?;
    }
    let report = verify(&server)?;
    ensure!(report["is_whole"] == true && report["rows"] == 18, "{report}");
    server.stop()?;
    // The last commit that brought rows goes, with all after it.
    let log = folder(&server.data()).join("_delta_log");
    let commits = files(&log, "json")?;
    let last =
        commits.iter().rposition(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("\"add\""))).context("a commit")?;
    let away = server.dir.join("away");
    std::fs::create_dir(&away)?;
    for file in &commits[last..] {
        std::fs::rename(file, away.join(file.file_name().context("a name")?))?;
    }
    let told = crate::doctor::examine(&server, &[])?;
    ensure!(told.code == Some(1), "{told:?}");
    let broken = crate::doctor::findings(&told)?.into_iter().find(|finding| finding["check"] == "audit.broken").context("not missed")?;
    ensure!(broken["what"].as_str().is_some_and(|what| what.contains("the end of the log is gone")), "{broken}");
    // The event log still has the rows: they come again, as they were.
    server.up()?;
    wait_for("the rows to come again", 20, || Ok((verify(&server)?["is_whole"] == true).then_some(())))
}

#[test]
fn who_may_verify() -> Result<()> {
    let server = Server::start("audit_roles", &config("audit_roles")?)?;
    for (tenant, role, code) in
        [("default", "operator", None), ("default", "viewer", Some("KIR-1002")), ("globex", "admin", Some("KIR-1010"))]
    {
        let name = format!("{tenant}-{role}");
        let made = server.must(&["token", "create", &name, "--role", role, "--tenant", tenant])?;
        let answer = server.ask_as(made["token"].as_str(), &["audit", "verify"])?;
        match code {
            None => ensure!(answer.code == Some(0), "{answer:?}"),
            Some(code) => ensure!(answer.code == Some(2) && answer.err.contains(code), "{answer:?}"),
        }
    }
    Ok(())
}

fn gate(port: u16) -> Result<Reply> {
    http::must(port, "POST /api/v1/gates/evaluate", &[], br#"{"type": "pre-deploy"}"#)
}

#[test]
fn what_cannot_be_written_down_is_not_done_and_questions_are_answered() -> Result<()> {
    let (server, disk) = on_a_small_disk("audit_full", &config("audit_full")?, "24m")?;
    ensure!(gate(server.http)?.status == 200, "no decision while there is room");
    decide(&server, 1)?;
    fill(&disk.join("filler"))?;
    let refused = wait_for("the log to take nothing more", 60, || Ok(Some(gate(server.http)?).filter(|reply| reply.status != 200)))?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{refused:?}");
    ensure!(refused.body.contains("it cannot be recorded, so it is not done") && refused.body.contains("KIR-1112"), "{refused:?}");
    for (line, body) in [
        ("POST /api/v1/tokens", r#"{"name": "late", "role": "viewer"}"#),
        ("DELETE /api/v1/tokens/nobody", ""),
        ("POST /api/v1/risk", r#"{"source": "https://ci.example/a"}"#),
        ("POST /api/v1/models/evaluate", "{}"),
    ] {
        let reply = http::must(server.http, line, &[], body.as_bytes())?;
        ensure!(reply.status == 503, "{line}: {reply:?}");
    }
    ensure!(server.rows("SELECT count(*) AS n FROM gate_decisions")?[0]["n"] != 0, "what is there cannot be asked");
    std::fs::remove_file(disk.join("filler"))?;
    wait_for("room to be used again", 30, || Ok((gate(server.http)?.status == 200).then_some(())))?;
    let tokens = server.must(&["token", "list"])?;
    ensure!(tokens["tokens"].as_array().is_some_and(Vec::is_empty), "a token was made that nobody wrote down: {tokens}");
    decide(&server, 1)?;
    let report = verify(&server)?;
    ensure!(report["is_whole"] == true, "{report}");
    Ok(())
}

#[test]
fn nobody_sends_what_the_product_writes() -> Result<()> {
    let server = Server::start("audit_forged", OPEN)?;
    for subject in ["audit_entry", "gate_decision", "risk_assessment", "model_version"] {
        let event = format!(
            "{{\"subject\":\"{subject}\",\"transition\":\"recorded\",\"source\":\"urn:kirolinter\",\"subject_id\":\"1\",\"time\":\"2026-03-01T00:00:00Z\"}}"
        );
        let reply = http::must(server.http, "POST /api/v1/events", &[("content-type", "application/x-ndjson")], event.as_bytes())?;
        ensure!(reply.status == 422 && reply.body.contains("written by the product alone"), "{subject}: {reply:?}");
        let mapping = format!(
            "version: 1\ntimezone: UTC\nevents:\n  - subject: {subject}\n    transition: recorded\n    fields:\n      source: {{const: urn:kirolinter}}\n      subject_id: {{const: a}}\n      time: {{const: '2026-03-01T00:00:00Z'}}\n"
        );
        std::fs::write(server.dir.join("forged.mapping.yaml"), mapping)?;
        std::fs::write(server.dir.join("forged.csv"), "a\n1\n")?;
        let answer = server.ask(&["import", "forged.csv", "--mapping", "forged.mapping.yaml"])?;
        ensure!(answer.code == Some(2) && answer.err.contains("no subject"), "{subject}: {answer:?}");
    }
    Ok(())
}
