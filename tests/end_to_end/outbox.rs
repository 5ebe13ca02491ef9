//! What decisions start, killed at any moment: every recorded decision reaches its targets under one key, signed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::http;
use crate::server::{Dice, OPEN, Server, directory, wait_for};

const KILLS: usize = 10;
const KEY: &[u8] = b"sixteen bytes and some more";
const TOKEN: &str = "t0ken-of-the-workflow";
const GATES: &str = r#"
version: 1
gates:
  - name: always
    type: pre-deploy
    on_decision: [{target: hook, when: always}, {target: run, when: always}]
    criteria:
      - {name: one, sql: "SELECT 1 AS value", pass: ["= 1"]}
"#;

/// A request that came in.
#[derive(Debug)]
struct Seen {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Seen {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        Some(Self { path, headers, body: String::from_utf8(body).ok()? })
    }

    /// The idempotency key, as each target is given it.
    fn key(&self) -> Result<String> {
        if self.path == "/hook" {
            return Ok(self.headers.get("webhook-id").context("no webhook-id")?.clone());
        }
        ensure!(self.path == "/repos/acme/shop/actions/workflows/deploy.yml/dispatches", "{}", self.path);
        let body: Value = serde_json::from_str(&self.body)?;
        ensure!(body["ref"] == "main", "{body}");
        Ok(body["inputs"]["idempotency_key"].as_str().context("no key among the inputs")?.to_owned())
    }

    /// As the specification of Standard Webhooks says, with none of the product's code.
    fn check_signature(&self) -> Result<()> {
        if self.path != "/hook" {
            ensure!(self.headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}")), "{self:?}");
            return Ok(());
        }
        let header = |name: &str| self.headers.get(name).with_context(|| format!("no {name}"));
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY)?;
        mac.update(format!("{}.{}.{}", header("webhook-id")?, header("webhook-timestamp")?, self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        ensure!(header("webhook-signature")?.split(' ').any(|given| given == expected), "the signature does not fit: {self:?}");
        Ok(())
    }
}

/// Takes what is sent; now and then it is busy, or takes a request and dies before it answers.
#[derive(Debug)]
struct Receiver {
    listener: TcpListener,
    seen: Mutex<Vec<Seen>>,
    ended: AtomicBool,
}

impl Receiver {
    fn run(&self) {
        for (at, stream) in self.listener.incoming().enumerate() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut stream) = stream else { continue };
            // A sender that was killed can leave half a request.
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap_or_default();
            if at % 13 == 5 {
                stream.write_all(b"HTTP/1.1 503 busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap_or_default();
                continue;
            }
            let Some(seen) = Seen::read(&stream) else { continue };
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            if at % 7 != 3 {
                stream.write_all(b"HTTP/1.1 204 taken\r\nconnection: close\r\n\r\n").unwrap_or_default();
            }
        }
    }

    fn end(&self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        TcpStream::connect(self.listener.local_addr()?)?;
        Ok(())
    }
}

/// Asks for decisions and keeps the ids of those that were answered.
#[derive(Debug, Default)]
struct Pipelines {
    next: AtomicUsize,
    answered: Mutex<BTreeSet<String>>,
    ended: AtomicBool,
}

impl Pipelines {
    fn run(&self, port: u16) {
        while !self.ended.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let body = json!({"gate": "always", "idempotency_key": format!("build-{number}")}).to_string();
            let answer = http::ask(port, "POST /api/v1/gates/evaluate", &[("content-type", "application/json")], body.as_bytes());
            let decision = answer.filter(|answer| answer.status == 200).and_then(|answer| answer.json().ok());
            if let Some(id) = decision.as_ref().and_then(|decision| decision["decision_id"].as_str()) {
                self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
            }
            // A pace that the receiver can hold.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answered(&self) -> usize {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn config(port: u16) -> Result<String> {
    let dir = directory("outbox_files")?;
    std::fs::write(dir.join("quality_gates.yaml"), GATES)?;
    std::fs::write(dir.join("hook"), format!("whsec_{}", STANDARD.encode(KEY)))?;
    std::fs::write(dir.join("run"), TOKEN)?;
    let at = dir.display();
    Ok(format!(
        "{OPEN}gates_file: {at}/quality_gates.yaml\nnetwork: {{allow: [\"127.0.0.1:{port}\"]}}\ntargets:\n  \
         hook: {{kind: webhook, url: \"http://127.0.0.1:{port}/hook\", secret_file: {at}/hook}}\n  \
         run: {{kind: github, api: \"http://127.0.0.1:{port}\", repository: acme/shop, workflow: deploy.yml, reference: main, token_file: {at}/run}}\n"
    ))
}

fn kill_and_restart(server: &mut Server, pipelines: &Pipelines, dice: &mut Dice) -> Result<()> {
    for _ in 0..KILLS {
        let before = pipelines.answered();
        wait_for("a decision", 20, || Ok((pipelines.answered() > before).then_some(())))?;
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        server.kill()?;
        server.up()?;
    }
    Ok(())
}

/// All keys that came in; each with one body, each signed.
fn keys(seen: &[Seen]) -> Result<BTreeMap<String, usize>> {
    let mut bodies: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for seen in seen {
        seen.check_signature()?;
        let (count, body) = bodies.entry(seen.key()?).or_insert((0, &seen.body));
        ensure!(*body == seen.body, "one key, two bodies: {body} and {}", seen.body);
        *count += 1;
    }
    Ok(bodies.into_iter().map(|(key, (count, _))| (key, count)).collect())
}

#[test]
fn what_decisions_start_survives_ten_kills() -> Result<()> {
    let seed = 20_261_125;
    let receiver =
        Receiver { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, seen: Mutex::default(), ended: AtomicBool::default() };
    let mut server = Server::start("outbox", &config(receiver.listener.local_addr()?.port())?)?;
    let (pipelines, port) = (Pipelines::default(), server.http);
    std::thread::scope(|scope| {
        scope.spawn(|| receiver.run());
        for _ in 0..2 {
            scope.spawn(|| pipelines.run(port));
        }
        let killed = kill_and_restart(&mut server, &pipelines, &mut Dice(seed));
        pipelines.ended.store(true, Ordering::Relaxed);
        // What was held when a kill came is looked after half a minute later.
        let sent = killed.and_then(|()| {
            wait_for("everything to be sent", 90, || Ok((server.must(&["status"])?["deliveries_waiting"] == 0).then_some(())))
        });
        receiver.end()?;
        sent
    })
    .with_context(|| format!("seed {seed}"))?;

    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = server.rows("SELECT DISTINCT decision_id AS id FROM gate_decisions")?;
    let decisions: BTreeSet<String> = rows.iter().filter_map(|row| Some(row["id"].as_str()?.to_owned())).collect();
    let answered = pipelines.answered.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(answered.len() >= 10 * KILLS, "seed {seed}: only {} decisions", answered.len());
    let unrecorded: Vec<_> = answered.difference(&decisions).collect();
    ensure!(unrecorded.is_empty(), "seed {seed}: {} decisions were answered and not recorded: {unrecorded:?}", unrecorded.len());
    let arrived = keys(&receiver.seen.into_inner().unwrap_or_else(PoisonError::into_inner))?;
    let expected: BTreeSet<String> = decisions.iter().flat_map(|id| [format!("{id}/hook"), format!("{id}/run")]).collect();
    let lost: Vec<_> = expected.iter().filter(|key| !arrived.contains_key(*key)).collect();
    ensure!(lost.is_empty(), "seed {seed}: {} of {} deliveries are lost, such as {}", lost.len(), expected.len(), lost[0]);
    let invented: Vec<_> = arrived.keys().filter(|key| !expected.contains(*key)).collect();
    ensure!(invented.is_empty(), "seed {seed}: sent without a recorded decision: {invented:?}");
    ensure!(arrived.values().any(|count| *count > 1), "nothing came twice: repeats were not tested");
    server.stop()
}
