//! Processes of the test: one for each role, and the PostgreSQL that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::http;
use crate::server::{free_port, program, wait_for};

/// A real PostgreSQL; it ends with what holds it.
pub(crate) struct Postgres {
    script: Child,
    told: BufReader<ChildStdout>,
    pub(crate) url: String,
}

impl Postgres {
    pub(crate) fn start() -> Result<Self> {
        let script = kiro_tests::root().join("scripts/postgres.sh");
        let mut script = Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut told = BufReader::new(script.stdout.take().context("no output")?);
        let mut url = String::new();
        told.read_line(&mut url)?;
        ensure!(!url.trim().is_empty(), "scripts/postgres.sh could not start PostgreSQL; its stderr says why");
        Ok(Self { script, told, url: url.trim().to_owned() })
    }

    /// Takes it away, and all connections with it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.order("stop")
    }

    /// Brings it back with what it had.
    pub(crate) fn again(&mut self) -> Result<()> {
        self.order("start")
    }

    fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.script.stdin.as_ref().context("no input")?, "{order}")?;
        let mut done = String::new();
        self.told.read_line(&mut done)?;
        ensure!(done.trim() == order, "PostgreSQL did not {order}: {done}");
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        if let Err(error) = self.script.wait() {
            eprintln!("PostgreSQL did not end: {error}");
        }
    }
}

/// One process of a role; killed when it is dropped.
pub(crate) struct Process {
    name: String,
    role: &'static str,
    dir: PathBuf,
    log: PathBuf,
    environment: Vec<(&'static str, String)>,
    pub(crate) http: u16,
    pub(crate) pg: u16,
    child: Child,
}

/// What the system says that a process uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) resident_mib: f64,
    /// The most that ever was resident, as the kernel counts it.
    pub(crate) peak_mib: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{process}"));
        let status = std::fs::read_to_string(folder.join("status"))?;
        let mib = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        let count = |name: &str| -> Result<usize> { Ok(std::fs::read_dir(folder.join(name))?.count()) };
        Ok(Self { resident_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")?, descriptors: count("fd")?, threads: count("task")? })
    }
}

impl Process {
    pub(crate) fn start(dir: &Path, role: &'static str, number: usize) -> Result<Self> {
        Self::start_with(dir, role, number, Vec::new())
    }

    /// The same with variables of the environment.
    pub(crate) fn start_with(dir: &Path, role: &'static str, number: usize, environment: Vec<(&'static str, String)>) -> Result<Self> {
        let name = format!("{role}-{number}");
        let (http, pg, log) = (free_port()?, free_port()?, dir.join(format!("{name}.log")));
        let child = Self::spawn(dir, role, (http, pg), (&log, &environment))?;
        Ok(Self { name, role, dir: dir.to_owned(), log, environment, http, pg, child })
    }

    fn spawn(dir: &Path, role: &str, ports: (u16, u16), rest: (&Path, &[(&'static str, String)])) -> Result<Child> {
        let (http, pg) = ports;
        let mut command = Command::new(program("kirolinterd")?);
        command.current_dir(dir).arg(role).args(["--config", "kirolinter.yaml", "--data-dir", "data"]);
        command.args(["--http", &format!("127.0.0.1:{http}"), "--pg", &format!("127.0.0.1:{pg}")]);
        command.envs(rest.1.iter().map(|(name, value)| (*name, value)));
        let log = File::options().create(true).append(true).open(rest.0)?;
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
    }

    pub(crate) const fn role(&self) -> &'static str {
        self.role
    }

    /// Starts it again, with the same ports, after it was killed or stopped.
    pub(crate) fn again(&mut self) -> Result<()> {
        self.child = Self::spawn(&self.dir, self.role, (self.http, self.pg), (&self.log, &self.environment))?;
        Ok(())
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// What it exports now.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let reply = http::must(self.http, "GET /metrics", &[], b"")?;
        ensure!(reply.status == 200, "{}: {reply:?}", self.name);
        Ok(Metrics(reply.body))
    }

    /// How often a text stands in what it logged, over all its lives.
    pub(crate) fn logged(&self, text: &str) -> Result<usize> {
        Ok(std::fs::read_to_string(&self.log)?.lines().filter(|line| line.contains(text)).count())
    }

    /// What it says when it is asked whether it is ready; `None` while it is not.
    pub(crate) fn state(&mut self) -> Result<Option<String>> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}: see {}", self.name, self.log.display());
        }
        Ok(http::ask(self.http, "GET /readyz", &[], b"").filter(|reply| reply.status == 200).map(|reply| reply.body))
    }

    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let name = self.name.clone();
        wait_for(&format!("{name} to be ready"), 60, || self.state()).map(drop)
    }

    /// The epoch in which it owns the first shard, if it does.
    pub(crate) fn epoch(&mut self) -> Result<Option<u64>> {
        let Some(state) = self.state()? else { return Ok(None) };
        let Some((_, epoch)) = state.split_once("shard 0 in epoch ") else { return Ok(None) };
        Ok(Some(epoch.chars().take_while(char::is_ascii_digit).collect::<String>().parse()?))
    }

    /// The shards that it owns, each with its epoch.
    pub(crate) fn shards(&mut self) -> Result<BTreeMap<u32, u64>> {
        let state = self.state()?.unwrap_or_default();
        let owned = state.split("shard ").skip(1).filter_map(|text| text.trim_end_matches([',', ' ', '\n']).split_once(" in epoch "));
        owned.map(|(shard, epoch)| Ok((shard.parse()?, epoch.parse()?))).collect()
    }

    /// Whether it owns a shard.
    pub(crate) fn owns(&mut self, shard: u32) -> Result<bool> {
        Ok(self.state()?.is_some_and(|state| state.contains(&format!("shard {shard} in epoch "))))
    }

    /// Whether it runs and owns nothing.
    pub(crate) fn is_waiting(&mut self) -> Result<bool> {
        Ok(self.state()?.is_some_and(|state| state.contains("waiting for a shard")))
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends it a signal, such as `STOP`: it does nothing until `CONT`, and does not know.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status()?;
        ensure!(sent.success(), "{} was not sent {name}", self.name);
        Ok(())
    }

    /// Asks it to end, and waits until it has, well.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let ended = wait_for(&format!("{} to stop", self.name), 40, || Ok(self.child.try_wait()?))?;
        ensure!(ended.success(), "{} did not stop well: see {}", self.name, self.log.display());
        Ok(())
    }
}

/// A page of metrics.
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum over the series of a metric whose labels have these texts.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let is_meant = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
        };
        self.0.lines().filter(is_meant).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Names and labels of all series.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{} was not killed: {error:#}", self.name);
        }
    }
}
