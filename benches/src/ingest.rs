//! Kafka → Delta: the product beside Bytewax, from the same topic, one after the other.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kiro_log::{KafkaConfig, KafkaLog};
use kiro_ports::{EventLog as _, NewRecord, SystemClock};

use crate::data::{Dice, event};
use crate::machine;
use crate::program::{Bench, Process, Server, setting, wait_for};
use crate::report::{Report, per};

const TOPIC: &str = "kiro.events";
const PARTITIONS: i32 = 4;
/// Records that wait for their acknowledgement at a time.
const CHUNK: usize = 20_000;
/// Far longer than any of them takes.
const MOST: Duration = Duration::from_mins(30);

/// What one of them took.
struct Cost {
    wall: f64,
    cpu: f64,
    peak: f64,
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = setting("BENCH_EVENTS", 500_000_usize)?;
    let (kafka, brokers) = start_kafka(bench)?;
    let bytes = fill(bench, &brokers, count)?;
    // The peer comes first: the product writes events of its own into the topic.
    let theirs = bytewax(bench, &brokers, count)?;
    let ours = product(bench, &brokers, count)?;
    drop(kafka);
    let what = format!(
        "{count} events, {bytes} bytes of native JSON in {PARTITIONS} partitions of a local Kafka, into Delta tables on the local disk; CPU and \
         peak memory of the whole process, from its start to the last commit. The product checks, drops repeats, commits exactly once with fsync, \
         and also folds subjects, health and features into tables of their own; Bytewax (one worker) parses and appends one table, at least once."
    );
    report.section("Kafka to Delta", &what, &["", "seconds", "events/s", "CPU seconds", "events/CPU-second", "peak MiB"])?;
    for (name, cost) in [("kirolinterd", &ours), ("Bytewax + deltalake", &theirs)] {
        let Cost { wall, cpu, peak } = cost;
        let figures = [format!("{wall:.1}"), format!("{:.0}", per(count, *wall)), format!("{cpu:.1}"), format!("{:.0}", per(count, *cpu))];
        report.row(&[&[name.to_owned()][..], &figures, &[format!("{peak:.0}")]].concat())?;
    }
    let (speed, memory) = (theirs.cpu / ours.cpu, ours.peak / theirs.peak);
    report
        .line(&format!("Ratio: **{speed:.2}** times the events per CPU-second of Bytewax, with **{memory:.2}** times its peak memory."))?;
    Ok(())
}

/// A broker that stops when its input closes.
fn start_kafka(bench: &Bench) -> Result<(Process, String)> {
    let mut command = std::process::Command::new(bench.root.join("scripts/kafka.sh"));
    let mut broker = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let address = broker.first_line()?;
    Ok((broker, address))
}

/// Appends the events; their bytes.
fn fill(bench: &Bench, brokers: &str, count: usize) -> Result<usize> {
    let log = KafkaLog::connect(KafkaConfig::new(brokers), Arc::new(SystemClock))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        log.ensure_topic(TOPIC, PARTITIONS).await?;
        let (mut dice, mut bytes) = (Dice(bench.seed), 0);
        let header = |name: &str, value: &'static str| (name.to_owned(), Bytes::from_static(value.as_bytes()));
        for first in (0..count).step_by(CHUNK) {
            let mut records = Vec::with_capacity(CHUNK);
            for number in first..(first + CHUNK).min(count) {
                let value = Bytes::from(event(&mut dice, number));
                bytes += value.len();
                let headers = vec![header("kiro-format", "native"), header("kiro-tenant", "default")];
                records.push(NewRecord { topic: TOPIC.to_owned(), key: Some(Bytes::from(number.to_string())), value, headers });
            }
            log.append(records).await?;
        }
        Ok(bytes)
    })
}

fn product(bench: &Bench, brokers: &str, count: usize) -> Result<Cost> {
    let begin = machine::now();
    let server = Server::start(bench, "ingest", "auth: {loopback_open: true}\n", Some(brokers))?;
    let all = u64::try_from(count)?;
    wait_for("all events to be committed", MOST, || Ok((server.committed("pipeline_runs_events", TOPIC)? >= all).then_some(())))?;
    let (wall, process) = (begin.elapsed().as_secs_f64(), server.process.id());
    let cost = Cost { wall, cpu: machine::cpu_seconds(process)?, peak: machine::peak_mib(process)? };
    let found = server.row("SELECT count(*) AS n FROM pipeline_runs_events")?;
    ensure!(found["n"] == all, "the table has {} of {count} events", found["n"]);
    Ok(cost)
}

fn bytewax(bench: &Bench, brokers: &str, count: usize) -> Result<Cost> {
    let mut command = bench.peer("bytewax_delta.py");
    command.args([brokers, TOPIC]).arg(bench.work.join("bytewax")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let begin = machine::now();
    let mut peer = Process::spawn(&mut command)?;
    // It tells how many rows it wrote, then waits, so that its costs can still be read.
    let rows: usize = peer.first_line()?.parse().context("the peer tells no number")?;
    let (wall, process) = (begin.elapsed().as_secs_f64(), peer.id());
    let cost = Cost { wall, cpu: machine::cpu_seconds(process)?, peak: machine::peak_mib(process)? };
    if let Some(mut input) = peer.0.stdin.take() {
        input.write_all(b"\n")?;
    }
    ensure!(rows == count, "the peer wrote {rows} of {count} events");
    Ok(cost)
}
