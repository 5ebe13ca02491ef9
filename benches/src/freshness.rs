//! Freshness: how long after its post an event is seen by SQL, while others are posted at a rate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::data::{Dice, event};
use crate::http::Connection;
use crate::machine;
use crate::program::{Bench, Server, setting};
use crate::report::{Report, ms, per, percentile};

/// Events of one post.
const BATCH: usize = 1_000;
const SENDERS: usize = 2;
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

/// Posts marked events one after the other, each when the one before was seen; how long each took.
fn probe(address: &str, most: Duration) -> Result<Vec<Duration>> {
    let (mut posts, mut questions) = (Connection::open(address)?, Connection::open(address)?);
    let (begin, mut took) = (machine::now(), Vec::new());
    while begin.elapsed() < most {
        let number = took.len();
        let body = format!(
            "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/probe\",\"subject_id\":\"{number}\",\
             \"time\":\"2026-11-23T00:00:00Z\",\"fields\":{{\"pipeline\":\"probe\",\"outcome\":\"success\"}}}}\n"
        );
        let sql = format!("SELECT 1 FROM pipeline_runs_events WHERE source = 'https://ci.example/probe' AND run_id = '{number}'");
        let question = serde_json::json!({ "sql": sql }).to_string();
        let posted = machine::now();
        let (status, answer) = posts.post("/api/v1/events", NDJSON, body.as_bytes())?;
        ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&answer));
        loop {
            let (status, answer) = questions.post("/api/v1/query", "application/json", question.as_bytes())?;
            ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            if answer["rows"].as_array().is_some_and(|rows| !rows.is_empty()) {
                break;
            }
            if posted.elapsed() > Duration::from_mins(1) {
                bail!("probe {number} is not seen after a minute");
            }
        }
        took.push(posted.elapsed());
    }
    Ok(took)
}

/// The probes under a load; the rate that was reached and its bytes.
fn under_load(server: &Server, rate: usize, seconds: u64, seed: u64) -> Result<(Vec<Duration>, f64, usize)> {
    let address = server.address.as_str();
    let load = Load { address, rate, stop: AtomicBool::new(false), sent: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
    let begin = machine::now();
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..if rate == 0 { 0 } else { SENDERS })
            .map(|sender| {
                scope.spawn({
                    let load = &load;
                    move || load.run(sender, seed)
                })
            })
            .collect();
        let took = probe(address, Duration::from_secs(seconds));
        load.stop.store(true, Ordering::Relaxed);
        let wall = begin.elapsed().as_secs_f64();
        let sent = load.sent.load(Ordering::Relaxed);
        for sender in senders {
            sender.join().ok().context("a sender panicked")??;
        }
        Ok((took?, per(sent, wall), load.bytes.load(Ordering::Relaxed)))
    })
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (rate, seconds) = (setting("BENCH_RATE", 50_000_usize)?, setting("BENCH_SECONDS", 30_u64)?);
    let what = format!(
        "Marked events, one after the other, each from the beginning of its post to the end of the first query that shows it; for {seconds} s \
         at each rate, posts of {BATCH} events to the embedded log (fsync before 202). Sender, prober and server share the machine."
    );
    report.section("Freshness", &what, &["events/s asked", "events/s reached", "MB posted", "probes", "p50 ms", "p99 ms", "longest ms"])?;
    for rate in [0, rate / 10, rate] {
        let server = Server::start(bench, &format!("freshness-{rate}"), "auth: {loopback_open: true}\n", None)?;
        let (mut took, reached, bytes) = under_load(&server, rate, seconds, bench.seed)?;
        let figures = [50, 99, 100].map(|percent| ms(percentile(&mut took, percent)));
        let head = [rate.to_string(), format!("{reached:.0}"), format!("{:.0}", bytes as f64 / 1e6), took.len().to_string()];
        report.row(&[&head[..], &figures].concat())?;
    }
    Ok(())
}
