//! The programs that are measured: where they are, how they are started, and that they end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http::Connection;
use crate::machine;

/// What a run is made with.
pub(crate) struct Bench {
    pub(crate) profile: String,
    pub(crate) seed: u64,
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Where the programs lie.
    programs: PathBuf,
    /// Everything that is written.
    pub(crate) work: PathBuf,
    /// A Python with the peers' packages.
    pub(crate) python: PathBuf,
}

/// A setting of the environment, or its default.
#[expect(clippy::disallowed_methods, reason = "the settings of a benchmark are its environment")]
pub(crate) fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text} cannot be read")),
        Err(_) => Ok(default),
    }
}

impl Bench {
    pub(crate) fn from_environment() -> Result<Self> {
        let programs = std::env::current_exe()?.parent().context("the program lies in no folder")?.to_owned();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no root")?.to_owned();
        let work = setting("BENCH_DIR", programs.join("bench-data"))?;
        if work.exists() {
            std::fs::remove_dir_all(&work)?;
        }
        std::fs::create_dir_all(&work)?;
        let profile = setting("BENCH_PROFILE", "bench".to_owned())?;
        Ok(Self { profile, seed: setting("BENCH_SEED", 2026)?, root, programs, work, python: setting("BENCH_PYTHON", "python3".into())? })
    }

    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// A Python peer.
    pub(crate) fn peer(&self, script: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(self.root.join("benches/peers").join(script)).current_dir(&self.work);
        command
    }
}

/// A process; killed when it is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("cannot start {command:?}"))?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The first line that it prints: the address of its door.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(!line.trim().is_empty(), "a program ended without telling its address");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What reads its input ends when that closes, and takes with it what it started itself: killed, it would leave that behind.
        if self.0.stdin.take().is_some() {
            for _ in 0..200 {
                if matches!(self.0.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `kirolinterd up` with a data directory of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: String,
    pub(crate) data: PathBuf,
}

/// Looks until there is something.
pub(crate) fn wait_for<T>(what: &str, most: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = machine::now();
    while begin.elapsed() < most {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("waited {} s for {what}", most.as_secs())
}

impl Server {
    /// Starts it with a configuration and waits until it is ready.
    pub(crate) fn start(bench: &Bench, name: &str, config: &str, kafka: Option<&str>) -> Result<Self> {
        let folder = bench.work.join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("kirolinter.yaml"), config)?;
        let (http, pg) = (free_port()?, free_port()?);
        let (address, data) = (format!("127.0.0.1:{http}"), folder.join("data"));
        let mut command = bench.program("kirolinterd");
        command.arg("up").arg("--config").arg(folder.join("kirolinter.yaml")).arg("--data-dir").arg(&data);
        command.args(["--http", &address, "--pg", &format!("127.0.0.1:{pg}")]).current_dir(&bench.root);
        if let Some(brokers) = kafka {
            command.args(["--kafka", brokers]);
        }
        let log = File::create(folder.join("server.log"))?;
        let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))?;
        wait_for("the server", Duration::from_mins(1), || {
            ensure!(process.0.try_wait()?.is_none(), "the server ended: see {}", folder.join("server.log").display());
            let ready = Connection::open(&address).and_then(|mut door| door.get("/readyz"));
            Ok(ready.is_ok_and(|(status, _)| status == 200).then_some(()))
        })?;
        Ok(Self { process, address, data })
    }

    /// Posts JSON on a connection of its own; the JSON of the answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<Value> {
        let (status, answer) = Connection::open(&self.address)?.post(path, "application/json", body.as_bytes())?;
        ensure!((200..300).contains(&status), "{path}: {status} {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// The first row of a query.
    pub(crate) fn row(&self, sql: &str) -> Result<Value> {
        let mut answer = self.post("/api/v1/query", &serde_json::json!({ "sql": sql }).to_string())?;
        Ok(answer["rows"][0].take())
    }

    /// The log positions that a table's commits contain, summed over the partitions of a topic.
    pub(crate) fn committed(&self, table: &str, topic: &str) -> Result<u64> {
        let folder = self.data.join("lake/tables").join(table).join("_delta_log");
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(0) };
        let mut paths: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        paths.sort();
        let mut next = std::collections::BTreeMap::new();
        for path in paths {
            let text = std::fs::read_to_string(&path)?;
            for transaction in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|mut line| line["txn"].take()) {
                let (Some(app), Some(version)) = (transaction["appId"].as_str(), transaction["version"].as_u64()) else { continue };
                let mut parts = app.rsplit('/');
                if let (Some(partition), Some(of)) = (parts.next(), parts.next())
                    && of == topic
                {
                    next.insert(partition.to_owned(), version);
                }
            }
        }
        Ok(next.values().sum())
    }
}

/// A free port of loopback.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
