//! A back-up that is made while the server runs, in the order of the runbook, and put back.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};

use crate::http;
use crate::kafka::Broker;
use crate::server::{Server, wait_for};

fn lines(numbers: Range<usize>) -> String {
    let line = |number: usize| {
        format!(
            "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/kept\",\"subject_id\":\"{number}\",\
             \"time\":\"2026-03-01T00:00:00Z\",\"fields\":{{\"pipeline\":\"ci\",\"outcome\":\"success\"}}}}\n"
        )
    };
    numbers.map(line).collect()
}

/// Posts runs until it is told to end; those below the number were acknowledged.
#[derive(Default)]
struct Sender {
    acknowledged: AtomicUsize,
    ended: AtomicBool,
}

impl Sender {
    fn run(&self, port: u16) {
        while !self.ended.load(Ordering::Relaxed) {
            let first = self.acknowledged.load(Ordering::Relaxed);
            let body = lines(first..first + 10);
            let reply = http::ask(port, "POST /api/v1/events", &[("content-type", "application/x-ndjson")], body.as_bytes());
            if reply.is_some_and(|reply| reply.status == 202) {
                self.acknowledged.fetch_add(10, Ordering::Relaxed);
            }
        }
    }

    fn wait_more(&self, more: usize) -> Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("runs to be acknowledged", 60, || Ok((self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())))
    }
}

/// The commands of the runbook.
fn back_up(data: &Path, copy: &Path) -> Result<()> {
    let runbook = std::fs::read_to_string(kiro_tests::root().join("docs/operations.md"))?;
    let commands: Vec<&str> =
        runbook.lines().filter(|line| line.ends_with("| tar -xf - -C \"$copy\"") || line.starts_with("python3 -c")).collect();
    ensure!(commands.len() == 3, "the runbook has other commands: {commands:?}");
    std::fs::create_dir(copy)?;
    for command in commands {
        // Files that are being written vanish under their first name: tar tells, and goes on.
        let done = Command::new("sh").args(["-c", command]).current_dir(data).env("copy", copy).output()?;
        ensure!(matches!(done.status.code(), Some(0)), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

#[test]
fn a_back_up_of_a_running_server_is_read_on_from_where_it_stands() -> Result<()> {
    let broker = Broker::shared()?;
    let config =
        format!("{}log: {{kafka: \"{}\", topic: backup.events, partitions: 2}}\n", crate::audit::config("backup")?, broker.address);
    let mut server = Server::start("backup", &config)?;
    let (sender, copy) = (Sender::default(), server.dir.join("copy"));
    let port = server.http;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| sender.run(port));
        let outcome = (|| {
            for _ in 0..3 {
                sender.wait_more(100)?;
                server.must(&["gate", "--type=pre-deploy"])?;
            }
            back_up(&server.data(), &copy)?;
            server.must(&["gate", "--type=pre-deploy"])?;
            sender.wait_more(300)
        })();
        sender.ended.store(true, Ordering::Relaxed);
        outcome
    })?;
    let sent = sender.acknowledged.load(Ordering::Relaxed);
    server.kill()?;
    std::fs::rename(server.data(), server.dir.join("lost"))?;
    std::fs::rename(&copy, server.data())?;
    let told = crate::doctor::examine(&server, &["--deep"])?;
    let bad: Vec<_> = crate::doctor::findings(&told)?.into_iter().filter(|finding| finding["severity"] == "error").collect();
    ensure!(bad.is_empty(), "the back-up is not whole: {bad:?}");
    server.up()?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    for table in ["pipeline_runs", "pipeline_runs_events"] {
        let rows = server.rows(&format!("SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM {table}"))?;
        ensure!(rows[0]["n"] == sent && rows[0]["d"] == sent, "{sent} were acknowledged, {table} has {rows:?}");
    }
    let decisions = server.rows("SELECT count(*) AS n FROM audit_log")?;
    ensure!(decisions[0]["n"] == 4, "a decision of after the back-up is in the log, and not in SQL: {decisions:?}");
    server.stop()?;
    let told = crate::doctor::examine(&server, &["--deep"])?;
    ensure!(told.code == Some(0), "{told:?}");
    Ok(())
}
