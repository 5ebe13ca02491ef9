//! A real Prometheus and its promtool; `scripts/setup.sh` brings them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http;
use crate::server::{Server, free_port, wait_for};

/// A file that is shipped for operators.
pub(super) fn shipped(name: &str) -> PathBuf {
    kiro_tests::root().join("deploy").join(name)
}

/// A program of Prometheus: beside the build, else installed.
fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("the test lies in no target folder")?;
    let unpacked = target.join("tools/prometheus/usr/bin").join(name);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let found = Command::new(name).arg("--version").output();
    ensure!(found.is_ok_and(|output| output.status.success()), "{name} is not there: scripts/setup.sh unpacks it");
    Ok(name.into())
}

/// Runs promtool, which must find nothing; what it printed.
pub(super) fn promtool(arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut child =
        Command::new(program("promtool")?).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The names of our metrics in a text.
pub(super) fn metrics_of(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|w| w.starts_with("kiro_") || w.starts_with("process_")).map(str::to_owned).collect()
}

/// A Prometheus that scrapes a server; ended when it is dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    port: u16,
    child: Child,
    log: PathBuf,
}

impl Prometheus {
    /// Starts it with the shipped configuration, of which only target and pace are changed.
    pub(super) fn start(server: &Server, token: &str) -> Result<Self> {
        let dir = server.dir.join("prometheus");
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("kirolinter.token"), token)?;
        std::fs::copy(shipped("prometheus/kirolinter.rules.yml"), dir.join("kirolinter.rules.yml"))?;
        let config = std::fs::read_to_string(shipped("prometheus/prometheus.yml"))?;
        let changed = config.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", server.http)).replace("15s", "1s");
        ensure!(changed != config, "the shipped configuration names no target");
        std::fs::write(dir.join("prometheus.yml"), changed)?;
        promtool(&["check", "config", &dir.join("prometheus.yml").display().to_string()], b"")?;
        let (port, log) = (free_port()?, dir.join("log"));
        let child = Self::spawn(&dir, port, &log)?;
        let mut prometheus = Self { port, child, log };
        wait_for("Prometheus to be ready", 30, || {
            if let Some(status) = prometheus.child.try_wait()? {
                bail!("it ended with {status}: see {}", prometheus.log.display());
            }
            Ok(http::ask(port, "GET /-/ready", &[], b"").filter(|reply| reply.status == 200))
        })?;
        Ok(prometheus)
    }

    fn spawn(dir: &Path, port: u16, log: &Path) -> Result<Child> {
        let mut command = Command::new(program("prometheus")?);
        command.current_dir(dir).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?).spawn()?)
    }

    /// What its API answers.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let reply = http::must(self.port, &format!("GET {path}"), &[], b"")?;
        let answer = reply.json()?;
        ensure!(reply.status == 200 && answer["status"] == "success", "{path}: {reply:?}");
        Ok(answer)
    }

    /// The series that a query answers, as at this moment or over the last minute.
    pub(super) fn query(&self, expression: &str, is_instant: bool) -> Result<Vec<Value>> {
        let expression = encoded(expression);
        let path = if is_instant {
            format!("/api/v1/query?query={expression}")
        } else {
            let now = kiro_ports::Clock::now(&kiro_ports::SystemClock).0 / 1_000_000;
            format!("/api/v1/query_range?query={expression}&start={}&end={now}&step=2", now - 60)
        };
        Ok(self.get(&path)?["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until the server was scraped so often.
    pub(super) fn scraped(&self, times: u32) -> Result<()> {
        wait_for("scrapes", 30, || {
            let counts = self.query("count_over_time(up{job=\"kirolinter\"}[5m])", true)?;
            let is_up = self.query("up{job=\"kirolinter\"} == 1", true)?.len() == 1;
            let count = counts.first().and_then(|series| series["value"][1].as_str()?.parse::<u32>().ok()).unwrap_or(0);
            Ok((is_up && count >= times).then_some(()))
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot end Prometheus: {error}");
        }
    }
}

fn encoded(text: &str) -> String {
    let byte = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}
