//! Risk beside an axum handler that echoes JSON; a gate beside one that appends the same bytes to the same kind of log.

use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::machine;
use crate::program::{Bench, Process, Server, setting};
use crate::report::{Report, ms, per, percentile};

const CONNECTIONS: usize = 4;
const SOURCE: &str = "https://github.com/SonarSource/sonarqube";
const COLUMNS: &[&str] = &["", "requests", "requests/s", "p50 ms", "p99 ms", "CPU µs/request"];

/// What is asked, of whom.
struct Target<'t> {
    name: &'t str,
    address: &'t str,
    path: &'t str,
    process: u32,
}

/// What came of it.
struct Load {
    wall: f64,
    cpu: f64,
    took: Vec<Duration>,
}

impl Load {
    fn cells(&mut self, name: &str) -> Vec<String> {
        let count = self.took.len();
        let [p50, p99] = [50, 99].map(|percent| ms(percentile(&mut self.took, percent)));
        vec![name.to_owned(), count.to_string(), format!("{:.0}", per(count, self.wall)), p50, p99, format!("{:.0}", self.cpu_micros())]
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu * 1e6 / self.took.len().max(1) as f64
    }
}

/// Asks the same from several connections for some time, each after its answer.
fn load(target: &Target<'_>, body: &[u8], most: Duration) -> Result<Load> {
    let took = Mutex::new(Vec::new());
    let (begin, before) = (machine::now(), machine::cpu_seconds(target.process)?);
    let ask = || -> Result<()> {
        let (mut door, mut own) = (Connection::open(target.address)?, Vec::new());
        while begin.elapsed() < most {
            let asked = machine::now();
            let (status, answer) = door.post(target.path, "application/json", body)?;
            own.push(asked.elapsed());
            ensure!(status == 200, "{}: {status} {}", target.name, String::from_utf8_lossy(&answer));
        }
        took.lock().ok().context("a thread panicked")?.extend(own);
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
    })?;
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), machine::cpu_seconds(target.process)? - before);
    Ok(Load { wall, cpu, took: took.into_inner().ok().context("a thread panicked")? })
}

/// Both, one after the other, each after some questions that do not count.
fn compare(report: &mut Report, targets: [(&Target<'_>, &[u8]); 2], most: Duration) -> Result<()> {
    let mut loads = Vec::new();
    for (target, body) in targets {
        load(target, body, most / 10)?;
        let mut found = load(target, body, most)?;
        report.row(&found.cells(target.name))?;
        loads.push((found.cpu_micros(), percentile(&mut found.took, 50).as_secs_f64()));
    }
    if let [(our_cpu, ours), (their_cpu, theirs)] = loads.as_slice() {
        report.line(&format!(
            "Ratio: **{:.2}** times the CPU time a request, **{:.2}** times the median latency.",
            our_cpu / their_cpu,
            ours / theirs
        ))?;
    }
    Ok(())
}

/// A peer of this program that serves HTTP.
fn start_peer(bench: &Bench, arguments: &[&str]) -> Result<(Process, String)> {
    let mut peer = Process::spawn(bench.program("kiro-bench").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let address = peer.first_line()?;
    Ok((peer, address))
}

fn risk_body() -> Value {
    let attributes = json!({"git_diff_src_churn": 120, "git_diff_test_churn": 30, "gh_diff_files_added": 2, "gh_diff_files_modified": 9, "gh_sloc": 90_000});
    json!({"source": SOURCE, "pipeline": "travis", "trigger": "push", "attributes": attributes})
}

pub(crate) fn run(bench: &Bench, server: &Server, report: &mut Report) -> Result<()> {
    let most = Duration::from_secs(setting("BENCH_SECONDS", 30_u64)? / 3).max(Duration::from_secs(1));
    server.post("/api/v1/models/evaluate", "").context("the model cannot be trained")?;
    let of_server = |name, path| Target { name, address: &server.address, path, process: server.process.id() };

    let risk = risk_body().to_string();
    let (echo, address) = start_peer(bench, &["echo"])?;
    let peer = Target { name: "axum, echoes the JSON", address: &address, path: "/", process: echo.id() };
    let what = format!(
        "The same question of {} bytes from {CONNECTIONS} connections that are kept, each after its answer. Every answer of the product is in the log, fsynced, before it is sent.",
        risk.len()
    );
    report.section("Risk", &what, COLUMNS)?;
    compare(report, [(&of_server("kirolinterd, risk", "/api/v1/risk"), risk.as_bytes()), (&peer, risk.as_bytes())], most)?;
    drop(echo);

    let gate = json!({"type": "pre-deploy", "parameters": {"source": SOURCE, "pipeline": "travis"}, "risk": risk_body()}).to_string();
    let decision = server.post("/api/v1/gates/evaluate", &gate)?.to_string();
    let folder = bench.work.join("append");
    let (append, address) = start_peer(bench, &["append", &folder.display().to_string()])?;
    let peer = Target { name: "axum, appends the decision", address: &address, path: "/", process: append.id() };
    let what = format!(
        "The demo's gate (SQL, risk, pipeline health), asked from {CONNECTIONS} connections; the peer appends the {} bytes of such a decision to an \
         embedded log of its own, fsynced, and answers them.",
        decision.len()
    );
    report.section("Gate", &what, COLUMNS)?;
    compare(report, [(&of_server("kirolinterd, gate", "/api/v1/gates/evaluate"), gate.as_bytes()), (&peer, decision.as_bytes())], most)
}
