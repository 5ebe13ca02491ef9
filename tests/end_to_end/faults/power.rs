//! Power cuts at random instants while posts are acknowledged: what is on the disk then is whole, and holds all of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::image::{Disk, in_memory};
use super::{figure, recount};
use crate::kill_nine::Sender;
use crate::server::{Dice, OPEN, Server, wait_for};

const SEED: u64 = 20_261_125;
/// Cuts of one disk; then it is a new one, so that a long run does not outgrow it.
const CUTS_A_DISK: usize = 10;
const DISK_MIB: u64 = 96;
const SENDERS: usize = 3;

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() -> Result<()> {
    let cuts = figure(5, 200)?;
    let mut dice = Dice(SEED);
    let mut survived = 0;
    while survived < cuts {
        let here = CUTS_A_DISK.min(cuts - survived);
        let events = cut(here, &mut dice).with_context(|| format!("seed {SEED}, after {survived} cuts"))?;
        survived += here;
        eprintln!("power cuts: {survived}, at the last one {events} events were acknowledged");
    }
    Ok(())
}

/// One server on one disk; how many events were acknowledged before the last cut.
fn cut(cuts: usize, dice: &mut Dice) -> Result<usize> {
    let mut server = Server::prepare("power", OPEN)?;
    let mut disk = Disk::make(in_memory("power"), DISK_MIB, &server.data())?;
    server.up()?;
    let sender = Sender { pause: Duration::from_millis(10), ..Sender::default() };
    let port = server.http;
    let events = std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| sender.run(port));
        }
        let outcome = (0..cuts).try_fold(0, |_, number| {
            let token = format!("before-{number}");
            server.must(&["token", "create", &token, "--role", "viewer"])?;
            let before = sender.acknowledged();
            wait_for("an event to be acknowledged", 20, || Ok((sender.acknowledged() > before).then_some(())))?;
            std::thread::sleep(Duration::from_millis(dice.below(700)));
            let acknowledged = sender.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let copy = in_memory("power-cut");
            freeze(&server, || disk.copy_to(&copy))?;
            survives(copy, &acknowledged, number + 1).with_context(|| format!("cut {number}"))?;
            anyhow::Ok(acknowledged.len())
        });
        sender.ended.store(true, Ordering::Relaxed);
        outcome
    })?;
    server.stop()?;
    disk.unmount()?;
    Ok(events)
}

/// Does something while a server does nothing: a copy of its disk is then of one instant.
pub(super) fn freeze(server: &Server, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let signal = |name: &str| -> Result<()> {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", server.id()?)]).status()?;
        ensure!(sent.success(), "the server was not sent {name}");
        Ok(())
    };
    signal("STOP")?;
    let done = work();
    signal("CONT")?;
    done
}

/// What was on the disk at a cut: the lake is whole as it lies there, a server starts on it, and has what was acknowledged,
/// and so many tokens.
pub(super) fn survives(copy: PathBuf, acknowledged: &BTreeSet<String>, tokens: usize) -> Result<()> {
    let mut server = Server::prepare("power_after", OPEN)?;
    let mut disk = Disk::open(copy, &server.data())?;
    // A cut can come before the first table.
    if server.data().join("lake/tables/pipeline_runs_events").exists() {
        recount(&server.data().join("lake")).context("as it lay there")?;
    }
    server.up()?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = server.rows("SELECT run_id, count(*) AS n FROM pipeline_runs_events GROUP BY 1")?;
    let found: BTreeSet<&str> = rows.iter().filter_map(|row| row["run_id"].as_str()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id.as_str())).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged events are lost, such as {:?}", lost.len(), acknowledged.len(), lost[0]);
    let twice: Vec<_> = rows.iter().filter(|row| row["n"] != 1).collect();
    ensure!(twice.is_empty(), "{} events stand more than once, such as {:?}", twice.len(), twice[0]);
    let runs = server.rows("SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM pipeline_runs")?;
    ensure!(runs[0]["n"] == rows.len() && runs[0]["d"] == rows.len(), "{} events, but {runs:?} runs", rows.len());
    let found = server.must(&["token", "list"])?.to_string();
    for token in 0..tokens {
        ensure!(found.contains(&format!("\"before-{token}\"")), "token before-{token} is lost: {found}");
    }
    server.stop()?;
    recount(&server.data().join("lake")).context("after the start")?;
    disk.unmount()
}
