//! The lake on S3: an own server is started by `scripts/s3.py`. Where it cannot be, the tests fail.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use kiro_lake::{Compacted, FaultStore, Lake, Retention, S3Config, Toxics, s3_store};
use kiro_ports::{Commit, Committed, SystemClock, TableSink, TableSource, Transaction};
use kiro_schemas::{Event, Micros, Secret, Subject, Tenant, TopicPartition, subject};
use kiro_tables::{EventRows, Stamp, Table};
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use url::Url;

struct Server {
    script: Child,
    stdin: Option<ChildStdin>,
    address: String,
}

impl Server {
    fn start() -> Self {
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
        let python = python(&scripts);
        let mut script = Command::new(python)
            .arg(scripts.join("s3.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs scripts/s3.py");
        let mut address = String::new();
        BufReader::new(script.stdout.take().expect("its output")).read_line(&mut address).expect("its address");
        assert!(!address.trim().is_empty(), "scripts/s3.py could not start; its stderr says why");
        let server = Self { stdin: script.stdin.take(), script, address: address.trim().to_owned() };
        server.make_bucket();
        server
    }

    /// Makes the bucket `lake`.
    fn make_bucket(&self) {
        let host = self.address.strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(host).expect("it listens");
        write!(stream, "PUT /lake HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "{answer}");
    }

    fn store(&self, prefix: &str) -> Arc<dyn ObjectStore> {
        let config = S3Config {
            bucket: "lake".to_owned(),
            prefix: prefix.to_owned(),
            region: Some("us-east-1".to_owned()),
            endpoint: Some(self.address.clone()),
            access_key_id: Some("test".to_owned()),
            secret_access_key: Some(Secret::new("test")),
            allow_http: true,
        };
        s3_store(&config).expect("a store")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.script.wait().expect("it ends");
    }
}

fn python(scripts: &Path) -> PathBuf {
    let output = Command::new("bash").arg(scripts.join("python.sh")).arg("moto[server]").output().expect("bash runs scripts/python.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

fn table() -> &'static Table {
    Table::find("pipeline_runs_events").expect("a table")
}

fn app(partition: i32) -> String {
    format!("kiro/test/events/{partition}")
}

fn commit(partition: i32, start: i64, next: i64) -> Commit {
    let mut rows = EventRows::default();
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", partition));
    let first = subject::spec(Subject::PipelineRun).transitions[0].transition;
    for offset in start..next {
        let event = Event::new(Subject::PipelineRun, first, "https://ci/a", format!("{partition}-{offset}"), Micros(offset));
        rows.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(offset), at: &at, offset }).expect("a row");
    }
    let rows = rows.finish().expect("batches").into_iter().map(|(_, rows)| rows).collect();
    Commit { rows, transactions: vec![Transaction { app: app(partition), start, next }] }
}

async fn lake_on(store: Arc<dyn ObjectStore>) -> Lake {
    let root = Url::parse("s3://lake").expect("a url");
    Lake::open_with(store, root, Arc::new(SystemClock), Duration::from_micros(100)).await.expect("a lake")
}

/// All places of rows in the table, and how many rows there are.
async fn places(lake: &Lake) -> (usize, HashSet<(i64, i64)>) {
    let batches = lake.scan(table(), &["_partition", "_offset"]).await.expect("a scan");
    let mut found = HashSet::new();
    for batch in &batches {
        let (partitions, offsets) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
        found.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    (batches.iter().map(RecordBatch::num_rows).sum(), found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_if_absent_is_refused_the_second_time() {
    let server = Server::start();
    let store = server.store("a/b");
    let (path, create) = (Location::from("x"), || PutOptions::from(PutMode::Create));
    store.put_opts(&path, "1".into(), create()).await.expect("created");
    let refused = store.put_opts(&path, "2".into(), create()).await.expect_err("it exists");
    assert!(matches!(refused, object_store::Error::AlreadyExists { .. }), "{refused}");
    assert_eq!(store.get(&path).await.expect("there").bytes().await.expect("bytes"), "1");
    assert_eq!(server.store("a").get(&Location::from("b/x")).await.expect("under its prefix").bytes().await.expect("bytes"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_and_restarts_neither_lose_nor_repeat() {
    let server = Server::start();
    let store = Arc::new(FaultStore::new(server.store("faults"), 11, Toxics::default()));
    let mut random = StdRng::seed_from_u64(11);
    let mut lake = lake_on(Arc::clone(&store) as _).await;
    store.set(Toxics { before: 0.04, after: 0.08, conflict: 0.05, ..Toxics::default() });
    let mut next = [0_i64; 2];
    for round in 0..60 {
        if round % 13 == 12 {
            lake = lake_on(Arc::clone(&store) as _).await;
        }
        let partition = random.gen_range(0..2);
        let slot = &mut next[usize::try_from(partition).expect("small")];
        let asked = commit(partition, *slot, *slot + random.gen_range(1..6));
        let outcome = lake.commit(table(), asked.clone()).await;
        assert!(!matches!(outcome, Ok(Committed::Fenced(_))), "nobody else commits, and yet {outcome:?}");
        // An error may hide a commit: the table tells where it stands.
        let stands = loop {
            if let Ok(offsets) = lake.offsets(table()).await {
                break offsets.get(&app(partition)).copied().unwrap_or(0);
            }
        };
        assert!(stands == asked.transactions[0].next || (outcome.is_err() && stands == *slot), "{outcome:?} and it stands at {stands}");
        *slot = stands;
    }
    assert!(store.injected() > 10, "the faults must have struck");
    store.set(Toxics::default());
    let lake = lake_on(server.store("faults")).await;
    assert!(lake.checkpoint_when_due(table(), 10).await.expect("a checkpoint").is_some());
    assert_eq!(lake.checkpoint_when_due(table(), 10).await.expect("an answer"), None, "none is due now");
    let fresh = lake_on(server.store("faults")).await;
    let expected: HashSet<_> = (0_i64..).zip(next).flat_map(|(p, end)| (0..end).map(move |o| (p, o))).collect();
    assert_eq!(places(&fresh).await, (expected.len(), expected));
    let again = fresh.commit(table(), commit(0, next[0], next[0] + 1)).await.expect("an outcome");
    assert!(matches!(again, Committed::Done(_)), "a restart goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_committers_of_one_partition_one_wins() {
    let server = Server::start();
    let (first, zombie) = (lake_on(server.store("race")).await, lake_on(server.store("race")).await);
    let mut done = 0;
    for round in 0..15_i64 {
        let ours = || commit(0, round * 3, round * 3 + 3);
        let (a, b) = tokio::join!(first.commit(table(), ours()), zombie.commit(table(), ours()));
        for outcome in [a.expect("an outcome"), b.expect("an outcome")] {
            match outcome {
                Committed::Done(_) => done += 1,
                Committed::Fenced(moved) => assert_eq!(moved, vec![(app(0), round * 3 + 3)]),
            }
        }
        assert_eq!(done, round + 1);
    }
    let (count, distinct) = places(&first).await;
    assert_eq!((count, distinct.len()), (45, 45));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_on_it_is_kept() {
    let server = Server::start();
    let at_once = Retention::exactly(Duration::ZERO);
    let (lake, other) = (lake_on(server.store("kept")).await, lake_on(server.store("kept")).await);
    let lake = lake.without_checkpoints().trusting(Duration::ZERO);
    for at in 0..12 {
        lake.commit(table(), commit(0, at * 3, at * 3 + 3)).await.expect("a commit");
    }
    let (ours, theirs) = tokio::join!(lake.compact(table(), at_once), other.compact(table(), at_once));
    let done = [ours, theirs].into_iter().filter(|outcome| matches!(outcome, Ok(Compacted::Done { files: 12, .. }))).count();
    assert_eq!((done, lake.live_files(table()).await.expect("files")), (1, 1));
    lake.commit(table(), commit(0, 36, 40)).await.expect("a commit");
    lake.checkpoint(table()).await.expect("a checkpoint").expect("a version");
    // The store tells whole seconds.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(lake.vacuum(table(), at_once).await.expect("vacuum").files, 12);
    assert_eq!(lake.clean_log(table(), at_once).await.expect("cleaned").files, 14);
    let fresh = lake_on(server.store("kept")).await;
    let (count, distinct) = places(&fresh).await;
    assert_eq!((count, distinct.len()), (40, 40));
    assert!(matches!(fresh.commit(table(), commit(0, 40, 41)).await.expect("an outcome"), Committed::Done(_)));
    assert_eq!(places(&lake).await.0, 41);
}
