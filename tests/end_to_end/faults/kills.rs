//! Killed at random instants while four write: what is in the log is in the lake, once, and the next life is ready soon.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Ground, Writers, figure, recount};
use crate::process::Process;
use crate::server::Dice;

const SEED: u64 = 20_261_124;
const MEMBERS: usize = 2;
/// A life that was killed is followed by one that is ready.
const READY_IN: Duration = Duration::from_secs(10);

#[test]
fn killed_members_lose_nothing_and_are_ready_again_in_ten_seconds() -> Result<()> {
    let (kills, least_rows) = (figure(10, 1_000)?, figure(10_000, 5_000_000)?);
    let ground = Ground::new("kills", "lake: {commit_interval_ms: 200}\n")?;
    let mut members = (0..MEMBERS).map(|number| ground.start("ingest", number)).collect::<Result<Vec<_>>>()?;
    members.iter_mut().try_for_each(Process::wait_ready)?;
    let (writers, mut slowest) = (Writers::default(), Duration::ZERO);
    let pace = if kills > 100 { (200, Duration::from_millis(100)) } else { (50, Duration::from_millis(20)) };
    let written = writers
        .during(&ground, pace, || {
            let mut dice = Dice(SEED);
            for kill in 0..kills {
                writers.wait_more(1)?;
                std::thread::sleep(Duration::from_millis(dice.below(800)));
                let member = &mut members[usize::try_from(dice.below(MEMBERS as u64))?];
                slowest = slowest.max(revive(member).with_context(|| format!("kill {} of seed {SEED}", kill + 1))?);
            }
            while writers.written.load(Ordering::Relaxed) < least_rows {
                writers.wait_more(1)?;
            }
            Ok(())
        })
        .with_context(|| format!("seed {SEED}"))?;
    ground.wait_contained(written)?;
    members.iter_mut().try_for_each(Process::stop)?;
    let rows = recount(&ground.lake())?;
    eprintln!("kills: {kills}, {written} records, {rows} rows; the slowest was ready after {slowest:?}");
    ensure!(rows == written, "{written} were written, {rows} rows are in the lake");
    ensure!(slowest <= READY_IN, "it took {slowest:?} to be ready again");
    Ok(())
}

/// Kills a process and starts it again; how long it took until it was ready.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
fn revive(member: &mut Process) -> Result<Duration> {
    member.kill()?;
    let began = Instant::now();
    member.again()?;
    member.wait_ready()?;
    Ok(began.elapsed())
}
