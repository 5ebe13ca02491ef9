//! Processes of the test: one for each role, and the PostgreSQL that they share.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::http;
use crate::server::{free_port, program, wait_for};

/// A real PostgreSQL; it ends with what holds it.
pub(crate) struct Postgres {
    script: Child,
    pub(crate) url: String,
}

impl Postgres {
    pub(crate) fn start() -> Result<Self> {
        let script = kiro_tests::root().join("scripts/postgres.sh");
        let mut script = Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut url = String::new();
        BufReader::new(script.stdout.take().context("no output")?).read_line(&mut url)?;
        ensure!(!url.trim().is_empty(), "scripts/postgres.sh could not start PostgreSQL; its stderr says why");
        Ok(Self { script, url: url.trim().to_owned() })
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
    log: PathBuf,
    pub(crate) http: u16,
    pub(crate) pg: u16,
    child: Child,
}

impl Process {
    pub(crate) fn start(dir: &Path, role: &str, number: usize) -> Result<Self> {
        let name = format!("{role}-{number}");
        let (http, pg, log) = (free_port()?, free_port()?, dir.join(format!("{name}.log")));
        let mut command = Command::new(program("kirolinterd")?);
        command.current_dir(dir).arg(role).args(["--config", "kirolinter.yaml", "--data-dir", "data"]);
        command.args(["--http", &format!("127.0.0.1:{http}"), "--pg", &format!("127.0.0.1:{pg}")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?;
        Ok(Self { name, log, http, pg, child })
    }

    /// What it says when it is asked whether it is ready; `None` while it is not.
    fn state(&mut self) -> Result<Option<String>> {
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

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{} was not killed: {error:#}", self.name);
        }
    }
}
