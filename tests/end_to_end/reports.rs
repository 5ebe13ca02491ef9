//! Reports of tests, coverage and scanners, by the client and by HTTP: what they say is there, once however often they are sent.

use anyhow::{Result, ensure};

use crate::http;
use crate::server::{OPEN, Server};

const ABOUT: [&str; 12] = [
    "--source",
    "https://ci.example/acme/shop",
    "--run-id",
    "42",
    "--attempt",
    "2",
    "--commit",
    "c0ffee",
    "--branch",
    "main",
    "--service",
    "shop",
];

/// The client's answer to files of the analyzers' own tests, which are sent as they lie there.
fn send(server: &Server, files: &[&str]) -> Result<serde_json::Value> {
    let folder = kiro_tests::root().join("integrations/analyzers/tests/dialects");
    let files: Vec<String> = files.iter().map(|file| folder.join(file).display().to_string()).collect();
    let mut arguments = vec!["report", "send", "--wait"];
    arguments.extend(ABOUT);
    arguments.extend(files.iter().map(String::as_str));
    server.must(&arguments)
}

#[test]
fn reports_are_there_once_however_often_they_are_sent() -> Result<()> {
    let server = Server::start("reports", OPEN)?;
    let files = ["surefire-reruns.xml", "pytest-rerunfailures.xml", "istanbul.info", "jacoco.xml", "codeql.sarif"];
    for _ in 0..2 {
        let told = send(&server, &files)?;
        let report = |at: usize, name: &str| told["reports"][at]["report"][name].clone();
        ensure!(report(0, "format") == "junit" && report(0, "events") == 9 && report(0, "error") == 2, "{told}");
        ensure!(report(1, "success") == 5 && report(1, "retries") == 3, "{told}");
        ensure!(report(2, "metrics") == 18 && report(3, "metrics") == 15 && report(4, "metrics") == 35, "{told}");
        let rows = server.rows("SELECT count(*) AS n FROM test_results_events")?;
        ensure!(rows[0]["n"] == 21, "{rows:?}");
        let rows = server.rows("SELECT count(*) AS n, count(DISTINCT metric_id) AS d FROM metrics")?;
        ensure!(rows[0]["n"] == 68 && rows[0]["d"] == 68, "{rows:?}");
    }
    // The same commit failed and passed: the evidence for a test that flickers.
    let passed = "CASE WHEN outcome = 'success' THEN 1 ELSE 0 END";
    let sql = format!(
        "SELECT source, test, commit_sha, count(*) AS attempts FROM test_results WHERE outcome <> 'skip' AND run_id = '42' \
         GROUP BY 1, 2, 3 HAVING max({passed}) > min({passed}) ORDER BY test"
    );
    let rows = server.rows(&sql)?;
    ensure!(rows.len() == 2 && rows[0]["test"] == "flickers" && rows[0]["attempts"] == 3 && rows[1]["test"] == "test_flaky", "{rows:?}");
    let sql = "SELECT value, run_attempt FROM metrics WHERE name = 'coverage.line_ratio' AND service = 'shop' ORDER BY value";
    let rows = server.rows(sql)?;
    ensure!(rows.len() == 2 && rows[0]["value"] == 0.4 && rows[1]["run_attempt"] == 2, "{rows:?}");
    Ok(())
}

#[test]
fn a_broken_report_says_where_and_what_is_there() -> Result<()> {
    let server = Server::start("reports_broken", OPEN)?;
    let cases = |count: usize| -> String { (0..count).map(|at| format!("<testcase name='{at}'/>\n")).collect::<Vec<_>>().concat() };
    // Far more than fits between the door and the reader.
    let good = format!("<testsuite>\n{}</testsuite>", cases(30_000));
    let broken = format!("<testsuite>\n{}</testsuit>{}", cases(1_500), cases(30_000));
    let path = "/api/v1/reports/auto?source=https://ci/a&run_id=7&name=unit&time=2026-11-23T09:00:00Z";
    let post = |path: &str, body: &str| http::must(server.http, &format!("POST {path}"), &[], body.as_bytes());
    let answer = post(path, &broken)?;
    let problem = answer.json()?;
    ensure!(answer.status == 422 && problem["code"] == "KIR-1114", "{answer:?}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(
        detail.contains("line 1502, byte") && detail.contains("</testsuit> closes <testsuite>; 1500 events before it are in the log"),
        "{detail}"
    );
    ensure!(post(path, &good)?.json()?["success"] == 30_000, "the mended report is refused");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    ensure!(server.rows("SELECT count(*) AS n FROM test_results_events")?[0]["n"] == 30_000, "events are there twice");
    for (path, status, code) in [
        ("/api/v1/reports/nunit?source=s&run_id=7", 404, "KIR-1113"),
        ("/api/v1/reports/junit?run_id=7", 422, "KIR-1004"),
        ("/api/v1/reports/junit?source=s&run_id=", 422, "KIR-1004"),
        ("/api/v1/reports/sarif?source=s&run_id=7", 422, "KIR-1114"),
    ] {
        let answer = post(path, "<testsuite/>")?;
        ensure!(answer.status == status && answer.json()?["code"] == code, "{path}: {answer:?}");
    }
    Ok(())
}
