//! Freshness: how long after its post an event is seen by SQL, while others are posted at a rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::data::{Dice, event};
use crate::http::Connection;
use crate::machine;
use crate::program::{Bench, Server, setting};
use crate::report::{Report, ms, per, percentile};

/// Events of one post.
const BATCH: usize = 1_000;
const SENDERS: usize = 2;
const PROBE_EVERY: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const NDJSON: &str = "application/x-ndjson";

/// Posts at a rate until it is told to stop.
struct Load<'b> {
    address: &'b str,
    rate: usize,
    stop: AtomicBool,
    sent: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load<'_> {
    fn run(&self, sender: usize, seed: u64) -> Result<()> {
        let mut door = Connection::open(self.address)?;
        let (mut dice, mut number) = (Dice(seed + sender as u64), sender * 1_000_000_000);
        let pause = Duration::from_secs_f64(BATCH as f64 * SENDERS as f64 / self.rate as f64);
        let mut due = machine::now();
        while !self.stop.load(Ordering::Relaxed) {
            let body: String = (0..BATCH).map(|at| event(&mut dice, number + at) + "\n").collect();
            number += BATCH;
            // A sender that is late does not wait: what was missed is made up for.
            std::thread::sleep(due.saturating_duration_since(machine::now()));
            due += pause;
            let (status, answer) = door.post("/api/v1/events", NDJSON, body.as_bytes())?;
            ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&answer));
            self.sent.fetch_add(BATCH, Ordering::Relaxed);
            self.bytes.fetch_add(body.len(), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Marked events: when each was due, and what of them was seen how long after.
#[derive(Default)]
struct Probes {
    due: Mutex<Vec<Instant>>,
    ended: AtomicBool,
}

impl Probes {
    fn due(&self) -> Vec<Instant> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Posts one every so often, whether or not the one before was seen: a slow time is not measured less often.
    fn post(&self, address: &str, most: Duration) -> Result<()> {
        let mut door = Connection::open(address)?;
        let begin = machine::now();
        let mut due = begin;
        while due.duration_since(begin) < most {
            std::thread::sleep(due.saturating_duration_since(machine::now()));
            let number = {
                let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(due);
                all.len() - 1
            };
            let body = format!(
                "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/probe\",\"subject_id\":\"{number}\",\
                 \"time\":\"2026-11-23T00:00:00Z\",\"fields\":{{\"pipeline\":\"probe\",\"outcome\":\"success\"}}}}\n"
            );
            let (status, answer) = door.post("/api/v1/events", NDJSON, body.as_bytes())?;
            ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&answer));
            due += PROBE_EVERY;
        }
        Ok(())
    }

    /// Asks for those that are there, again and again, until all are.
    fn look(&self, address: &str) -> Result<Vec<Duration>> {
        let mut door = Connection::open(address)?;
        let question = r#"{"sql":"SELECT run_id FROM pipeline_runs_events WHERE source = 'https://ci.example/probe'"}"#;
        let mut seen: BTreeMap<usize, Duration> = BTreeMap::new();
        let mut last = machine::now();
        loop {
            // So that looking does not cost more than what is looked at.
            std::thread::sleep(LOOK_EVERY);
            let has_ended = self.ended.load(Ordering::Relaxed);
            let (status, answer) = door.post("/api/v1/query", "application/json", question.as_bytes())?;
            ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
            let (now, due, before) = (machine::now(), self.due(), seen.len());
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            let found = answer["rows"].as_array().into_iter().flatten();
            for number in found.filter_map(|row| row["run_id"].as_str()?.parse::<usize>().ok()) {
                if let Some(due) = due.get(number) {
                    seen.entry(number).or_insert_with(|| now.saturating_duration_since(*due));
                }
            }
            if seen.len() > before {
                last = now;
            }
            if has_ended && seen.len() == due.len() {
                return Ok(seen.into_values().collect());
            }
            if last.elapsed() > Duration::from_mins(2) {
                bail!("{} of {} marked events are not seen after two minutes", due.len() - seen.len(), due.len());
            }
        }
    }
}

/// What became of the marked events under a load.
struct Found {
    took: Vec<Duration>,
    reached: f64,
    bytes: usize,
}

fn under_load(server: &Server, rate: usize, seconds: u64, seed: u64) -> Result<Found> {
    let address = server.address.as_str();
    let load = Load { address, rate, stop: AtomicBool::new(false), sent: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
    let (load, probes) = (&load, &Probes::default());
    let begin = machine::now();
    std::thread::scope(|scope| {
        let senders = if rate == 0 { 0 } else { SENDERS };
        let senders: Vec<_> = (0..senders).map(|sender| scope.spawn(move || load.run(sender, seed))).collect();
        let looking = scope.spawn(|| probes.look(address));
        let posted = probes.post(address, Duration::from_secs(seconds));
        load.stop.store(true, Ordering::Relaxed);
        probes.ended.store(true, Ordering::Relaxed);
        let reached = per(load.sent.load(Ordering::Relaxed), begin.elapsed().as_secs_f64());
        for sender in senders {
            sender.join().ok().context("a sender panicked")??;
        }
        let took = looking.join().ok().context("the reader panicked")?;
        posted?;
        Ok(Found { took: took?, reached, bytes: load.bytes.load(Ordering::Relaxed) })
    })
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (rate, seconds) = (setting("BENCH_RATE", 50_000_usize)?, setting("BENCH_SECONDS", 30_u64)?);
    let what = format!(
        "Marked events, one every {} ms, each from when its post was due to the end of the first query that shows it; for {seconds} s at each \
         rate, posts of {BATCH} events to the embedded log (fsync before 202). Senders, reader and server share the machine.",
        PROBE_EVERY.as_millis()
    );
    report.section("Freshness", &what, &["events/s asked", "events/s reached", "MB posted", "probes", "p50 ms", "p99 ms", "longest ms"])?;
    for rate in [0, rate / 10, rate] {
        let server = Server::start(bench, &format!("freshness-{rate}"), "auth: {loopback_open: true}\n", None)?;
        let Found { mut took, reached, bytes } = under_load(&server, rate, seconds, bench.seed)?;
        let figures = [50, 99, 100].map(|percent| ms(percentile(&mut took, percent)));
        let head = [rate.to_string(), format!("{reached:.0}"), format!("{:.0}", bytes as f64 / 1e6), took.len().to_string()];
        report.row(&[&head[..], &figures].concat())?;
    }
    Ok(())
}
