//! The same history by every door gives the same tables.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::github::{self, Fact, Hook, SECRET};
use crate::history::{RUNS, cdevents, csv, mapping, native, runs};
use crate::kafka::{Broker, Record};
use crate::server::{Dice, OPEN, Server};

/// The subject tables that every door can fill.
const TABLES: [(&str, &str); 4] =
    [("pipeline_runs", "run_id, attempt"), ("task_runs", "task_run_id"), ("deployments", "deployment_id"), ("changes", "change_id")];

/// Whose pseudonyms there are.
fn persons(server: &Server) -> Result<Vec<(Value, &'static str)>> {
    ["ada", "grace"].into_iter().map(|name| Ok((server.must(&["persons", "show", name])?["pseudonym"].take(), name))).collect()
}

/// A table as it stands but for some columns; when a row was recorded is none of the door's business. Each server has pseudonyms of
/// its own: the names are put in their place.
fn table(server: &Server, (table, key): (&str, &str), without: &[&str]) -> Result<Vec<Value>> {
    let mut rows = server.rows(&format!("SELECT * FROM {table} ORDER BY source, {key}"))?;
    let persons = persons(server)?;
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        for column in ["actor", "author"] {
            let Some(value) = row.get_mut(column).filter(|value| !value.is_null()) else { continue };
            let name = persons.iter().find(|(pseudonym, _)| pseudonym == value).map(|(_, name)| Value::from(*name));
            *value = name.with_context(|| format!("{table} tells {column} {value}, who is nobody"))?;
        }
        row.retain(|name, _| name != "recorded_at" && !without.contains(&name.as_str()));
    }
    Ok(rows)
}

/// The runs, which must be all of them.
fn run_rows(server: &Server, without: &[&str]) -> Result<Vec<Value>> {
    let rows = table(server, TABLES[0], without)?;
    ensure!(rows.len() == RUNS, "{} runs, not {RUNS}", rows.len());
    Ok(rows)
}

fn same(door: &str, found: &[Value], expected: &[Value]) -> Result<()> {
    for (found, expected) in found.iter().zip(expected) {
        ensure!(found == expected, "{door} gives\n{found}\nand not\n{expected}");
    }
    ensure!(found.len() == expected.len(), "{door} gives {} rows, not {}", found.len(), expected.len());
    Ok(())
}

/// Each event stands once.
fn no_repeats(server: &Server, table: &str, expected: usize) -> Result<()> {
    let events = server.rows(&format!("SELECT count(*) AS n, count(DISTINCT source || event_id) AS d FROM {table}_events"))?;
    ensure!(events[0]["n"] == expected && events[0]["d"] == expected, "{table}: {expected} events, not {events:?}");
    Ok(())
}

/// Everything twice and some of it three times, in disorder.
fn disordered<T>(items: &[T]) -> Vec<&T> {
    let mut repeated: Vec<&T> = items.iter().chain(items).chain(items.iter().step_by(3)).collect();
    Dice(7).shuffle(&mut repeated);
    repeated
}

fn lines() -> Vec<String> {
    runs().iter().flat_map(native).collect()
}

/// The runs as the events API takes them, in order: what all others are held against.
fn expected(test: &str) -> Result<Vec<Value>> {
    let server = Server::start(test, OPEN)?;
    let lines = lines();
    ensure!(server.send("events.ndjson", "application/x-ndjson", &lines.join("\n"))? == lines.len() as u64, "not all were taken");
    let rows = run_rows(&server, &[])?;
    let first = rows.first().context("no row")?;
    ensure!(first["duration_ms"].is_i64() && first["outcome"] == "success" && first["queued_at"].is_string(), "not merged: {first}");
    Ok(rows)
}

fn without(rows: &[Value], names: &[&str]) -> Vec<Value> {
    let mut rows = rows.to_vec();
    rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| row.retain(|name, _| !names.contains(&name.as_str())));
    rows
}

#[test]
fn the_same_history_by_every_door() -> Result<()> {
    let (history, lines, expected) = (runs(), lines(), expected("doors_in_order")?);
    let shuffled = Server::start("doors_shuffled", OPEN)?;
    for (at, chunk) in disordered(&lines).chunks(97).enumerate() {
        let text: Vec<&str> = chunk.iter().map(|line| line.as_str()).collect();
        shuffled.send(&format!("events{at}.ndjson"), "application/x-ndjson", &text.join("\n"))?;
    }
    same("shuffled and repeated", &run_rows(&shuffled, &[])?, &expected)?;
    no_repeats(&shuffled, "pipeline_runs", lines.len())?;
    drop(shuffled);

    let imported = Server::start("doors_import", OPEN)?;
    std::fs::write(imported.dir.join("runs.csv"), csv(&history))?;
    std::fs::write(imported.dir.join("mapping.yaml"), mapping())?;
    for _ in 0..2 {
        let answer = imported.must(&["import", "runs.csv", "--mapping", "mapping.yaml"])?;
        ensure!(answer["rows"] == RUNS && answer["events"] == RUNS * 3, "{answer}");
    }
    imported.send("nothing.ndjson", "application/x-ndjson", "")?;
    same("an import", &run_rows(&imported, &["attributes"])?, &without(&expected, &["attributes"]))?;
    no_repeats(&imported, "pipeline_runs", lines.len())?;
    drop(imported);

    let standard = Server::start("doors_cdevents", OPEN)?;
    let batch: Vec<Value> = history.iter().flat_map(cdevents).collect();
    standard.send("batch.json", "application/cloudevents-batch+json", &Value::from(batch).to_string())?;
    same("CDEvents", &run_rows(&standard, &[])?, &expected)
}

/// A server that takes GitHub's webhooks.
fn with_webhooks(test: &str) -> Result<Server> {
    let secrets = crate::server::directory(&format!("{test}_secrets"))?;
    std::fs::write(secrets.join("github"), SECRET)?;
    Server::start(test, &format!("{OPEN}sources: {{github: {{secret_file: {}}}}}\n", secrets.join("github").display()))
}

#[test]
fn webhooks_tell_the_same_history_however_often() -> Result<()> {
    let history = runs();
    let facts: Vec<Fact> = github::facts(&history);
    let told = Server::start("webhooks_native", OPEN)?;
    let lines: Vec<String> = history.iter().flat_map(native).chain(facts.iter().map(|(line, _)| line.clone())).collect();
    told.send("events.ndjson", "application/x-ndjson", &lines.join("\n"))?;
    // A webhook is known when it arrives, and says other things beside what is modelled.
    let unlike = ["known_at", "attributes"];
    let expected: Vec<Vec<Value>> = TABLES.iter().map(|of| table(&told, *of, &unlike)).collect::<Result<_>>()?;
    ensure!(expected.iter().all(|rows| rows.len() >= 20), "a table is empty: {:?}", expected.iter().map(Vec::len).collect::<Vec<_>>());
    drop(told);

    let server = with_webhooks("webhooks")?;
    let hooks: Vec<Hook> = history.iter().flat_map(github::of_run).chain(facts.into_iter().map(|(_, hook)| hook)).collect();
    let wrong = hooks[0].deliver(server.http, "d-0", "another secret")?;
    ensure!(wrong.status == 401 && wrong.body.contains("signature does not fit"), "{wrong:?}");
    for (at, hook) in disordered(&hooks).into_iter().enumerate() {
        let taken = hook.deliver(server.http, &format!("d-{at}"), SECRET)?;
        ensure!(taken.status == 202, "{taken:?}");
    }
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let refusals = server.rows("SELECT action, reason FROM audit_log WHERE result = 'refused'")?;
    ensure!(
        refusals.len() == 1 && refusals[0]["action"] == "POST /webhooks/github",
        "the wrong signature is not written down: {refusals:?}"
    );
    for (of, expected) in TABLES.iter().zip(&expected) {
        same(of.0, &table(&server, *of, &unlike)?, expected)?;
    }
    let events = [RUNS * 3, expected[1].len() * 3, expected[2].len() * 3, expected[3].len() * 2];
    TABLES.iter().zip(events).try_for_each(|((table, _), events)| no_repeats(&server, table, events))
}

#[test]
fn a_fact_by_several_doors_is_one_event() -> Result<()> {
    let (history, expected) = (runs(), expected("several_expected")?);
    let server = with_webhooks("several")?;
    server.send("events.ndjson", "application/x-ndjson", &lines().join("\n"))?;
    std::fs::write(server.dir.join("runs.csv"), csv(&history))?;
    std::fs::write(server.dir.join("mapping.yaml"), mapping())?;
    server.must(&["import", "runs.csv", "--mapping", "mapping.yaml"])?;
    for (at, hook) in history.iter().flat_map(github::of_run).enumerate() {
        ensure!(hook.deliver(server.http, &format!("d-{at}"), SECRET)?.status == 202, "a webhook is not taken");
    }
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    same("three doors at once", &run_rows(&server, &[])?, &expected)?;
    no_repeats(&server, "pipeline_runs", RUNS * 3)
}

/// A `CloudEvents` message of structured mode.
fn structured(event: &Value) -> Record {
    (vec![("content-type".to_owned(), "application/cloudevents+json; charset=UTF-8".to_owned())], event.to_string())
}

/// The same of binary mode: attributes in headers, the data as the value.
fn binary(event: &Value) -> Record {
    let attributes = event.as_object().into_iter().flatten().filter(|(name, _)| !["data", "datacontenttype"].contains(&name.as_str()));
    let header = |(name, value): (&String, &Value)| (format!("ce_{name}"), value.as_str().unwrap_or_default().to_owned());
    let headers = attributes.map(header).chain([("content-type".to_owned(), "application/json".to_owned())]).collect();
    (headers, event["data"].to_string())
}

/// The history in a tongue of the customer's own, one document a run.
fn documents() -> Vec<Record> {
    let text = csv(&runs());
    let mut rows = text.lines().map(|line| line.splitn(15, ',').map(str::to_owned).collect::<Vec<_>>());
    let heads = rows.next().unwrap_or_default();
    rows.map(|row| (Vec::new(), json!(heads.iter().zip(row).collect::<std::collections::BTreeMap<_, _>>()).to_string())).collect()
}

#[test]
fn kafka_carries_the_same_history() -> Result<()> {
    let (broker, expected, lines) = (Broker::shared()?, expected("kafka_expected")?, lines());
    let config =
        |name: &str, more: &str| format!("{OPEN}log: {{kafka: \"{}\", topic: kiro.{name}, partitions: 3{more}}}\n", broker.address);
    let own = Server::start("doors_kafka", &config("doors", ""))?;
    for (at, chunk) in disordered(&lines).chunks(97).enumerate() {
        let text: Vec<&str> = chunk.iter().map(|line| line.as_str()).collect();
        own.send(&format!("events{at}.ndjson"), "application/x-ndjson", &text.join("\n"))?;
    }
    same("a log in Kafka", &run_rows(&own, &[])?, &expected)?;
    no_repeats(&own, "pipeline_runs", lines.len())?;
    drop(own);

    let events: Vec<Value> = runs().iter().flat_map(cdevents).collect();
    let dir = crate::server::directory("kafka_mapping")?;
    std::fs::write(dir.join("mapping.yaml"), mapping())?;
    let mapped = format!(", mapped_topics: {{acme.mapped: {}}}", dir.join("mapping.yaml").display());
    let topics: [(&str, Vec<Record>, &str, &[&str]); 3] = [
        ("acme.structured", events.iter().map(structured).collect(), ", topics: [acme.structured]", &[]),
        ("acme.binary", events.iter().map(binary).collect(), ", topics: [acme.binary]", &[]),
        ("acme.mapped", documents(), &mapped, &["attributes"]),
    ];
    for (topic, records, more, unlike) in topics {
        broker.create_topic(topic, 2)?;
        let (first, rest) = records.split_at(records.len() / 2);
        broker.produce(topic, first)?;
        let server = Server::start(&format!("doors_{topic}"), &config(topic, more))?;
        let rest: Vec<Record> = disordered(rest).into_iter().chain(first.iter().step_by(5)).cloned().collect();
        broker.produce(topic, &rest)?;
        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        same(topic, &run_rows(&server, unlike)?, &without(&expected, unlike))?;
        no_repeats(&server, "pipeline_runs", RUNS * 3)?;
        let dead = server.rows("SELECT reason FROM dead_letters")?;
        ensure!(dead.is_empty(), "{topic}: {dead:?}");
    }
    Ok(())
}

const RUN_COLUMNS: &str = "run_id, outcome, started_at, finished_at, duration_ms, attributes";

/// The runs as the lines of psql, whatever is asked of it before.
fn by_psql(server: &Server, settings: &str, sql: &str) -> Result<String> {
    let output = std::process::Command::new("psql")
        .args(["-X", "-w", "-A", "-t", "-q", "-h", "127.0.0.1", "-p", &server.pg.to_string(), "-U", "loopback", "-d", "kirolinter"])
        .args(["-c", settings, "-c", sql])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What was answered at a time is what is answered as of that time, by each door, while subjects end and are corrected.
#[test]
fn as_of_a_time_each_door_answers_what_was_answered_then() -> Result<()> {
    let server = Server::start("as_of", OPEN)?;
    let event = |transition: &str, id: &str, minute: u32, rest: &str| {
        format!(
            r#"{{"subject":"pipeline_run","transition":"{transition}","source":"https://ci/a","subject_id":"{id}","time":"2026-11-23T09:{minute:02}:00Z"{rest}}}"#
        )
    };
    let rounds = [
        vec![event("started", "1", 10, r#","fields":{"pipeline":"ci"},"attributes":{"team":"a"}"#), event("queued", "2", 11, "")],
        vec![event("finished", "1", 20, r#","fields":{"outcome":"failure"}"#), event("started", "2", 12, "")],
        vec![event("finished", "1", 21, r#","fields":{"outcome":"success"},"attributes":{"team":"b","tier":"1"}"#)],
        vec![event("finished", "2", 30, r#","fields":{"outcome":"success"}"#), event("started", "3", 31, "")],
    ];
    let sql = format!("SELECT {RUN_COLUMNS} FROM pipeline_runs ORDER BY run_id");
    let mut then = Vec::new();
    for (at, lines) in rounds.iter().enumerate() {
        server.send(&format!("round{at}.ndjson"), "application/x-ndjson", &lines.join("\n"))?;
        let newest = server.rows("SELECT max(recorded_at) AS t FROM pipeline_runs_events")?;
        let time = newest[0]["t"].as_str().context("a time")?.to_owned();
        then.push((time, server.rows(&sql)?, by_psql(&server, "RESET kirolinter.as_of", &sql)?));
    }
    for (time, rows, lines) in &then {
        let by_http = server.must(&["query", &sql, "--as-of", time])?;
        ensure!(by_http["rows"].as_array() == Some(rows), "as of {time} the client tells {by_http}, not {rows:?}");
        let told = by_psql(&server, &format!("SET kirolinter.as_of = '{time}'"), &sql)?;
        ensure!(&told == lines, "as of {time} psql tells {told}, not {lines}");
    }
    ensure!(then[0].1 != then[3].1, "nothing changed");
    Ok(())
}
