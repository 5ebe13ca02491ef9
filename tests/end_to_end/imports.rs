//! Imports that go wrong in the middle: the place is told, nothing is lost, and the next try goes on.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::history::{RUNS, csv, mapping, runs};
use crate::http;
use crate::server::{Answer, OPEN, Server};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn failed(answer: &Answer, words: &[&str]) -> Result<()> {
    ensure!(answer.code == Some(2) && answer.out.is_empty(), "{answer:?}");
    for word in words {
        ensure!(answer.err.contains(word), "{word:?} is not named: {answer:?}");
    }
    Ok(())
}

/// Exactly these runs are there, each event once.
fn holds(server: &Server, count: usize) -> Result<()> {
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = server.rows("SELECT count(*) AS n, count(DISTINCT event_id) AS d FROM pipeline_runs_events")?;
    ensure!(rows[0]["n"] == count * 3 && rows[0]["d"] == count * 3, "{count} runs are not {rows:?}");
    ensure!(server.rows("SELECT count(*) AS n FROM pipeline_runs")?[0]["n"] == count, "not {count} runs");
    Ok(())
}

#[test]
fn a_wrong_import_names_its_place() -> Result<()> {
    let server = Server::start("imports_wrong", OPEN)?;
    std::fs::write(server.dir.join("runs.csv"), csv(&runs()))?;
    let import = |name: &str, mapping: &str| {
        std::fs::write(server.dir.join(name), mapping)?;
        server.ask(&["import", "runs.csv", "--mapping", name])
    };
    failed(&import("column.yaml", &mapping().replace("branch: Ref", "branch: Brunch"))?, &["line 2", "\"Brunch\"", "Ref"])?;
    failed(&import("word.yaml", &mapping().replace("KO: failure", "KAPUTT: failure"))?, &["line 5", "\"KO\" is not in the map"])?;
    failed(&import("kind.yaml", &mapping().replace("attempt: Try", "attempt: Ref"))?, &["line 2", "attempt"])?;
    failed(&import("field.yaml", &mapping().replace("pipeline: Job", "pipelin: Job"))?, &["events[0]", "pipelin", "422"])?;
    failed(&import("yaml.yaml", "version: 1\nevents: [")?, &["422"])?;
    failed(&server.ask(&["import", "nowhere.csv", "--mapping", "word.yaml"])?, &["nowhere.csv"])?;
    failed(&server.ask(&["import", "runs.csv", "--mapping", "nowhere.yaml"])?, &["nowhere.yaml"])?;
    // The rows before the wrong word were good: they are there, and the right mapping adds the others.
    holds(&server, 3)?;
    ensure!(import("good.yaml", &mapping())?.code == Some(0), "the right mapping is refused");
    holds(&server, RUNS)
}

#[test]
fn a_file_cut_in_half_is_taken_up_where_it_ended() -> Result<()> {
    let server = Server::start("imports_half", OPEN)?;
    let text = csv(&runs());
    let lines: Vec<&str> = text.lines().collect();
    let whole = lines[..31].join("\n").len() + 1;
    let torn = text.get(..whole + lines[31].len() / 2).context("a place between characters")?;
    std::fs::write(server.dir.join("mapping.yaml"), mapping())?;
    std::fs::write(server.dir.join("runs.csv"), torn)?;
    failed(&server.ask(&["import", "runs.csv", "--mapping", "mapping.yaml"])?, &["runs.csv", "line 32"])?;
    holds(&server, 30)?;
    std::fs::write(server.dir.join("runs.csv"), &text)?;
    let answer = server.must(&["import", "runs.csv", "--mapping", "mapping.yaml"])?;
    ensure!(answer["rows"] == RUNS, "{answer}");
    holds(&server, RUNS)
}

#[test]
fn an_interrupted_upload_goes_on_after_a_kill() -> Result<()> {
    let mut server = Server::start("imports_upload", OPEN)?;
    let (text, mapping) = (csv(&runs()), mapping());
    std::fs::write(server.dir.join("runs.csv"), &text)?;
    std::fs::write(server.dir.join("mapping.yaml"), &mapping)?;
    let begin = json!({
        "name": "runs.csv", "mapping": mapping, "format": "csv", "size_bytes": text.len(), "sha256": hex::encode(Sha256::digest(&text)),
    });
    let answer = http::must(server.http, "POST /api/v1/imports", &JSON, begin.to_string().as_bytes())?;
    let id = answer.json()?["id"].as_str().with_context(|| format!("{answer:?}"))?.to_owned();
    let half = text.len() / 2;
    let put = format!("PUT /api/v1/imports/{id}/bytes?offset=0");
    let taken = http::must(server.http, &put, &[], text.as_bytes().get(..half).context("half a text")?)?;
    ensure!(taken.status == 200, "{taken:?}");
    server.kill()?;
    server.up()?;
    let shown = http::must(server.http, &format!("GET /api/v1/imports/{id}"), &[], b"")?.json()?;
    ensure!(shown["state"] == "receiving" && shown["received_bytes"] == half, "{shown}");
    let answer = server.must(&["import", "runs.csv", "--mapping", "mapping.yaml"])?;
    ensure!(answer["id"] == id.as_str() && answer["rows"] == RUNS, "{answer}");
    holds(&server, RUNS)
}
