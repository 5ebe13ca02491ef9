//! Killed ten times while events come in: what was acknowledged is there, once. `make soak` goes on for `SOAK_MINUTES`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::kafka::Broker;
use crate::server::{Answer, Dice, OPEN, Server, request, soak_minutes, wait_for};

const KILLS: usize = 10;
const SENDERS: usize = 3;
const EVENTS_A_POST: usize = 4;

/// Posts numbered events one after the other and keeps the numbers that were acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    pub(crate) next: AtomicUsize,
    pub(crate) acknowledged: Mutex<BTreeSet<String>>,
    pub(crate) ended: AtomicBool,
    /// After each post, so that a long run does not outgrow what one query may answer.
    pub(crate) pause: Duration,
}

impl Sender {
    pub(crate) fn run(&self, port: u16) {
        while !self.ended.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(EVENTS_A_POST, Ordering::Relaxed);
            let ids: Vec<String> = (first..first + EVENTS_A_POST).map(|number| format!("run-{number}")).collect();
            let body: String = ids.iter().map(|id| event(id)).collect();
            let head = "POST /api/v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/x-ndjson\r\n";
            let answer = request(port, &format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
            if answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 202")) {
                self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
                std::thread::sleep(self.pause);
            } else {
                // The server is down: the next one is not tried at full speed.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn event(id: &str) -> String {
    format!(
        "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/kill\",\"subject_id\":\"{id}\",\
         \"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}}}\n"
    )
}

/// Kills the server at seeded instants after it took something, each time on another part of its work: ten times, and on
/// until the time is over.
#[expect(clippy::disallowed_methods, reason = "a long run ends by the clock")]
fn kill_and_restart(server: &mut Server, sender: &Sender, dice: &mut Dice, most: Duration) -> Result<()> {
    let begin = Instant::now();
    for kill in 0.. {
        if kill >= KILLS && begin.elapsed() >= most {
            break;
        }
        if kill % 50 == 49 {
            eprintln!("{} min: {kill} kills, {} events acknowledged", begin.elapsed().as_secs() / 60, sender.acknowledged());
        }
        let before = sender.acknowledged();
        wait_for("an event to be acknowledged", 20, || Ok((sender.acknowledged() > before).then_some(())))?;
        std::thread::sleep(Duration::from_millis(dice.below(700)));
        server.kill()?;
        server.up().with_context(|| format!("after kill {}", kill + 1))?;
    }
    Ok(())
}

/// Counts again without the product's code.
fn recount(server: &Server) -> Result<()> {
    let scripts = kiro_tests::root().join("scripts");
    let python = Answer::of(Command::new(scripts.join("python.sh")).output()?)?;
    ensure!(python.code == Some(0), "{python:?}");
    let lake = server.data().join("lake");
    let answer = Answer::of(Command::new(python.out.trim()).arg(scripts.join("check_lake.py")).arg(lake).arg("--dense").output()?)?;
    ensure!(answer.code == Some(0), "{}\n{}", answer.out, answer.err);
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_ten_kills_once() -> Result<()> {
    survives_ten_kills("kill_nine", OPEN, 20_261_123)
}

#[test]
fn what_kafka_acknowledged_survives_ten_kills_once() -> Result<()> {
    let broker = Broker::shared()?;
    let config = format!("{OPEN}log: {{kafka: \"{}\", topic: kiro.kill, partitions: 3}}\n", broker.address);
    survives_ten_kills("kill_nine_kafka", &config, 20_261_124)
}

fn survives_ten_kills(test: &str, config: &str, seed: u64) -> Result<()> {
    let mut server = Server::start(test, config)?;
    let minutes = soak_minutes()?.unwrap_or(0);
    let sender = Sender { pause: Duration::from_millis(minutes.into()), ..Sender::default() };
    let port = server.http;
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| sender.run(port));
        }
        let result = kill_and_restart(&mut server, &sender, &mut Dice(seed), Duration::from_mins(minutes.into()));
        sender.ended.store(true, Ordering::Relaxed);
        result
    })
    .with_context(|| format!("seed {seed}"))?;

    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let count = |table: &str, id: &str| -> Result<BTreeMap<String, u64>> {
        let rows = server.rows(&format!("SELECT {id} AS id, count(*) AS n FROM {table} GROUP BY 1"))?;
        Ok(rows.iter().filter_map(|row| Some((row["id"].as_str()?.to_owned(), row["n"].as_u64()?))).collect())
    };
    let (events, runs) = (count("pipeline_runs_events", "run_id")?, count("pipeline_runs", "run_id")?);
    let acknowledged = sender.acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let lost: Vec<&String> = acknowledged.iter().filter(|id| !events.contains_key(*id)).collect();
    ensure!(lost.is_empty(), "seed {seed}: {} of {} acknowledged events are lost, such as {:?}", lost.len(), acknowledged.len(), lost[0]);
    let twice: Vec<_> = events.iter().chain(&runs).filter(|(_, n)| **n != 1).collect();
    ensure!(twice.is_empty(), "seed {seed}: {} ids stand more than once, such as {:?}", twice.len(), twice[0]);
    ensure!(events.keys().eq(runs.keys()), "seed {seed}: the runs are not those of the events");
    let health = server.rows("SELECT sum(runs) AS n FROM pipeline_health")?;
    ensure!(health[0]["n"] == runs.len(), "seed {seed}: pipeline_health counts {} of {} runs", health[0]["n"], runs.len());
    server.stop()?;
    recount(&server).with_context(|| format!("seed {seed}"))
}
