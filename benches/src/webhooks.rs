//! Webhooks: how long until a delivery is acknowledged, when they come at a rate.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::http::Connection;
use crate::machine;
use crate::program::{Bench, Server, setting};
use crate::report::{Report, ms, per, percentile};

const SECRET: &str = "a secret of the webhook";
/// Connections that the deliveries come over.
const SENDERS: usize = 8;
/// A payload of GitHub's documentation; each delivery is another run of it.
const PAYLOAD: &str = include_str!("../../integrations/tests/github/workflow_run.completed.json");

fn signature(body: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(body.as_bytes());
    Ok(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

/// Deliveries at a rate, whether or not those before were answered; each is counted from when it was due.
fn at_rate(server: &Server, rate: usize, seconds: u64) -> Result<Vec<Duration>> {
    let took = Mutex::new(Vec::new());
    let count = rate * usize::try_from(seconds)?;
    let begin = machine::now();
    let send = |sender: usize| -> Result<()> {
        let (mut door, mut own) = (Connection::open(&server.address)?, Vec::new());
        for number in (sender..count).step_by(SENDERS) {
            let body = PAYLOAD.replace("289782451", &number.to_string());
            let (id, signature) = (format!("d-{number}"), signature(&body)?);
            let headers = [("x-github-event", "workflow_run"), ("x-github-delivery", &id), ("x-hub-signature-256", &signature)];
            let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(machine::now()));
            let (status, answer) = door.send("/webhooks/github", &headers, body.as_bytes())?;
            own.push(due.elapsed());
            ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&answer));
        }
        took.lock().ok().context("a thread panicked")?.extend(own);
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || send(sender))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
    })?;
    took.into_inner().ok().context("a thread panicked")
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (rate, seconds) = (setting("BENCH_WEBHOOKS", 500_usize)?, setting("BENCH_SECONDS", 30_u64)?);
    let what = format!(
        "Signed deliveries of {} bytes over {SENDERS} connections for {seconds} s at each rate, each from when it was due to its 202: verified, \
         rid of secrets, in the embedded log with fsync. Senders and server share the machine.",
        PAYLOAD.len()
    );
    report.section("Webhooks", &what, &["deliveries/s asked", "reached", "p50 ms", "p99 ms", "longest ms", "CPU µs/delivery"])?;
    let secret = bench.work.join("github.secret");
    std::fs::write(&secret, SECRET)?;
    for rate in [rate / 5, rate] {
        let config = format!(
            "auth: {{loopback_open: true}}\nlimits: {{ingest: {{requests: 0, window_seconds: 1}}}}\nsources: {{github: {{secret_file: {}}}}}\n",
            secret.display()
        );
        let server = Server::start(bench, &format!("webhooks-{rate}"), &config, None)?;
        let (begin, before) = (machine::now(), machine::cpu_seconds(server.process.id())?);
        let mut took = at_rate(&server, rate, seconds)?;
        let (wall, cpu) = (begin.elapsed().as_secs_f64(), machine::cpu_seconds(server.process.id())? - before);
        let figures = [50, 99, 100].map(|percent| ms(percentile(&mut took, percent)));
        let head = [rate.to_string(), format!("{:.0}", per(took.len(), wall))];
        report.row(&[&head[..], &figures, &[format!("{:.0}", cpu * 1e6 / took.len().max(1) as f64)]].concat())?;
    }
    Ok(())
}
