//! A server that cannot start, or that loses what it stands on, says what is wrong and loses nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::http::{self, Reply};
use crate::kafka::Broker;
use crate::server::{Answer, OPEN, Server, directory, free_port, program, wait_for};
use crate::tls::authority::Authority;

/// Runs a server that must end by itself, unwell, and returns what it said.
pub(crate) fn refused_start(mut command: Command) -> Result<Answer> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let waited = wait_for("a server that cannot run to end", 20, || Ok(child.try_wait()?));
    child.kill()?;
    let answer = Answer::of(child.wait_with_output()?)?;
    ensure!(waited.is_ok(), "it runs: {answer:?}");
    ensure!(matches!(answer.code, Some(1 | 2)), "{answer:?}");
    Ok(answer)
}

/// The command of a server in a directory; `launcher` is what it is run by, with its arguments.
fn server(launcher: &[&str], dir: &Path, config: &str, data: &Path) -> Result<Command> {
    std::fs::write(dir.join("kirolinter.yaml"), config)?;
    let daemon = program("kirolinterd")?;
    let mut command = match launcher {
        [] => Command::new(daemon),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(daemon);
            command
        }
    };
    command.current_dir(dir).args(["up", "--http", &format!("127.0.0.1:{}", free_port()?), "--pg", &format!("127.0.0.1:{}", free_port()?)]);
    command.arg("--data-dir").arg(data);
    Ok(command)
}

/// A server on a small disk that it alone sees, and how others reach that disk.
pub(crate) fn on_a_small_disk(test: &str, config: &str, size: &str) -> Result<(Server, PathBuf)> {
    let mut server = Server::prepare(test, config)?;
    let data = server.data();
    std::fs::create_dir_all(&data)?;
    // Who is not root makes it in a user namespace of its own.
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && exec \"$@\"");
    let is_root = without_overrides()?.len() > 1;
    let mut launcher = Command::new("unshare");
    launcher.arg(if is_root { "-m" } else { "-rm" }).args(["sh", "-c", &script]).arg(&data);
    server.spawn_by(launcher)?;
    server.ready(30)?;
    let disk = PathBuf::from(format!("/proc/{}/root{}", server.id()?, data.display()));
    Ok((server, disk))
}

/// Root may write anywhere: it gives up that right first.
fn without_overrides() -> Result<&'static [&'static str]> {
    let id = Command::new("id").arg("-u").output()?;
    Ok(if id.stdout.starts_with(b"0\n") { &["setpriv", "--bounding-set=-dac_override,-dac_read_search"] } else { &[] })
}

#[test]
fn a_data_directory_that_may_not_be_written_is_named() -> Result<()> {
    let dir = directory("no_permission")?;
    let closed = dir.join("closed");
    std::fs::create_dir(&closed)?;
    ensure!(Command::new("chmod").arg("0555").arg(&closed).status()?.success(), "chmod failed");
    for data in [closed.join("data"), closed.clone()] {
        let answer = refused_start(server(without_overrides()?, &dir, OPEN, &data)?)?;
        ensure!(answer.err.contains(&closed.display().to_string()) && answer.err.contains("Permission denied"), "{answer:?}");
    }
    ensure!(closed.read_dir()?.next().is_none(), "files were made in a directory that may not be written");
    Ok(())
}

#[test]
fn a_data_directory_of_a_newer_program_is_refused() -> Result<()> {
    let mut server_before = Server::start("newer", OPEN)?;
    server_before.stop()?;
    let (dir, data) = (server_before.dir.clone(), server_before.data());
    let format = data.join("lake/lake.json");
    let text = std::fs::read_to_string(&format).context("the lake tells its format")?;
    std::fs::write(&format, "{\"format\":99}")?;
    let answer = refused_start(server(&[], &dir, OPEN, &data)?)?;
    ensure!(answer.err.contains("format 99") && answer.err.contains("use a newer program"), "{answer:?}");
    std::fs::write(&format, text)?;
    server_before.up()
}

#[test]
fn a_bad_certificate_is_refused() -> Result<()> {
    let dir = directory("certificates")?;
    let pair = |name: &str| -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=localhost", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        ensure!(openssl.stderr(Stdio::null()).status().context("openssl is not installed")?.success(), "openssl made no certificate");
        Ok((certificate, key))
    };
    let ((ours, our_key), (_, other_key)) = (pair("ours")?, pair("other")?);
    let (empty, noise) = (dir.join("empty.pem"), dir.join("noise.pem"));
    std::fs::write(&empty, "")?;
    std::fs::write(&noise, "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")?;
    let expired = Authority::new(&dir, "authority")?.certify("expired", -1)?;
    for door in ["http", "pg"] {
        for (certificate, key, words) in [
            (&expired.certificate, &expired.key, "has expired"),
            (&empty, &our_key, "holds no certificate"),
            (&ours, &empty, "holds no private key"),
            (&ours, &other_key, "do not make a certificate"),
            (&noise, &our_key, "do not make a certificate"),
            (&dir.join("nowhere.pem"), &our_key, "nowhere.pem"),
        ] {
            let (certificate_file, key_file) = (certificate.display(), key.display());
            let config = format!("{OPEN}{door}: {{tls: {{certificate_file: {certificate_file}, key_file: {key_file}}}}}\n");
            let answer = refused_start(server(&[], &dir, &config, &dir.join("data"))?)?;
            ensure!(answer.err.contains(words), "{words:?} is not said: {answer:?}");
        }
    }
    ensure!(!dir.join("data/log").exists(), "a server without its certificate has begun to work");
    let (certificate_file, key_file) = (ours.display(), our_key.display());
    let config = format!("{OPEN}http: {{tls: {{certificate_file: {certificate_file}, key_file: {key_file}}}}}\n");
    let checked = Command::new(program("kirolinterd")?).arg("check").arg("--config").arg(write(&dir, &config)?).output()?;
    ensure!(Answer::of(checked)?.code == Some(0), "a good pair is refused");
    Ok(())
}

fn write(dir: &Path, config: &str) -> Result<PathBuf> {
    let file = dir.join("good.yaml");
    std::fs::write(&file, config)?;
    Ok(file)
}

fn event(number: usize) -> String {
    format!(
        "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/bad\",\"subject_id\":\"{number}\",\
         \"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}}}\n"
    )
}

fn post(port: u16, numbers: std::ops::Range<usize>) -> Result<Reply> {
    let body: String = numbers.map(event).collect();
    http::must(port, "POST /api/v1/events", &[("content-type", "application/x-ndjson")], body.as_bytes())
}

fn readiness(port: u16) -> Option<Reply> {
    http::ask(port, "GET /readyz", &[], b"")
}

/// Exactly these runs are there, each once.
fn holds(server: &Server, numbers: std::ops::Range<usize>) -> Result<()> {
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = server.rows("SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM pipeline_runs_events")?;
    ensure!(rows[0]["n"] == numbers.len() && rows[0]["d"] == numbers.len(), "{} events, not {rows:?}", numbers.len());
    Ok(())
}

#[test]
fn a_broker_that_is_away_is_waited_for() -> Result<()> {
    let (port, kept) = (free_port()?, directory("broker_kept")?);
    let config = format!("{OPEN}log: {{kafka: \"127.0.0.1:{port}\", topic: kiro.away, partitions: 2}}\n");
    let mut server = Server::prepare("broker_away", &config)?;
    server.spawn()?;
    let waiting = wait_for("a server to say that it waits", 30, || Ok(readiness(server.http)))?;
    ensure!(waiting.status == 503 && waiting.body.starts_with("not ready: the log does not answer: "), "{waiting:?}");
    let early = post(server.http, 0..10)?;
    ensure!(early.status == 503 && early.header("retry-after").is_some(), "{early:?}");
    ensure!(early.json()?["detail"].as_str().is_some_and(|text| text.contains("kiro.away")), "{early:?}");

    let broker = Broker::start_at(port, &kept)?;
    server.ready(60)?;
    ensure!(post(server.http, 0..10)?.status == 202, "not taken after the broker came");
    holds(&server, 0..10)?;

    drop(broker);
    let away =
        wait_for("the server to see that the broker went away", 40, || Ok(readiness(server.http).filter(|reply| reply.status == 503)))?;
    ensure!(away.body.contains("the log does not answer"), "{away:?}");
    let refused = post(server.http, 10..20)?;
    ensure!(refused.status == 503, "{refused:?}");
    let risk = http::must(server.http, "POST /api/v1/risk", &[], br#"{"source": "https://ci.example/bad"}"#)?;
    ensure!(risk.status == 503 && risk.body.contains("it cannot be recorded, so it is not done"), "{risk:?}");
    ensure!(server.rows("SELECT count(*) AS n FROM pipeline_runs")?[0]["n"] == 10, "what is in the lake cannot be asked any more");

    let _broker = Broker::start_at(port, &kept)?;
    server.ready(60)?;
    ensure!(post(server.http, 10..20)?.status == 202, "not taken after the broker came back");
    holds(&server, 0..20)?;
    server.stop()
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() -> Result<()> {
    let (server, disk) = on_a_small_disk("no_space", OPEN, "24m")?;
    ensure!(post(server.http, 0..100)?.status == 202, "not taken while there is room");
    fill(&disk.join("filler"))?;
    let mut taken = 100;
    let full = wait_for("the disk to be full", 30, || {
        let reply = post(server.http, taken..taken + 500)?;
        if reply.status == 202 {
            taken += 500;
            return Ok(None);
        }
        Ok(Some(reply))
    })?;
    ensure!(full.status == 507 && full.body.contains("space"), "{full:?}");
    ensure!(http::must(server.http, "GET /healthz", &[], b"")?.status == 200, "it does not live any more");
    std::fs::remove_file(disk.join("filler"))?;
    wait_for("room to be used again", 30, || {
        let reply = post(server.http, taken..taken + 500)?;
        Ok((reply.status == 202).then_some(()))
    })?;
    holds(&server, 0..taken + 500)
}

/// Takes all the room that there is.
pub(crate) fn fill(file: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut filler = std::fs::File::create(file).with_context(|| format!("cannot fill {}", file.display()))?;
    for size in [1 << 20, 4096] {
        while filler.write_all(&vec![7; size]).is_ok() {}
    }
    Ok(())
}
