//! A stop and a start, and a kill and a start, change no answer.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::history::{RUNS, native, runs};
use crate::server::{OPEN, Server};

const QUESTIONS: [&str; 5] = [
    "SELECT * FROM pipeline_runs ORDER BY source, run_id, attempt",
    "SELECT * FROM pipeline_runs_events ORDER BY source, event_id",
    "SELECT * FROM pipeline_health ORDER BY source, pipeline, branch, day",
    "SELECT * FROM features ORDER BY source, run_id, attempt",
    "SELECT source, outcome, count(*) AS n, min(started_at) AS first FROM pipeline_runs GROUP BY 1, 2 ORDER BY 1, 2",
];

fn answers(server: &Server) -> Result<Vec<Vec<Value>>> {
    let rows = |sql: &&str| {
        let mut rows = server.rows(sql)?;
        // When a row was derived is no part of the answer; when an event was recorded is.
        if !sql.contains("_events") {
            rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| drop(row.remove("recorded_at")));
        }
        Ok(rows)
    };
    QUESTIONS.iter().map(rows).collect()
}

fn same(when: &str, found: &[Vec<Value>], expected: &[Vec<Value>]) -> Result<()> {
    for (sql, (found, expected)) in QUESTIONS.iter().zip(found.iter().zip(expected)) {
        let other = found.iter().zip(expected).find(|(found, expected)| found != expected);
        ensure!(
            other.is_none() && found.len() == expected.len(),
            "{when}: {sql}: {} rows, were {}: {other:?}",
            found.len(),
            expected.len()
        );
    }
    Ok(())
}

#[test]
fn answers_outlive_a_restart() -> Result<()> {
    let mut server = Server::start("restart", OPEN)?;
    let history = runs();
    let lines: Vec<String> = history.iter().flat_map(native).collect();
    let (first, rest) = lines.split_at(lines.len() / 2 + 1);
    server.send("first.ndjson", "application/x-ndjson", &first.join("\n"))?;
    let half = answers(&server)?;
    ensure!(half.iter().all(|rows| !rows.is_empty()), "a question without an answer compares nothing");
    server.stop()?;
    server.up()?;
    same("after a stop", &answers(&server)?, &half)?;
    // The open run of the middle and all histories go on where they were.
    server.send("rest.ndjson", "application/x-ndjson", &rest.join("\n"))?;
    let whole = answers(&server)?;
    ensure!(whole[0].len() == RUNS, "{} runs", whole[0].len());
    server.kill()?;
    server.up()?;
    same("after a kill", &answers(&server)?, &whole)?;
    server.stop()?;
    let undivided = Server::start("restart_undivided", OPEN)?;
    undivided.send("all.ndjson", "application/x-ndjson", &lines.join("\n"))?;
    for table in ["pipeline_runs", "pipeline_health", "features"] {
        let question = format!("SELECT count(*) AS n FROM {table}");
        server.up()?;
        let (divided, undivided) = (server.rows(&question)?, undivided.rows(&question)?);
        server.stop()?;
        ensure!(divided == undivided, "{table}: {divided:?} in two parts, {undivided:?} at once");
    }
    Ok(())
}

/// A new control store counts the epochs of its leases from 1, and the tables have seen more of them.
#[test]
fn a_lost_control_store_keeps_nobody_from_starting() -> Result<()> {
    let mut server = Server::start("lost_control", OPEN)?;
    for _ in 0..2 {
        server.stop()?;
        server.up()?;
    }
    server.stop()?;
    std::fs::remove_file(server.data().join("control.sqlite"))?;
    server.up()?;
    let lines: Vec<String> = runs().iter().flat_map(native).collect();
    server.send("events.ndjson", "application/x-ndjson", &lines.join("\n"))?;
    server.stop()?;
    server.up()?;
    ensure!(server.rows("SELECT count(*) AS n FROM pipeline_runs")?[0]["n"] == RUNS, "what the folds derive is not written");
    server.stop()
}
