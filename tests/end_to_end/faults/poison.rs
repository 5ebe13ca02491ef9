//! One record in a hundred is poison, of twelve kinds: exactly those become dead letters, nothing else is held up, and what
//! a fix makes readable lands when it is replayed.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use super::{PARTITIONS, figure, finished};
use crate::http;
use crate::kafka::Broker;
use crate::server::{Answer, OPEN, Server, program, wait_for};

/// Of this many records one is poison.
const EVERY: usize = 100;
const LEAST_RATIO: f64 = 0.8;
const ROUNDS: usize = 3;
/// Records of another form that a mapping file reads, once it is right.
const MAPPED: usize = 16_500;
/// Records below this offset are no longer in the log when they are replayed.
const PASSED: i64 = 5_000;

/// Which kind is the large one.
const LARGE: usize = 4;

type Kind = (&'static str, fn(usize) -> Option<Vec<u8>>);

fn good(number: usize) -> String {
    finished(number % 97, &format!("poison-{number}"), "")
}

fn replaced(number: usize, from: &str, to: &str) -> Vec<u8> {
    let (event, wanted) = (good(number), good(number).replacen(from, to, 1));
    assert_ne!(event, wanted, "{from} is not in the event");
    wanted.into_bytes()
}

/// The last one is a repeat, and no dead letter.
const KINDS: [Kind; 12] = [
    ("truncated", |number| Some(good(number).into_bytes()[..60].to_vec())),
    ("bad UTF-8", |number| {
        let mut bytes = good(number).into_bytes();
        let at = bytes.len() - 20;
        bytes[at] = 0xFF;
        Some(bytes)
    }),
    ("depth bomb", |number| Some(replaced(number, "\"fields\":{", &format!("\"fields\":{}", "{\"a\":".repeat(20_000))))),
    ("wrong type", |number| Some(replaced(number, "\"success\"", "{\"is\":\"success\"}"))),
    ("a field of a mebibyte", |number| Some(replaced(number, "\"ci\"", &format!("\"{}\"", "x".repeat(1 << 20))))),
    ("unknown schema", |number| Some(replaced(number, "pipeline_run", "space_ship"))),
    ("empty", |_| Some(Vec::new())),
    ("tombstone", |_| None),
    ("not a number", |number| Some(replaced(number, "\"fields\":{", "\"fields\":{\"duration_ms\":NaN,"))),
    ("huge integer", |number| Some(replaced(number, "\"fields\":{", &format!("\"fields\":{{\"duration_ms\":1{},", "0".repeat(40))))),
    ("wrong time", |number| Some(replaced(number, "2026-03-01T00:00:00Z", "yesterday"))),
    ("repeated id", |number| Some(good(number - 1).into_bytes())),
];

fn kind(number: usize) -> Option<usize> {
    (number % EVERY == EVERY - 1).then(|| number / EVERY % KINDS.len())
}

fn record(number: usize) -> Option<Vec<u8>> {
    kind(number).map_or_else(|| Some(good(number).into_bytes()), |kind| KINDS[kind].1(number))
}

/// What a clean run has in the place of a record: a good one, as large as the poison where that is large, so that both runs
/// have as many records and bytes.
fn clean(number: usize) -> String {
    if kind(number) != Some(LARGE) {
        return good(number);
    }
    let attribute = |name: usize| format!("\"attribute_{name}\":\"{}\"", "x".repeat(64 << 10));
    let attributes: Vec<String> = (0..15).map(attribute).collect();
    finished(number % 97, &format!("poison-{number}"), &format!(",\"attributes\":{{{}}}", attributes.join(",")))
}

#[test]
fn poison_is_put_aside_and_nothing_else() -> Result<()> {
    let count = figure(100_000, 1_000_000)?;
    let broker = Broker::start()?;
    for (topic, partitions) in [("poison.clean", PARTITIONS), ("poison.tenth", PARTITIONS), ("poison.mapped", 1)] {
        broker.create_topic(topic, partitions)?;
    }
    broker.feed("poison.clean", 0..count, |number| Some(clean(number).into_bytes()))?;
    broker.feed("poison.tenth", 0..count, record)?;
    let config = |topic: &str| format!("{OPEN}log: {{kafka: \"{}\", topic: {topic}}}\n", broker.address);
    let mut best = 0.0_f64;
    // A round in which something else held the machine up is no figure of ours: of three one must hold.
    for round in 1..=ROUNDS {
        let mut clean = Server::prepare("poison_clean", &config("poison.clean"))?;
        let clean_took = takes(&mut clean, "poison.clean", count)?;
        clean.stop()?;
        let mut server = Server::prepare("poison", &config("poison.tenth"))?;
        let took = takes(&mut server, "poison.tenth", count)?;
        let ratio = clean_took.as_secs_f64() / took.as_secs_f64();
        eprintln!("poison: {count} records in {took:?}, clean ones in {clean_took:?}: {ratio:.2} of their throughput in round {round}");
        exactly_those(&server, count)?;
        server.stop()?;
        best = best.max(ratio);
        if best >= LEAST_RATIO {
            break;
        }
    }
    ensure!(best >= LEAST_RATIO, "with poison {best:.2} of the throughput is left");
    lands_after_a_fix(&broker)
}

/// Starts a server; how long it takes from the first record to the last.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
fn takes(server: &mut Server, topic: &str, count: usize) -> Result<Duration> {
    server.spawn()?;
    let port = server.http;
    let records = || {
        let page = http::ask(port, "GET /metrics", &[], b"").map(|reply| crate::process::Metrics(reply.body));
        page.map_or(0.0, |page| page.sum("kiro_ingest_records_total", &[topic]))
    };
    wait_for("the first record", 60, || Ok((records() > 0.0).then_some(())))?;
    let began = Instant::now();
    wait_for("the last record", 600, || Ok((records() >= count as f64).then_some(())))?;
    let took = began.elapsed();
    server.ready(60)?;
    Ok(took)
}

/// The dead letters are the poison, byte for byte, and everything else is an event.
fn exactly_those(server: &Server, count: usize) -> Result<()> {
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let mut expected = BTreeMap::<String, (u64, &str)>::new();
    let mut repeats = 0;
    for (number, kind) in (0..count).filter_map(|number| Some((number, kind(number)?))) {
        if kind + 1 == KINDS.len() {
            repeats += 1;
            continue;
        }
        let digest = hex::encode(Sha256::digest(record(number).unwrap_or_default()));
        expected.entry(digest).or_insert((0, KINDS[kind].0)).0 += 1;
    }
    let rows = server.rows("SELECT sha256 AS digest, count(*) AS n FROM dead_letters GROUP BY 1")?;
    let found: BTreeMap<&str, u64> = rows.iter().filter_map(|row| Some((row["digest"].as_str()?, row["n"].as_u64()?))).collect();
    for (digest, (n, kind)) in &expected {
        let stands = found.get(digest.as_str()).copied().unwrap_or(0);
        ensure!(stands == *n, "{kind}: {stands} dead letters of {n}, such as {digest}");
    }
    ensure!(found.len() == expected.len(), "{} kinds of bytes are dead letters, of {}", found.len(), expected.len());
    let letters: u64 = expected.values().map(|(n, _)| n).sum();
    let events = server.rows("SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM pipeline_runs_events")?;
    let wanted = count as u64 - letters - repeats;
    ensure!(events[0]["n"] == wanted && events[0]["d"] == wanted, "{wanted} events were good: {}", events[0]);
    let status = server.must(&["status"])?;
    ensure!(status["repeats"] == repeats && status["dead_letters"] == letters, "{repeats} repeats, {letters} letters: {status}");
    let reasons = server.rows("SELECT DISTINCT substr(reason, 1, 40) AS reason FROM dead_letters")?;
    ensure!(reasons.len() >= KINDS.len() - 3, "the reasons do not tell the kinds apart: {reasons:?}");
    Ok(())
}

const MAPPING: &str = "version: 1\nsource: {const: \"https://ci.example/mapped\"}\nevents:\n  - subject: pipeline_run\n    \
                       transition: finished\n    fields: {subject_id: id, pipeline: {const: ci}, time: at, outcome: {column: state, map: {ok: success}}}\n";

fn row(number: usize) -> Vec<u8> {
    let state = if number.is_multiple_of(3) { "ok" } else { "broken" };
    format!("{{\"id\":\"{number}\",\"at\":\"2026-03-01T00:00:00Z\",\"state\":\"{state}\"}}").into_bytes()
}

/// A mapping file that does not know a word: what has it is put aside; when the word is there all of it lands, from the log or,
/// where retention has passed, from quarantine, although the server is killed meanwhile.
fn lands_after_a_fix(broker: &Broker) -> Result<()> {
    broker.feed("poison.mapped", 0..MAPPED, |number| Some(row(number)))?;
    broker.create_topic("poison.own", 1)?;
    let config =
        format!("{OPEN}log: {{kafka: \"{}\", topic: poison.own, mapped_topics: {{poison.mapped: mapping.yaml}}}}\n", broker.address);
    let mut server = Server::prepare("poison_mapped", &config)?;
    std::fs::write(server.dir.join("mapping.yaml"), MAPPING)?;
    server.up()?;
    let (wrong, right) = ((MAPPED - MAPPED.div_ceil(3)) as u64, MAPPED.div_ceil(3) as u64);
    ensure!(count(&server, "dead_letters")? == wrong && count(&server, "pipeline_runs")? == right, "{wrong} and {right} were to come");
    server.stop()?;
    std::fs::write(server.dir.join("mapping.yaml"), MAPPING.replace("{ok: success}", "{ok: success, broken: failure}"))?;
    broker.delete_below("poison.mapped", 0, PASSED)?;
    // Of one of those that only quarantine has, the bytes are lost.
    std::fs::remove_file(server.data().join("quarantine").join(hex::encode(Sha256::digest(row(1)))))?;
    server.up()?;
    is_killed_while_it_replays(&mut server)?;
    server.up()?;
    let replay = || server.must(&["dead-letters", "replay", "--reason", "mapping"]);
    let answer = replay()?;
    let done = |name: &str| answer[name].as_u64().unwrap_or(u64::MAX);
    ensure!(done("replayed") > 0 && done("already") > 0, "it was to go on where it was: {answer}");
    ensure!(done("replayed") + done("already") == wrong - 1 && answer["lost"] == 1 && answer["empty"] == 0, "of {wrong} letters: {answer}");
    let again = replay()?;
    ensure!(again["replayed"] == 0 && again["already"] == wrong - 1 && again["lost"] == 1, "appended twice: {again}");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    for table in ["pipeline_runs", "pipeline_runs_events"] {
        let runs = server.rows(&format!("SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM {table}"))?;
        ensure!(runs[0]["n"] == MAPPED - 1 && runs[0]["d"] == MAPPED - 1, "{MAPPED} runs but one were to be in {table}: {}", runs[0]);
    }
    ensure!(count(&server, "dead_letters")? == wrong, "what was replayed is a dead letter again");
    server.stop()
}

fn count(server: &Server, table: &str) -> Result<u64> {
    Ok(server.rows(&format!("SELECT count(*) AS n FROM {table}"))?[0]["n"].as_u64().unwrap_or(0))
}

/// The server dies when a part was appended again: the client says what was done and what to do.
fn is_killed_while_it_replays(server: &mut Server) -> Result<()> {
    let mut client = Command::new(program("kirolinter")?);
    client.env("KIROLINTER_SERVER", format!("http://127.0.0.1:{}", server.http)).args(["dead-letters", "replay", "--reason", "mapping"]);
    let client = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_for("a part to be appended again", 120, || {
        let parts = server.rows("SELECT count(*) AS n FROM audit_log WHERE action = 'dead_letters.replayed'")?;
        Ok((parts[0]["n"] != 0).then_some(()))
    })?;
    server.kill()?;
    let answer = Answer::of(client.wait_with_output()?)?;
    ensure!(answer.code == Some(2) && answer.err.contains("run the command once more for the others"), "{answer:?}");
    Ok(())
}
