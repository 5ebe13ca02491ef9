//! The log is away while posts come at a steady rate: what was answered with 2xx is in the lake, once. `make soak` goes on for
//! `SOAK_MINUTES`, with the log away for a minute each time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http::{self, Reply};
use crate::kafka::Broker;
use crate::server::{OPEN, Server, directory, free_port, soak_minutes, wait_for};

mod poster;

use poster::{Poster, SECRET};

/// Longer an answer may not take while the log is away, whatever it is, from when its post was to be sent: GitHub gives up then.
const LONGEST: Duration = Duration::from_secs(10);

/// Posts a second, and seconds without a log: what a busy machine bears, or what the product promises.
fn pace() -> Result<(u32, u64)> {
    Ok(if soak_minutes()?.is_some() { (500, 60) } else { (150, 10) })
}

/// A server on a Kafka that is started and stopped beside it.
struct Site {
    port: u16,
    kept: std::path::PathBuf,
    broker: Option<Broker>,
    server: Server,
}

impl Site {
    /// `more` are further keys of `log`.
    fn start(test: &str, more: &str) -> Result<Self> {
        let (port, kept) = (free_port()?, directory(&format!("{test}_broker"))?);
        let mut server = Server::prepare(test, "")?;
        let dir = server.dir.display().to_string();
        std::fs::write(server.dir.join("secret"), SECRET)?;
        std::fs::write(
            server.dir.join("gates.yaml"),
            "version: 1\ngates:\n  - {name: one, type: pre-deploy, criteria: [{name: c, sql: \"SELECT 1 AS value\", pass: [\"= 1\"]}]}\n",
        )?;
        let more = more.replace("DIR", &dir);
        let config = format!(
            "{OPEN}log: {{kafka: \"127.0.0.1:{port}\", topic: kiro.outage, partitions: 3{more}}}\ngates_file: {dir}/gates.yaml\n\
             sources: {{github: {{secret_file: {dir}/secret}}}}\nlimits: {{ingest: {{requests: 0, window_seconds: 1}}}}\n"
        );
        std::fs::write(server.dir.join("kirolinter.yaml"), config)?;
        let broker = Some(Broker::start_at(port, &kept)?);
        server.spawn()?;
        server.ready(60)?;
        Ok(Self { port, kept, broker, server })
    }

    fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("no broker")
    }

    fn broker_back(&mut self) -> Result<()> {
        self.broker = Some(Broker::start_at(self.port, &self.kept)?);
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        http::must(self.server.http, "GET /api/v1/status", &[], b"")?.json()
    }

    fn readiness(&self) -> Result<Reply> {
        http::must(self.server.http, "GET /readyz", &[], b"")
    }

    fn wait_spilled(&self) -> Result<()> {
        wait_for("posts to be spilled", 30, || Ok(self.status()?["spill"]["bytes"].as_u64().filter(|bytes| *bytes > 0))).map(drop)
    }

    fn wait_drained(&self) -> Result<()> {
        wait_for("the spill to be drained", 90, || Ok(self.status()?["spill"]["since"].is_null().then_some(())))
    }

    /// Starts the server again, which need not be ready.
    fn server_back(&mut self) -> Result<()> {
        self.server.spawn()?;
        let port = self.server.http;
        wait_for("the server to live", 30, || Ok(http::ask(port, "GET /healthz", &[], b"").filter(|reply| reply.status == 200))).map(drop)
    }

    fn decide(&self) -> Result<Reply> {
        let body = json!({"gate": "one"}).to_string();
        http::must(self.server.http, "POST /api/v1/gates/evaluate", &[("content-type", "application/json")], body.as_bytes())
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> Result<f64> {
        let metrics = http::must(self.server.http, "GET /metrics", &[], b"")?.body;
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name)).with_context(|| format!("no {name}"))?;
        Ok(line.rsplit(' ').next().context("no value")?.parse()?)
    }

    /// While the log is away: decisions are refused, reads go on, and the state is told everywhere.
    fn check_away(&self) -> Result<()> {
        self.wait_spilled()?;
        // Known down, or still hoped for: a decision that cannot be recorded is no decision.
        let refused = self.decide()?;
        ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{refused:?}");
        let told = wait_for("the server to tell", 20, || {
            let reply = self.readiness()?;
            Ok(reply.body.contains("posts are spilled").then_some(reply))
        })?;
        ensure!(told.status == 200 && told.body.starts_with("ready; the log does not answer"), "{told:?}");
        ensure!(self.server.rows("SELECT count(*) AS n FROM pipeline_runs")?[0]["n"].as_u64() > Some(0), "nothing can be read");
        ensure!(self.metric("kiro_spill_bytes")? > 0.0 && self.metric("kiro_spill_limit_bytes")? > 0.0, "no metrics");
        let shown = self.server.must(&["status"])?;
        ensure!(shown["spill"]["since"].is_string() && shown["log"]["state"] == "down", "{shown}");
        Ok(())
    }
}

#[test]
fn posts_spill_while_the_log_is_away_and_are_in_the_lake_once() -> Result<()> {
    let (rate, seconds) = pace()?;
    let mut site = Site::start("outage_spill", ", spill_dir: DIR/spill")?;
    let poster = Poster::new(site.server.http, rate);
    poster.during(|| {
        poster.wait_more(rate as usize)?;
        for _ in 0..=soak_minutes()?.unwrap_or(0) {
            // The machine of the broker stands still: nothing is refused, nothing is answered.
            site.broker()?.signal("STOP")?;
            site.check_away()?;
            poster.wait_more(rate as usize * usize::try_from(seconds)?)?;
            site.broker()?.signal("CONT")?;
            site.wait_drained()?;
        }
        poster.report("the broker stood still", LONGEST)?;
        // It dies, and so does the server, with a spill that is not empty; both come back at their time.
        drop(site.broker.take());
        site.wait_spilled()?;
        poster.wait_more(rate as usize)?;
        site.server.kill()?;
        site.server_back()?;
        poster.wait_more(rate as usize)?;
        site.wait_spilled()?;
        site.broker_back()?;
        // The server dies once more while it drains, or just after.
        wait_for("the drain to begin", 60, || Ok((site.metric("kiro_spill_drained_records_total")? > 0.0).then_some(())))?;
        site.server.kill()?;
        site.server_back()?;
        site.wait_drained()?;
        site.server.ready(60)?;
        poster.wait_more(rate as usize)
    })?;
    ensure!(site.metric("kiro_spill_aside_records_total")? == 0.0, "something was put aside");
    poster.check(&site.server)?;
    site.server.stop()?;
    poster::recount(&site.server)
}

#[test]
fn without_a_spill_posts_are_refused_in_time_and_nothing_acknowledged_is_lost() -> Result<()> {
    let (rate, seconds) = pace()?;
    let mut site = Site::start("outage_refused", "")?;
    let poster = Poster::new(site.server.http, rate);
    poster.during(|| {
        poster.wait_more(rate as usize)?;
        for is_killed in [false, true] {
            if is_killed {
                drop(site.broker.take());
            } else {
                site.broker()?.signal("STOP")?;
            }
            poster.wait_refused(rate as usize * usize::try_from(seconds)?)?;
            if is_killed {
                site.broker_back()?;
            } else {
                site.broker()?.signal("CONT")?;
            }
            site.server.ready(60)?;
            poster.wait_more(rate as usize)?;
        }
        poster.report("no spill", LONGEST)
    })?;
    ensure!(site.status()?["spill"].is_null() && site.metric("kiro_spill_limit_bytes")? == 0.0, "there is a spill");
    poster.check(&site.server)?;
    site.server.stop()?;
    poster::recount(&site.server)
}

#[test]
fn a_full_spill_refuses_until_there_is_room() -> Result<()> {
    let mut site = Site::start("outage_full", ", spill_dir: DIR/spill, spill_bytes: 2000000")?;
    drop(site.broker.take());
    let port = site.server.http;
    let headers = [("content-type", "application/x-ndjson")];
    let (mut taken, mut count) = (0, 500);
    let refused = loop {
        let lines: String = (taken..taken + count).map(|n| poster::run(&format!("full-{n}")) + "\n").collect();
        let reply = http::must(port, "POST /api/v1/events", &headers, lines.as_bytes())?;
        match reply.status {
            202 => taken += count,
            _ if count > 1 => count = 1,
            _ => break reply,
        }
        ensure!(taken < 20_000, "the limit was not kept");
    };
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{refused:?}");
    ensure!(refused.json()?["code"] == "KIR-0114" && refused.body.contains("2000000 bytes"), "{refused:?}");
    let on_disk: u64 =
        std::fs::read_dir(site.server.dir.join("spill"))?.flatten().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    ensure!((1_900_000..2_010_000).contains(&on_disk), "{on_disk} bytes are on the disk");
    let told = site.readiness()?;
    ensure!(told.status == 503 && told.body.contains("the spill is full"), "{told:?}");
    site.broker_back()?;
    site.wait_drained()?;
    site.server.ready(60)?;
    ensure!(site.decide()?.status == 200, "no decision with a log");
    site.server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = site
        .server
        .rows("SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM pipeline_runs_events WHERE starts_with(run_id, 'full-')")?;
    ensure!(rows[0]["n"] == taken && rows[0]["d"] == taken, "{taken} runs were taken, there are {rows:?}");
    site.server.stop()?;
    poster::recount(&site.server)
}

/// The log holds a record twice when it took it and could not say so. Whoever reads it, before a restart or after, sees it once.
#[test]
fn a_record_that_stands_twice_in_the_log_is_one_dead_letter() -> Result<()> {
    let broker = Broker::shared()?;
    let config = format!("{OPEN}log: {{kafka: \"{}\", topic: kiro.twice, partitions: 1}}\n", broker.address);
    let mut server = Server::start("outage_twice", &config)?;
    let poison = |id: &str| {
        let id = format!("{id}-door");
        let headers = [("kiro-format", "github"), ("x-github-event", "push"), ("kiro-record", id.as_str())];
        (headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), "no JSON at all".to_owned())
    };
    let letters = |server: &Server, expected: usize| {
        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        let letters = server.rows("SELECT _offset FROM dead_letters ORDER BY _offset")?;
        ensure!(letters.len() == expected, "{expected} dead letters, not {letters:?}");
        anyhow::Ok(())
    };
    broker.produce("kiro.twice", &[poison("1700000000000001"), poison("1700000000000001"), poison("1700000000000002")])?;
    letters(&server, 2)?;
    server.stop()?;
    broker.produce("kiro.twice", &[poison("1700000000000002"), poison("1700000000000003"), poison("1700000000000001")])?;
    server.up()?;
    letters(&server, 3)?;
    let repeats = server.must(&["status"])?["repeats"].as_u64();
    ensure!(repeats == Some(2), "{repeats:?} repeats");
    server.stop()
}

#[test]
fn one_of_three_brokers_is_killed_and_nothing_is_lost() -> Result<()> {
    let dir = directory("outage_three_brokers")?;
    let brokers = Broker::start_three(&dir)?;
    let config = format!(
        "{OPEN}log: {{kafka: \"{}\", topic: kiro.three, partitions: 6, replication: 3}}\nlimits: {{ingest: {{requests: 0, window_seconds: 1}}}}\n",
        brokers.address
    );
    let mut server = Server::prepare("outage_three", &config)?;
    server.spawn()?;
    server.ready(120)?;
    let partitions = brokers.partitions("kiro.three")?;
    ensure!(partitions.len() == 6 && partitions.iter().all(|(_, replicas)| *replicas == 3), "the product made {partitions:?}");
    let poster = Poster::events(server.http, 100);
    poster.during(|| {
        poster.wait_more(200)?;
        let leader = brokers.partitions("kiro.three")?[0].0;
        brokers.kill_one(leader)?;
        poster.wait_more(1_000)?;
        let led = |partitions: &[(i32, usize)]| partitions.iter().all(|(other, _)| *other != leader && *other > 0);
        wait_for("other leaders", 60, || Ok(brokers.partitions("kiro.three").ok().filter(|found| led(found))))?;
        poster.wait_more(500)?;
        poster.report("one of three brokers was killed", LONGEST)
    })?;
    ensure!(brokers.alive()? == 2, "another broker ended");
    poster.check(&server)?;
    server.stop()?;
    poster::recount(&server)
}
