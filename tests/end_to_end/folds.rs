//! Each fold against plain SQL over what it folds.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::github;
use crate::history::{native, runs};
use crate::server::{Dice, OPEN, Server};

/// A question to a fold, and the naive question to what it was made of.
const PAIRS: [(&str, &str); 4] = [
    (
        "SELECT source, pipeline, branch, day, runs, successes, failures, failure_ratio, duration_p50_ms, duration_p95_ms, queue_p50_ms \
         FROM pipeline_health ORDER BY 1, 2, 3, 4",
        "SELECT source, pipeline, branch, date_trunc('day', finished_at) AS day, count(*) AS runs, \
         sum(CASE WHEN outcome = 'success' THEN 1 ELSE 0 END) AS successes, sum(CASE WHEN outcome = 'failure' THEN 1 ELSE 0 END) AS failures, \
         avg(CASE outcome WHEN 'failure' THEN 1.0 WHEN 'success' THEN 0.0 END) AS failure_ratio, \
         percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS duration_p50_ms, \
         percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS duration_p95_ms, \
         percentile_cont(0.5) WITHIN GROUP (ORDER BY (extract(epoch FROM started_at) - extract(epoch FROM queued_at)) * 1000) AS queue_p50_ms \
         FROM pipeline_runs GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
    ),
    (
        "SELECT source, run_id, attempt, outcome, queued_at, started_at, finished_at, duration_ms FROM pipeline_runs ORDER BY 1, 2, 3",
        "SELECT source, run_id, attempt, max(outcome) AS outcome, min(time) FILTER (WHERE transition = 'queued') AS queued_at, \
         min(time) FILTER (WHERE transition = 'started') AS started_at, max(time) FILTER (WHERE transition = 'finished') AS finished_at, \
         cast((extract(epoch FROM max(time) FILTER (WHERE transition = 'finished')) \
         - extract(epoch FROM min(time) FILTER (WHERE transition = 'started'))) * 1000 AS bigint) AS duration_ms \
         FROM pipeline_runs_events GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ),
    (
        "SELECT source, task_run_id, outcome, started_at, finished_at FROM task_runs ORDER BY 1, 2",
        "SELECT source, task_run_id, max(outcome) AS outcome, min(time) FILTER (WHERE transition = 'started') AS started_at, \
         max(time) FILTER (WHERE transition = 'finished') AS finished_at FROM task_runs_events GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        // What was known when a run began, by its window of ten.
        "SELECT run_id, attempt, round(fr10, 9) AS fr10, known_runs FROM features ORDER BY 1, 2",
        "WITH labelled AS (SELECT *, CASE outcome WHEN 'failure' THEN 1.0 ELSE 0.0 END AS failed FROM pipeline_runs), \
         known AS (SELECT r.source, r.pipeline, r.run_id, r.attempt, p.failed, p.started_at, \
         row_number() OVER (PARTITION BY r.source, r.run_id, r.attempt ORDER BY p.started_at DESC) AS back FROM pipeline_runs r \
         JOIN labelled p ON p.source = r.source AND p.pipeline = r.pipeline AND p.started_at < r.started_at AND p.known_at <= r.started_at) \
         SELECT r.run_id, r.attempt, round(coalesce(avg(CASE WHEN k.back <= 10 THEN k.failed END), 0.0), 9) AS fr10, count(k.failed) AS known_runs \
         FROM pipeline_runs r LEFT JOIN known k ON k.source = r.source AND k.run_id = r.run_id AND k.attempt = r.attempt \
         GROUP BY r.source, r.run_id, r.attempt ORDER BY 1, 2",
    ),
];

/// Whether two answers are the same but for the last bits of their sums.
fn agrees(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            found.len() == expected.len() && found.iter().all(|(name, value)| expected.get(name).is_some_and(|other| agrees(value, other)))
        }
        (Value::Number(found), Value::Number(expected)) => {
            let pair = found.as_f64().zip(expected.as_f64());
            pair.is_some_and(|(found, expected)| (found - expected).abs() <= 1e-9 * expected.abs().max(1.0))
        }
        _ => found == expected,
    }
}

#[test]
fn folds_agree_with_plain_sql() -> Result<()> {
    let server = Server::start("folds", OPEN)?;
    let history = runs();
    let facts = github::facts(&history).into_iter().map(|(line, _)| line);
    let mut lines: Vec<String> = history.iter().flat_map(native).chain(facts).collect();
    Dice(11).shuffle(&mut lines);
    for (at, chunk) in lines.chunks(61).enumerate() {
        server.send(&format!("events{at}.ndjson"), "application/x-ndjson", &chunk.join("\n"))?;
    }
    for (fold, plain) in PAIRS {
        let (found, expected) = (server.rows(fold)?, server.rows(plain)?);
        ensure!(!found.is_empty() && found.len() == expected.len(), "{} rows, not {}: {fold}", found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            ensure!(agrees(found, expected), "{fold}\ngives {found}\nand not {expected}");
        }
    }
    Ok(())
}
