//! The same values through psql, HTTP and the client, in every form; and questions that nobody waits for any more.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http;
use crate::server::{Answer, OPEN, Server, wait_for};

const EVENT: &str = r#"{"subject":"pipeline_run","transition":"finished","source":"https://ci/acme/shop","subject_id":"42","time":"2026-11-01T09:45:00.000001Z","fields":{"pipeline":"ci","outcome":"success","duration_ms":9007199254740993},"attributes":{"team":"a \"b\", c","empty":""}}"#;

/// An expression over the one run, and what psql, JSON and CSV say.
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("run_id", "42", "\"42\"", "42"),
    ("attempt", "1", "1", "1"),
    ("duration_ms", "9007199254740993", "9007199254740993", "9007199254740993"),
    ("-9223372036854775808", "-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
    ("9223372036854775807", "9223372036854775807", "9223372036854775807", "9223372036854775807"),
    ("18446744073709551615", "18446744073709551615", "18446744073709551615", "18446744073709551615"),
    ("'NaN'::double precision", "NaN", "\"NaN\"", "NaN"),
    ("'Infinity'::double precision", "Infinity", "\"Infinity\"", "Infinity"),
    ("'-Infinity'::double precision", "-Infinity", "\"-Infinity\"", "-Infinity"),
    ("0.1::double precision + 0.2::double precision", "0.30000000000000004", "0.30000000000000004", "0.30000000000000004"),
    ("1.5::double precision", "1.5", "1.5", "1.5"),
    ("NULL::double precision", "", "null", ""),
    ("true", "t", "true", "true"),
    ("false", "f", "false", "false"),
    ("NULL::boolean", "", "null", ""),
    ("time", "2026-11-01 09:45:00.000001+00", "\"2026-11-01T09:45:00.000001Z\"", "2026-11-01T09:45:00.000001Z"),
    ("date_trunc('day', time)", "2026-11-01 00:00:00.000000+00", "\"2026-11-01T00:00:00Z\"", "2026-11-01T00:00:00Z"),
    ("time::date", "2026-11-01", "\"2026-11-01\"", "2026-11-01"),
    ("queued_at", "", "null", ""),
    ("branch", "", "null", ""),
    ("'é, \"quoted\"'", "é, \"quoted\"", "\"é, \\\"quoted\\\"\"", "\"é, \"\"quoted\"\"\""),
    ("12.50::decimal(10, 2)", "12.50", "12.50", "12.50"),
    ("attributes['team']", "a \"b\", c", "\"a \\\"b\\\", c\"", "\"a \"\"b\"\", c\""),
    ("attributes['nothing']", "", "null", ""),
    (
        "attributes",
        "{\"empty\":\"\",\"team\":\"a \\\"b\\\", c\"}",
        "{\"empty\":\"\",\"team\":\"a \\\"b\\\", c\"}",
        "\"{\"\"empty\"\":\"\"\"\",\"\"team\"\":\"\"a \\\"\"b\\\"\", c\"\"}\"",
    ),
];

fn query(server: &Server, accept: &str, sql: &str) -> Result<String> {
    let body = json!({ "sql": sql }).to_string();
    let headers = [("accept", accept), ("content-type", "application/json")];
    let reply = http::must(server.http, "POST /api/v1/query", &headers, body.as_bytes())?;
    ensure!(reply.status == 200, "{sql}: {reply:?}");
    Ok(reply.body)
}

fn psql(server: &Server, sql: &str) -> Result<String> {
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-p", &server.pg.to_string(), "-U", "x", "-d", "kirolinter", "-c", sql]);
    let answer = Answer::of(command.output().context("psql is not installed")?)?;
    ensure!(answer.code == Some(0), "{sql}: {answer:?}");
    Ok(answer.out.trim_end_matches('\n').to_owned())
}

#[test]
fn every_type_is_the_same_by_every_door() -> Result<()> {
    let server = Server::start("answers", OPEN)?;
    server.send("run.ndjson", "application/x-ndjson", EVENT)?;
    for (expression, wire, document, cell) in VALUES {
        let sql = format!("SELECT {expression} AS v FROM pipeline_runs");
        let found = psql(&server, &sql)?;
        ensure!(found == *wire, "{sql}: psql says {found:?}, not {wire:?}");
        let expected: Value = serde_json::from_str(document)?;
        let answer = query(&server, "application/json", &sql)?;
        ensure!(answer.contains(&format!("\"rows\":[{{\"v\":{document}}}]")), "{sql}: HTTP says {answer}");
        let line = query(&server, "application/x-ndjson", &sql)?;
        ensure!(line.trim_end() == format!("{{\"v\":{document}}}"), "{sql}: HTTP says {line}");
        let table = query(&server, "text/csv", &sql)?;
        let written = table.trim_end_matches('\n');
        let empty = if cell.is_empty() { "v\n\"\"".to_owned() } else { format!("v\n{cell}") };
        ensure!(written == empty || written == format!("v\n{cell}").trim_end(), "{sql}: HTTP says {table:?}, not {cell:?}");
        let rows = server.rows(&sql)?;
        ensure!(rows.len() == 1 && rows[0]["v"] == expected, "{sql}: the client says {rows:?}, not {expected}");
    }
    Ok(())
}

/// Eight questions fill all places; when their clients go, others are answered at once, long before the time limit.
#[test]
fn a_dropped_connection_cancels_its_question() -> Result<()> {
    let server = Server::start("answers_dropped", OPEN)?;
    let sql = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value * b.value = -1";
    for form in ["application/json", "text/csv"] {
        let body = json!({ "sql": sql }).to_string();
        let head = format!(
            "POST /api/v1/query HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {form}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server.http)))?;
            client.write_all(format!("{head}{body}").as_bytes())?;
            clients.push(client);
        }
        // Others wait for a place while the eight run.
        wait_for("all places to be taken", 10, || {
            let waits = http::ask(server.http, "GET /healthz", &[], b"").is_some_and(|reply| reply.status == 200);
            Ok((waits && psql_within(&server, 1)?.is_none()).then_some(()))
        })?;
        drop(clients);
        ensure!(psql_within(&server, 5)?.is_some(), "{form}: the places are not free");
    }
    Ok(())
}

/// What psql says to a small question, if it says it within some seconds.
fn psql_within(server: &Server, seconds: u32) -> Result<Option<String>> {
    let mut command = Command::new("timeout");
    command.args([&seconds.to_string(), "psql", "-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-p", &server.pg.to_string()]);
    let answer = Answer::of(command.args(["-U", "x", "-d", "kirolinter", "-c", "SELECT 1"]).output()?)?;
    Ok((answer.code == Some(0)).then_some(answer.out))
}
