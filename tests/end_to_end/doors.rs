//! The same history by every door gives the same runs.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::history::{RUNS, cdevents, csv, mapping, native, runs};
use crate::server::{Dice, OPEN, Server};

const COLUMNS: &str = "tenant, source, pipeline, run_id, attempt, outcome, status, branch, commit_sha, actor, change_id, trigger, \
     queued_at, started_at, finished_at, duration_ms, url, time, known_at";

fn table(server: &Server, columns: &str) -> Result<Vec<Value>> {
    let rows = server.rows(&format!("SELECT {columns} FROM pipeline_runs ORDER BY source, run_id, attempt"))?;
    ensure!(rows.len() == RUNS, "{} runs, not {RUNS}", rows.len());
    Ok(rows)
}

fn same(door: &str, found: &[Value], expected: &[Value]) -> Result<()> {
    for (found, expected) in found.iter().zip(expected) {
        ensure!(found == expected, "{door} gives\n{found}\nand not\n{expected}");
    }
    Ok(())
}

#[test]
fn the_same_history_by_every_door() -> Result<()> {
    let history = runs();
    let in_order = Server::start("doors_in_order", OPEN)?;
    let lines: Vec<String> = history.iter().flat_map(native).collect();
    ensure!(in_order.send("events.ndjson", "application/x-ndjson", &lines.join("\n"))? == lines.len() as u64, "not all were taken");
    let expected = table(&in_order, COLUMNS)?;
    let first = expected.first().context("no row")?;
    ensure!(first["duration_ms"].is_i64() && first["outcome"] == "success" && first["queued_at"].is_string(), "not merged: {first}");
    let expected_attributes = table(&in_order, "attributes")?;
    drop(in_order);

    let shuffled = Server::start("doors_shuffled", OPEN)?;
    let mut repeated: Vec<&String> = lines.iter().chain(&lines).chain(lines.iter().step_by(3)).collect();
    Dice(7).shuffle(&mut repeated);
    for (at, chunk) in repeated.chunks(97).enumerate() {
        let text: Vec<&str> = chunk.iter().map(|line| line.as_str()).collect();
        shuffled.send(&format!("events{at}.ndjson"), "application/x-ndjson", &text.join("\n"))?;
    }
    same("shuffled and repeated", &table(&shuffled, COLUMNS)?, &expected)?;
    same("shuffled and repeated", &table(&shuffled, "attributes")?, &expected_attributes)?;
    let events = shuffled.rows("SELECT count(*) AS n, count(DISTINCT source || event_id) AS d FROM pipeline_runs_events")?;
    ensure!(events[0]["n"] == events[0]["d"], "repeats were kept: {events:?}");
    drop(shuffled);

    let imported = Server::start("doors_import", OPEN)?;
    std::fs::write(imported.dir.join("runs.csv"), csv(&history))?;
    std::fs::write(imported.dir.join("mapping.yaml"), mapping())?;
    for _ in 0..2 {
        let answer = imported.must(&["import", "runs.csv", "--mapping", "mapping.yaml"])?;
        ensure!(answer["rows"] == RUNS && answer["events"] == RUNS * 3, "{answer}");
    }
    imported.send("nothing.ndjson", "application/x-ndjson", "")?;
    same("an import", &table(&imported, COLUMNS)?, &expected)?;
    drop(imported);

    let standard = Server::start("doors_cdevents", OPEN)?;
    let batch: Vec<Value> = history.iter().flat_map(cdevents).collect();
    standard.send("batch.json", "application/cloudevents-batch+json", &Value::from(batch).to_string())?;
    same("CDEvents", &table(&standard, COLUMNS)?, &expected)?;
    same("CDEvents", &table(&standard, "attributes")?, &expected_attributes)
}
