//! What is killed, paused, cut off, filled up, poisoned or slowed down: nothing is lost, and nothing stands twice. Each test
//! has a figure for every run of the tests and a larger one for `make soak`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http;
use crate::kafka::Broker;
use crate::process::{Postgres, Process};
use crate::server::{Answer, directory, wait_for};

mod disk;
mod image;
mod kills;
mod members;
mod memory;
mod poison;
mod power;
mod topology;

/// Partitions of the topic.
const PARTITIONS: i32 = 12;
/// What a process says that was fenced by the table itself.
const FENCED: &str = "another process commits these partitions";

/// How often or how much: `SOAK_COUNT` says so, else the run decides. `make soak` sets `SOAK`.
fn figure(tests: usize, soak: usize) -> Result<usize> {
    match std::env::var_os("SOAK_COUNT") {
        Some(text) => text.to_string_lossy().parse().context("SOAK_COUNT is no whole number"),
        None if std::env::var_os("SOAK").is_some() => Ok(soak),
        None => Ok(tests),
    }
}

/// For how long: `SOAK_MINUTES` says so, else the run decides.
fn minutes(tests: u64, soak: u64) -> Result<u64> {
    match std::env::var_os("SOAK_MINUTES") {
        Some(text) => text.to_string_lossy().parse().context("SOAK_MINUTES is no whole number"),
        None if std::env::var_os("SOAK").is_some() => Ok(soak),
        None => Ok(tests),
    }
}

/// A finished run of a source, with further members such as `,"attributes":{}`.
fn finished(source: usize, id: &str, more: &str) -> String {
    format!(
        "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/faults/{source}\",\
         \"subject_id\":\"{id}\",\"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}{more}}}"
    )
}

/// The rows of a query, and the rest of the answer.
fn ask(port: u16, sql: &str) -> Result<Value> {
    let body = serde_json::json!({ "sql": sql }).to_string();
    let reply = http::must(port, "POST /api/v1/query", &[("content-type", "application/json")], body.as_bytes())?;
    ensure!(reply.status == 200, "{sql}: {reply:?}");
    reply.json()
}

/// Runs a script of ours with the Python that has what it needs.
fn python(script: &str, arguments: &[&Path]) -> Result<Answer> {
    let scripts = kiro_tests::root().join("scripts");
    let python = Answer::of(Command::new(scripts.join("python.sh")).output()?)?;
    ensure!(python.code == Some(0), "{python:?}");
    Answer::of(Command::new(python.out.trim()).arg(scripts.join(script)).args(arguments).output()?)
}

/// Counts a lake again without the product's code: no row stands twice, and what the tables say that they contain is there.
/// The rows of the events of pipeline runs.
fn recount(lake: &Path) -> Result<usize> {
    let answer = python("check_lake.py", &[lake, Path::new("--dense")])?;
    ensure!(answer.code == Some(0), "{}\n{}", answer.out, answer.err);
    let line = answer.out.lines().find(|line| line.starts_with("pipeline_runs_events:")).context("no events of pipeline runs")?;
    let (_, rest) = line.split_once("rows ").with_context(|| line.to_owned())?;
    Ok(rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse()?)
}

/// Where a table of a lake in a folder stands: the partitions of a topic, by their application ids.
fn stands(lake: &Path, table: &str, topic: &str) -> Result<BTreeMap<String, i64>> {
    let log = lake.join("tables").join(table).join("_delta_log");
    let mut commits: Vec<PathBuf> = std::fs::read_dir(&log)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    commits.retain(|path| path.extension().is_some_and(|end| end == "json"));
    commits.sort();
    let (mut all, topic) = (BTreeMap::new(), format!("/{topic}/"));
    for commit in commits {
        for line in std::fs::read_to_string(commit)?.lines().filter(|line| line.starts_with("{\"txn\"") && line.contains(&topic)) {
            let action: Value = serde_json::from_str(line)?;
            let (Some(app), Some(next)) = (action["txn"]["appId"].as_str(), action["txn"]["version"].as_i64()) else { continue };
            all.insert(app.to_owned(), next);
        }
    }
    Ok(all)
}

/// How many records of a topic a table contains.
fn contained(lake: &Path, table: &str, topic: &str) -> Result<i64> {
    Ok(stands(lake, table, topic)?.values().sum())
}

/// What the roles of a test stand on: a Kafka of its own, since all of `ingest` are one group, a PostgreSQL, a directory.
struct Ground {
    broker: Broker,
    _postgres: Postgres,
    dir: PathBuf,
    topic: String,
    environment: Vec<(&'static str, String)>,
}

impl Ground {
    /// With further lines of the configuration.
    fn new(test: &str, more: &str) -> Result<Self> {
        let (broker, postgres, dir) = (Broker::start()?, Postgres::start()?, directory(&format!("faults_{test}"))?);
        let topic = format!("faults.{test}");
        broker.create_topic(&topic, PARTITIONS)?;
        std::fs::write(dir.join("postgres.url"), &postgres.url)?;
        let config = format!(
            "auth: {{loopback_open: true}}\nlimits: {{ingest: {{requests: 0, window_seconds: 1}}, query: {{requests: 0, window_seconds: 1}}}}\n\
             log: {{kafka: \"{}\", topic: faults.own, topics: [{topic}], partitions: 1}}\n\
             control: {{postgres_file: postgres.url, lease_seconds: 2}}\n{more}",
            broker.address
        );
        std::fs::write(dir.join("kirolinter.yaml"), config)?;
        Ok(Self { broker, _postgres: postgres, dir, topic, environment: Vec::new() })
    }

    fn start(&self, role: &'static str, number: usize) -> Result<Process> {
        Process::start_with(&self.dir, role, number, self.environment.clone())
    }

    fn lake(&self) -> PathBuf {
        self.dir.join("data/lake")
    }

    fn contained(&self, table: &str) -> Result<i64> {
        contained(&self.lake(), table, &self.topic)
    }

    /// Waits until the lake contains so many records.
    fn wait_contained(&self, records: usize) -> Result<()> {
        let has_all = || Ok((self.contained("pipeline_runs_events")? >= i64::try_from(records)?).then_some(()));
        wait_for("the lake to contain the log", 120, has_all)
    }
}

/// Several at once append finished runs, each once, until they are told to end.
#[derive(Debug, Default)]
struct Writers {
    ended: AtomicBool,
    written: AtomicUsize,
}

impl Writers {
    /// One of them: it appends so many at a time, and pauses in between.
    fn write(&self, ground: &Ground, writer: usize, (many, pause): (usize, Duration)) -> Result<()> {
        let feeder = ground.broker.feeder()?;
        for turn in 0.. {
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            for number in turn * many..(turn + 1) * many {
                let id = format!("{writer}-{number}");
                feeder.send(&ground.topic, &id, Some(finished(number % 7, &id, "").as_bytes()))?;
            }
            feeder.flush()?;
            self.written.fetch_add(many, Ordering::Relaxed);
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Does something while four of them write; how much they wrote.
    fn during(&self, ground: &Ground, pace: (usize, Duration), work: impl FnOnce() -> Result<()>) -> Result<usize> {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|writer| scope.spawn(move || self.write(ground, writer, pace))).collect();
            let outcome = work();
            self.ended.store(true, Ordering::Relaxed);
            for writer in all {
                let Ok(written) = writer.join() else { bail!("a writer broke") };
                written?;
            }
            outcome
        })?;
        Ok(self.written.load(Ordering::Relaxed))
    }

    /// Waits until so many more were written.
    fn wait_more(&self, more: usize) -> Result<()> {
        let goal = self.written.load(Ordering::Relaxed) + more;
        wait_for("more to be written", 60, || Ok((self.written.load(Ordering::Relaxed) >= goal).then_some(())))
    }
}
