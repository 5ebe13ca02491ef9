//! One server of a test, and the client that asks it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What the tests run with; loopback needs no token.
pub(crate) const OPEN: &str = "auth: {loopback_open: true}\nlake: {commit_interval_ms: 200}\n";

/// How often something is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something; an error after about `seconds`.
pub(crate) fn wait_for<T>(what: &str, seconds: u32, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..seconds * 50 {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("waited {seconds} s for {what}")
}

/// Minutes to go on for, if the long run is asked for.
pub(crate) fn soak_minutes() -> Result<Option<u32>> {
    let Some(text) = std::env::var_os("SOAK_MINUTES") else { return Ok(None) };
    Ok(Some(text.to_string_lossy().parse().context("SOAK_MINUTES is no whole number")?))
}

/// A program of the product, which lies beside the tests.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test lies in no target folder")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not there; build it: cargo build --profile quick --workspace --bins", path.display());
    Ok(path)
}

/// An empty directory of the test; it is left there for who wants to look.
pub(crate) fn directory(test: &str) -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A free port below those that the system gives to clients, so that no client of a stopped server can take it.
pub(crate) fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000)?;
    for _ in 0..1_000 {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

/// What a program answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn of(output: Output) -> Result<Self> {
        Ok(Self { code: output.status.code(), out: String::from_utf8(output.stdout)?, err: String::from_utf8(output.stderr)? })
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// A server with its directory; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) dir: PathBuf,
    pub(crate) http: u16,
    pub(crate) pg: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with a configuration, and waits until it is ready.
    pub(crate) fn start(test: &str, config: &str) -> Result<Self> {
        let mut server = Self::prepare(test, config)?;
        server.up()?;
        Ok(server)
    }

    /// A server with its directory and configuration that does not run yet.
    pub(crate) fn prepare(test: &str, config: &str) -> Result<Self> {
        let server = Self { dir: directory(test)?, http: free_port()?, pg: free_port()?, child: None };
        std::fs::write(server.dir.join("kirolinter.yaml"), config)?;
        Ok(server)
    }

    /// Starts it again on its directory, with the same ports.
    pub(crate) fn up(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready(30)
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        let command = self.command(&self.data(), self.http, self.pg)?;
        self.run(command)
    }

    /// The same by another program, which is given the server's command line as its last arguments and becomes it.
    pub(crate) fn spawn_by(&mut self, mut launcher: Command) -> Result<()> {
        let command = self.command(&self.data(), self.http, self.pg)?;
        launcher.current_dir(&self.dir).arg(command.get_program()).args(command.get_args());
        self.run(launcher)
    }

    fn run(&mut self, mut command: Command) -> Result<()> {
        ensure!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.dir.join("server.log"))?;
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the server does not run")?.id())
    }

    /// Waits until it can serve.
    pub(crate) fn ready(&mut self, seconds: u32) -> Result<()> {
        wait_for("the server to be ready", seconds, || {
            if let Some(status) = self.child.as_mut().context("no child")?.try_wait()? {
                bail!("the server ended with {status}: see {}", self.dir.join("server.log").display());
            }
            Ok(get(self.http, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")).then_some(()))
        })
    }

    /// The command that starts a server with this one's configuration.
    pub(crate) fn command(&self, data: &Path, http: u16, pg: u16) -> Result<Command> {
        let mut command = Command::new(program("kirolinterd")?);
        command.current_dir(&self.dir).arg("up").arg("--config").arg(self.dir.join("kirolinter.yaml")).arg("--data-dir").arg(data);
        command.args(["--http", &format!("127.0.0.1:{http}"), "--pg", &format!("127.0.0.1:{pg}")]);
        Ok(command)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Kills it as a power cut would, as far as a process can see.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        ensure!(Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status()?.success(), "no signal was sent");
        let ended = wait_for("the server to stop", 30, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
        }
        ensure!(ended?.success(), "the server did not stop well: see {}", self.dir.join("server.log").display());
        Ok(())
    }

    /// Runs the client with a token, if any.
    pub(crate) fn ask_as(&self, token: Option<&str>, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(program("kirolinter")?);
        command.env_remove("KIROLINTER_TOKEN").current_dir(&self.dir).args(arguments);
        command.args(["--format", "json", "--server", &format!("http://127.0.0.1:{}", self.http)]);
        if let Some(token) = token {
            command.env("KIROLINTER_TOKEN", token);
        }
        Answer::of(command.output()?)
    }

    /// Runs the client.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Answer> {
        self.ask_as(None, arguments)
    }

    /// Runs the client, which must exit with 0.
    pub(crate) fn must(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.ask(arguments)?;
        ensure!(answer.code == Some(0), "kirolinter {arguments:?}: {answer:?}");
        answer.json()
    }

    /// The rows of a query.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<Value>> {
        let mut answer = self.must(&["query", sql])?;
        match answer["rows"].take() {
            Value::Array(rows) => Ok(rows),
            other => bail!("{sql}: no rows but {other}"),
        }
    }

    /// Sends a text as events and waits until they can be queried; how many were taken.
    pub(crate) fn send(&self, name: &str, content_type: &str, text: &str) -> Result<u64> {
        let file = self.dir.join(name);
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        let answer = self.must(&["events", "send", &file, "--content-type", content_type, "--wait"])?;
        answer["accepted"].as_u64().context("the client tells no number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("cannot kill the server: {error:#}");
        }
    }
}

/// A request over a connection of its own; `None` when there is no whole answer.
pub(crate) fn request(port: u16, text: &str) -> Option<String> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok()?;
    // A killed server can leave a connection behind that nobody ends.
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer).filter(|answer| answer.contains("\r\n\r\n"))
}

fn get(port: u16, path: &str) -> Option<String> {
    request(port, &format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"))
}

/// A seeded generator (SplitMix64): the tests need repeatable disorder, not randomness.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = usize::try_from(self.below(at as u64 + 1)).unwrap_or(0);
            items.swap(at, other);
        }
    }
}
