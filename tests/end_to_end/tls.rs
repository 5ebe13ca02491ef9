//! TLS at every door, with the clients that people use, and certificates that change while they do.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Certificate, Client};

use crate::process::{Postgres, Process};
use crate::server::{Answer, OPEN, Server, directory, program, wait_for};

pub(crate) mod authority;

use authority::{Authority, Pair};

/// A server whose doors speak TLS with a pair of files of its own.
struct Site {
    server: Server,
    authority: Authority,
    /// What the doors are configured with.
    pair: Pair,
}

impl Site {
    fn start(test: &str) -> Result<Self> {
        let mut server = Server::prepare(test, "")?;
        let authority = Authority::new(&server.dir.join("pki"), "authority")?;
        let pair = Pair { certificate: server.dir.join("door.pem"), key: server.dir.join("door.key") };
        authority.certify("first", 2)?.install(&pair)?;
        let config = format!("{OPEN}http: {{{}}}\npg: {{{}}}\n", pair.yaml(), pair.yaml());
        std::fs::write(server.dir.join("kirolinter.yaml"), config)?;
        server.spawn()?;
        let site = Self { server, authority, pair };
        wait_for("the server to be ready", 30, || Ok((site.ask(Some(&site.authority), &["status"])?.code == Some(0)).then_some(())))?;
        Ok(site)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.server.http)
    }

    /// The command line asks, trusting an authority, if any.
    fn ask(&self, authority: Option<&Authority>, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(program("kirolinter")?);
        command.args(arguments).args(["--format", "json", "--server", &self.url()]).env_remove("KIROLINTER_TOKEN");
        if let Some(authority) = authority {
            command.arg("--ca-file").arg(authority.file());
        }
        Answer::of(command.output()?)
    }

    /// psql asks, and checks name and authority.
    fn psql(&self, authority: &Authority, mode: &str, host: &str) -> Result<Answer> {
        let target = format!(
            "host={host} hostaddr=127.0.0.1 port={} user=loopback dbname=kiro sslmode={mode} sslrootcert={}",
            self.server.pg,
            authority.file().display()
        );
        let output = Command::new("psql").args(["-X", "-w", "-Atc", "SELECT 7"]).arg(target).output().context("psql is not installed")?;
        Answer::of(output)
    }

    /// The serial number of the certificate that a door shows to a new connection.
    fn serial(&self, port: u16) -> Result<String> {
        serial(port, if port == self.server.pg { &["-starttls", "postgres"] } else { &[] })
    }

    fn metric(&self, name: &str, door: &str) -> Result<i64> {
        let client = client(&self.authority)?;
        let text = runtime()?.block_on(async { client.get(format!("{}/metrics", self.url())).send().await?.text().await })?;
        let line = format!("{name}{{door=\"{door}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)).with_context(|| format!("no {line}"))?.parse().context("no number")
    }

    fn hang_up(&self) -> Result<()> {
        let sent = Command::new("sh").args(["-c", &format!("kill -HUP {}", self.server.id()?)]).status()?;
        ensure!(sent.success(), "no signal was sent");
        Ok(())
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.server.dir.join("server.log"))?)
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn client(authority: &Authority) -> Result<Client> {
    // The second time it is there already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let trusted = Certificate::from_pem_bundle(&std::fs::read(authority.file())?)?;
    Ok(Client::builder().tls_certs_only(trusted).timeout(Duration::from_secs(20)).build()?)
}

/// What openssl sees of a server, as a client; `request` is sent to it.
fn s_client(port: u16, more: &[&str], request: &[u8]) -> Result<Answer> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost"]).args(more);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("openssl is not installed")?;
    child.stdin.take().context("no input")?.write_all(request)?;
    Answer::of(child.wait_with_output()?)
}

fn serial(port: u16, more: &[&str]) -> Result<String> {
    let shown = s_client(port, more, b"")?;
    let mut child = Command::new("openssl").args(["x509", "-noout", "-serial"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(shown.out.as_bytes())?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?.trim().to_owned())
}

#[test]
fn every_door_speaks_tls_to_those_who_know_its_authority() -> Result<()> {
    let site = Site::start("tls")?;
    let other = Authority::new(&site.server.dir.join("pki"), "other")?;
    ensure!(site.ask(Some(&site.authority), &["query", "SELECT 7 AS n"])?.json()?["rows"][0]["n"] == 7, "the command line cannot ask");
    let by_environment = Command::new(program("kirolinter")?)
        .args(["query", "SELECT 8 AS n", "--format", "json"])
        .env("KIROLINTER_SERVER", site.url())
        .env("KIROLINTER_CA_FILE", site.authority.file())
        .output()?;
    ensure!(Answer::of(by_environment)?.json()?["rows"][0]["n"] == 8, "the environment's authority is not trusted");
    for stranger in [None, Some(&other)] {
        let refused = site.ask(stranger, &["status"])?;
        ensure!(refused.code == Some(2) && refused.err.contains("certificate"), "{refused:?}");
    }
    let nothing = Command::new(program("kirolinter")?).args(["status", "--ca-file", "nowhere.pem"]).output()?;
    let nothing = Answer::of(nothing)?;
    ensure!(nothing.code == Some(2) && nothing.err.contains("cannot read nowhere.pem"), "{nothing:?}");

    let full = site.psql(&site.authority, "verify-full", "localhost")?;
    ensure!(full.out.trim() == "7", "{full:?}");
    for (authority, host, words) in
        [(&other, "localhost", "certificate verify failed"), (&site.authority, "elsewhere", "does not match host name")]
    {
        let refused = site.psql(authority, "verify-full", host)?;
        ensure!(refused.code == Some(2) && refused.err.contains(words), "{refused:?}");
    }

    for (port, starttls) in [(site.server.http, &[][..]), (site.server.pg, &["-starttls", "postgres"][..])] {
        for (version, is_spoken) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
            // openssl itself must be willing to go that low.
            let shown = s_client(port, &[starttls, &[version, "-cipher", "DEFAULT@SECLEVEL=0"]].concat(), b"")?;
            ensure!(shown.out.contains("BEGIN CERTIFICATE") == is_spoken, "{version} at {port}: {shown:?}");
        }
    }
    // Without TLS nothing is answered.
    let mut plain = std::net::TcpStream::connect(("127.0.0.1", site.server.http))?;
    plain.set_read_timeout(Some(Duration::from_secs(15)))?;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer));
    ensure!(!answer.starts_with(b"HTTP"), "an answer without TLS: {}", String::from_utf8_lossy(&answer));
    let expires = site.metric("kiro_tls_certificate_expiry_timestamp_seconds", "pg")?;
    let now = kiro_ports::Clock::now(&kiro_ports::SystemClock).0 / 1_000_000;
    ensure!((now + 86_400..now + 3 * 86_400).contains(&expires), "it expires at {expires}, now is {now}");
    Ok(())
}

/// Asks again and again, with connections of its own and with one that is kept, until it is told to end.
fn load(site: &Site, keeps: bool, ended: &AtomicBool, asked: &AtomicUsize) -> Result<()> {
    let (kept, url) = (client(&site.authority)?, format!("{}/healthz", site.url()));
    runtime()?.block_on(async {
        while !ended.load(Ordering::Relaxed) {
            let client = if keeps { kept.clone() } else { client(&site.authority)? };
            let answer = client.get(&url).send().await.with_context(|| format!("request {}", asked.load(Ordering::Relaxed)))?;
            ensure!(answer.status() == 200, "{answer:?}");
            asked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Waits until both doors show a certificate.
fn wait_shown(site: &Site, pair: &Pair) -> Result<()> {
    let expected = pair.serial()?;
    wait_for("the new certificate", 20, || {
        Ok((site.serial(site.server.http)? == expected && site.serial(site.server.pg)? == expected).then_some(()))
    })
}

#[test]
fn new_certificates_are_taken_under_load_without_a_failed_request() -> Result<()> {
    let site = Site::start("tls_reload")?;
    let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let loads: Vec<_> = [false, false, true, true]
            .map(|keeps| {
                let (site, ended, asked) = (&site, &ended, &asked);
                scope.spawn(move || load(site, keeps, ended, asked))
            })
            .into_iter()
            .collect();
        let people = scope.spawn(|| -> Result<usize> {
            let mut answers = 0;
            while !ended.load(Ordering::Relaxed) {
                let answer = site.psql(&site.authority, "verify-full", "localhost")?;
                ensure!(answer.out.trim() == "7", "{answer:?}");
                answers += 1;
            }
            Ok(answers)
        });
        let outcome = (|| {
            for (name, by_signal) in [("second", true), ("third", false), ("fourth", true)] {
                let next = site.authority.certify(name, 3)?;
                next.install(&site.pair)?;
                if by_signal {
                    site.hang_up()?;
                }
                wait_shown(&site, &next)?;
                let before = asked.load(Ordering::Relaxed);
                wait_for("requests", 20, || Ok((asked.load(Ordering::Relaxed) > before + 20).then_some(())))?;
            }
            anyhow::Ok(())
        })();
        ended.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().map_err(|_panic| anyhow::anyhow!("a client broke"))??;
        }
        let answers = people.join().map_err(|_panic| anyhow::anyhow!("psql broke"))??;
        eprintln!(
            "{} requests and {answers} psql sessions over three changes of the certificate, none failed",
            asked.load(Ordering::Relaxed)
        );
        outcome
    })
}

#[test]
fn a_bad_new_certificate_is_refused_and_the_old_one_goes_on() -> Result<()> {
    let site = Site::start("tls_refused")?;
    let first = site.serial(site.server.http)?;
    let (good, strange, expired) =
        (site.authority.certify("good", 3)?, site.authority.certify("strange", 3)?, site.authority.certify("expired", -1)?);
    let noise = Pair { certificate: site.server.dir.join("pki/noise.pem"), key: good.key.clone() };
    std::fs::write(&noise.certificate, "no certificate at all")?;
    let mismatch = Pair { certificate: good.certificate.clone(), key: strange.key };
    for (pair, words) in [(mismatch, "do not make a certificate"), (noise, "holds no certificate"), (expired, "has expired")] {
        let before = site.log()?.matches(words).count();
        pair.install(&site.pair)?;
        site.hang_up()?;
        wait_for("the refusal", 20, || Ok((site.log()?.matches(words).count() > before).then_some(())))?;
        for (port, door) in [(site.server.http, "http"), (site.server.pg, "pg")] {
            ensure!(site.serial(port)? == first, "{words}: {door} shows another certificate");
            wait_for("the metric", 10, || Ok((site.metric("kiro_tls_certificate_refused", door)? == 1).then_some(())))?;
        }
    }
    // Files that are gone for a moment are no end either.
    std::fs::remove_file(&site.pair.key)?;
    site.hang_up()?;
    wait_for("the refusal", 20, || Ok(site.log()?.contains("cannot read").then_some(())))?;
    ensure!(site.serial(site.server.http)? == first, "another certificate is shown");
    good.install(&site.pair)?;
    wait_shown(&site, &good)?;
    for door in ["http", "pg"] {
        wait_for("the metric", 10, || Ok((site.metric("kiro_tls_certificate_refused", door)? == 0).then_some(())))?;
    }
    Ok(())
}

#[test]
fn the_probe_door_of_a_role_speaks_tls() -> Result<()> {
    let (postgres, dir) = (Postgres::start()?, directory("tls_probe")?);
    std::fs::write(dir.join("postgres.url"), &postgres.url)?;
    let authority = Authority::new(&dir.join("pki"), "authority")?;
    let pair = authority.certify("door", 2)?;
    let config = format!("log: {{kafka: \"127.0.0.1:1\"}}\ncontrol: {{postgres_file: postgres.url}}\nhttp: {{{}}}\n", pair.yaml());
    std::fs::write(dir.join("kirolinter.yaml"), config)?;
    let mut process = Process::start(&dir, "orchestrate", 0)?;
    let client = client(&authority)?;
    let text = |path: &str| {
        let url = format!("https://localhost:{}{path}", process.http);
        runtime()?.block_on(async { anyhow::Ok(client.get(url).send().await?.text().await?) })
    };
    wait_for("the role to be ready", 60, || Ok(text("/readyz").ok().filter(|state| state == "ready\n")))?;
    ensure!(text("/metrics")?.contains("kiro_tls_certificate_expiry_timestamp_seconds{door=\"http\"} "), "no expiry");
    let before = serial(process.http, &[])?;
    ensure!(before == pair.serial()?, "another certificate is shown");
    let next = authority.certify("next", 2)?;
    next.install(&pair)?;
    let expected = next.serial()?;
    wait_for("the new certificate", 20, || Ok((serial(process.http, &[])? == expected).then_some(())))?;
    process.stop()
}
