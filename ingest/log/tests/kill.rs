//! Kills a process that appends, and looks for all that it was told is durable.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use kiro_log::{EmbeddedLog, EmbeddedOptions};
use kiro_ports::{EventLog, NewRecord, SystemClock};
use kiro_schemas::TopicPartition;

const FOLDER: &str = "KIRO_LOG_TEST_FOLDER";

fn open(folder: &Path) -> Arc<EmbeddedLog> {
    // Small segments, so that kills also come while a segment is created.
    let options = EmbeddedOptions { segment_bytes: 20_000, retention_bytes: None, ..EmbeddedOptions::default() };
    Arc::new(EmbeddedLog::open(folder, options, Arc::new(SystemClock)).unwrap())
}

/// What the child does: four callers append until the process is killed, and print what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder));
    log.ensure_topic("t", 3).await.unwrap();
    let callers = (0..4).map(|caller| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for n in 0.. {
                let value = format!("{caller}-{n}");
                let record = NewRecord { topic: "t".to_owned(), value: Bytes::from(value.clone()), ..NewRecord::default() };
                for position in log.append(vec![record]).await.unwrap() {
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {} {} {value}", position.at.partition, position.offset).unwrap();
                    out.flush().unwrap();
                }
            }
        })
    });
    futures::future::join_all(callers).await;
}

/// Runs the child until it has acknowledged `count` more records, kills it, and gives what it acknowledged.
fn run_and_kill(folder: &Path, count: usize) -> Vec<(i32, i64, String)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, folder).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut read = |line: String| {
        // The last line may be cut by the kill; libtest may write before the first.
        let Some((_, ack)) = line.split_once("ack ") else { return };
        let parts: Vec<&str> = ack.split(' ').collect();
        let [partition, offset, value] = parts.as_slice() else { return };
        acknowledged.push((partition.parse().unwrap(), offset.parse().unwrap(), (*value).to_owned()));
    };
    for line in lines.by_ref().take(count) {
        read(line.unwrap());
    }
    child.kill().unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    // The very last line may lack its end, and so a digit.
    for line in rest.iter().take(rest.len().saturating_sub(1)) {
        read(line.clone());
    }
    child.wait().unwrap();
    acknowledged
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in 1..=5 {
        let acknowledged = run_and_kill(folder.path(), 60 * round);
        assert!(acknowledged.len() + 10 > 60 * round, "the child acknowledged only {}", acknowledged.len());
        all.extend(acknowledged);
        let log = open(folder.path());
        for (partition, offset, value) in &all {
            let found = log.read(&TopicPartition::new("t", *partition), *offset).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("round {round}: {partition}@{offset} is lost"));
            assert_eq!(found.value.as_deref(), Some(value.as_bytes()), "round {round}: {partition}@{offset}");
        }
        for (at, marks) in log.watermarks("t").await.unwrap() {
            for offset in marks.low..marks.high {
                assert!(log.read(&at, offset).await.unwrap().is_some(), "round {round}: {at}@{offset} is a hole");
            }
        }
    }
}
