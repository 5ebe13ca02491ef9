//! A disk that is full, broken or closed, and then is not: what was acknowledged stays, no table is torn, and the server
//! goes on by itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::image::{Disk, fill, in_memory};
use super::{contained, figure, finished, power, recount};
use crate::http;
use crate::server::{OPEN, Server, wait_for};

/// The topic of the embedded log.
const TOPIC: &str = "kiro.events";
const DISK_MIB: u64 = 64;
const A_POST: usize = 50;
const RECOVERED_IN: Duration = Duration::from_secs(10);

#[test]
fn a_disk_that_refuses_is_outlived() -> Result<()> {
    for round in 0..figure(3, 50)? {
        let slowest = match round % 3 {
            0 => full(),
            1 => broken(),
            _ => closed(),
        };
        let slowest = slowest.with_context(|| format!("round {round}"))?;
        eprintln!("disk: round {round}, well again after {slowest:?}");
        ensure!(slowest <= RECOVERED_IN, "round {round}: it took {slowest:?}");
    }
    Ok(())
}

/// A server and what it has acknowledged.
struct Trial {
    server: Server,
    taken: BTreeSet<String>,
    next: usize,
}

impl Trial {
    fn new(server: Server) -> Self {
        Self { server, taken: BTreeSet::new(), next: 0 }
    }

    /// Posts some events; what was answered.
    fn post(&mut self) -> Result<u16> {
        let ids: Vec<String> = (self.next..self.next + A_POST).map(|number| format!("run-{number}")).collect();
        self.next += A_POST;
        let body: String = ids.iter().map(|id| finished(0, id, "") + "\n").collect();
        let headers = [("content-type", "application/x-ndjson")];
        let reply = http::must(self.server.http, "POST /api/v1/events", &headers, body.as_bytes())?;
        if reply.status == 202 {
            self.taken.extend(ids);
        }
        Ok(reply.status)
    }

    /// Waits until what was taken can be asked.
    fn settle(&self) -> Result<()> {
        self.server.send("nothing.ndjson", "application/x-ndjson", "").map(drop)
    }

    fn must_post(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let status = self.post()?;
            ensure!(status == 202, "a post was answered {status} while nothing was wrong");
        }
        Ok(())
    }

    /// Posts until it is refused, as a server that cannot write must.
    fn wait_refused(&mut self) -> Result<()> {
        let status = wait_for("a post to be refused", 60, || Ok(Some(self.post()?).filter(|status| *status != 202)))?;
        ensure!(matches!(status, 503 | 507), "a post was answered {status}");
        ensure!(http::must(self.server.http, "GET /healthz", &[], b"")?.status == 200, "it does not live any more");
        self.answers()
    }

    /// What is there can be asked, whatever can be written.
    fn answers(&self) -> Result<()> {
        ensure!(!self.server.rows("SELECT run_id FROM pipeline_runs LIMIT 1")?.is_empty(), "no answer");
        Ok(())
    }

    /// From now on, until posts are taken again and the lake has what was taken.
    #[expect(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
    fn recover(&mut self) -> Result<Duration> {
        let began = Instant::now();
        wait_for("a post to be taken again", 60, || Ok(self.post().ok().filter(|status| *status == 202)))?;
        let lake = self.server.data().join("lake");
        let records = self.server.rows("SELECT count(*) AS n FROM pipeline_runs_events")?[0]["n"].as_i64().context("a count")?;
        wait_for("the lake to have all", 60, || Ok((contained(&lake, "pipeline_runs_events", TOPIC)? >= records).then_some(())))?;
        Ok(began.elapsed())
    }

    /// Everything that was taken is there, once.
    fn check(&self) -> Result<()> {
        self.settle()?;
        let rows = self.server.rows("SELECT run_id, count(*) AS n FROM pipeline_runs_events GROUP BY 1")?;
        ensure!(rows.iter().all(|row| row["n"] == 1), "events stand more than once");
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row["run_id"].as_str()).collect();
        let lost: Vec<_> = self.taken.iter().filter(|id| !found.contains(id.as_str())).collect();
        ensure!(lost.is_empty(), "{} of {} are lost, such as {}", lost.len(), self.taken.len(), lost[0]);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.must_post(2)?;
        self.check()?;
        self.server.stop()?;
        recount(&self.server.data().join("lake"))?;
        self.server.up()?;
        self.check()?;
        self.server.stop()
    }
}

/// No room, and then some.
fn full() -> Result<Duration> {
    let server = Server::prepare("disk_full", &format!("{OPEN}control: {{lease_seconds: 1}}\n"))?;
    let mut disk = Disk::make(in_memory("full"), DISK_MIB, &server.data())?;
    let mut trial = Trial::new(server);
    trial.server.up()?;
    trial.must_post(5)?;
    trial.settle()?;
    let filler = disk.fill()?;
    trial.wait_refused()?;
    // For longer than a lease holds that cannot be written down.
    std::thread::sleep(Duration::from_secs(3));
    trial.wait_refused()?;
    std::fs::remove_file(filler)?;
    let taken = trial.recover()?;
    cut_off(&disk, &trial)?;
    trial.finish()?;
    disk.unmount()?;
    Ok(taken)
}

/// Writes fail with an input/output error: what the disk lies in has no room for blocks that were never written. The file
/// system gives up; the disk is mended, the file system checked, and the server started on it.
fn broken() -> Result<Duration> {
    let server = Server::prepare("disk_broken", OPEN)?;
    let below = Below::mount(in_memory("below"), 36)?;
    let mut disk = Disk::make(below.0.join("image"), DISK_MIB, &server.data())?;
    let mut trial = Trial::new(server);
    trial.server.up()?;
    trial.must_post(5)?;
    trial.settle()?;
    let filler = fill(&below.0)?;
    trial.wait_refused()?;
    trial.server.kill()?;
    disk.unmount()?;
    std::fs::remove_file(filler)?;
    disk.check()?;
    disk.mount()?;
    recount(&trial.server.data().join("lake"))?;
    trial.server.spawn()?;
    let taken = trial.recover()?;
    trial.finish()?;
    disk.unmount()?;
    drop(disk);
    Ok(taken)
}

/// The lake may not be written: posts are safe in the log, and come into the lake when it may.
fn closed() -> Result<Duration> {
    let mut trial = Trial::new(Server::prepare("disk_closed", OPEN)?);
    let mut launcher = Command::new("env");
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        launcher.args(["setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
    }
    trial.server.spawn_by(launcher)?;
    trial.server.ready(30)?;
    trial.must_post(5)?;
    let lake = trial.server.data().join("lake");
    wait_for("a first commit", 20, || Ok(contained(&lake, "pipeline_runs_events", TOPIC).ok().filter(|n| *n > 0)))?;
    change_mode(&lake, "a-w")?;
    let before = contained(&lake, "pipeline_runs_events", TOPIC)?;
    trial.must_post(5)?;
    wait_for("commits to fail", 30, || {
        let metrics = http::must(trial.server.http, "GET /metrics", &[], b"")?.body;
        let line = metrics.lines().find(|line| line.starts_with("kiro_ingest_commit_errors_total{table=\"pipeline_runs_events\"}"));
        Ok(line.filter(|line| !line.ends_with(" 0")).map(drop))
    })?;
    trial.answers()?;
    ensure!(contained(&lake, "pipeline_runs_events", TOPIC)? == before, "a lake that may not be written was written");
    change_mode(&lake, "u+w")?;
    let taken = trial.recover()?;
    trial.finish()?;
    Ok(taken)
}

fn change_mode(folder: &Path, mode: &str) -> Result<()> {
    ensure!(Command::new("chmod").args(["-R", mode]).arg(folder).status()?.success(), "chmod failed");
    Ok(())
}

/// After all that, the power is cut: what the disk really holds is what was acknowledged.
fn cut_off(disk: &Disk, trial: &Trial) -> Result<()> {
    let copy = in_memory("disk-cut");
    power::freeze(&trial.server, || disk.copy_to(&copy))?;
    power::survives(copy, &trial.taken, 0).context("a power cut after it was well again")
}

/// What a disk lies in: memory that can be filled up.
struct Below(PathBuf);

impl Below {
    fn mount(at: PathBuf, mib: u64) -> Result<Self> {
        std::fs::create_dir_all(&at)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(&at).status()?;
        ensure!(mounted.success(), "a file system in memory needs root");
        Ok(Self(at))
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) || std::fs::remove_dir(&self.0).is_err() {
            eprintln!("{} is still there", self.0.display());
        }
    }
}
