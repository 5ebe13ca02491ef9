//! Members of `ingest` that join and leave, and zombies: processes that stand still for longer than anybody waits for them,
//! and wake as if nothing had happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{FENCED, Ground, Writers, ask, figure, python, recount, stands};
use crate::process::Process;
use crate::server::{Dice, wait_for};

const SEED: u64 = 20_261_126;
const SHARDS: i64 = 2;
/// A zombie that had nothing left to commit, or heard in time that it is one, meets no fence: then there is another one.
const MOST_TRIES: usize = 6;
const PACE: (usize, Duration) = (10, Duration::from_millis(25));

#[test]
fn members_come_and_go_and_each_zombie_is_fenced() -> Result<()> {
    let (changes, zombies) = (figure(10, 600)?, figure(2, 100)?.min(100));
    // Seldom enough that a zombie has something left to commit.
    let ground = Ground::new("members", "lake: {commit_interval_ms: 1000}\nfolds: {shards: 2}\n")?;
    let mut members = vec![ground.start("ingest", 0)?, ground.start("ingest", 1)?];
    let mut owners = vec![ground.start("process", 0)?, ground.start("process", 1)?];
    members.iter_mut().chain(&mut owners).try_for_each(Process::wait_ready)?;
    let (writers, mut tries) = (Writers::default(), 0);
    let written = writers
        .during(&ground, PACE, || {
            come_and_go(&ground, &mut members, (changes, &writers))?;
            for zombie in 0..zombies {
                tries += if zombie % 2 == 0 { zombie_member(&ground, &members)? } else { zombie_owner(&mut owners)? };
                writers.wait_more(100)?;
            }
            Ok(())
        })
        .with_context(|| format!("seed {SEED}"))?;
    ground.wait_contained(written)?;
    let folded = i64::try_from(written)? * SHARDS;
    wait_for("the folds to contain the log", 120, || Ok((ground.contained("pipeline_runs")? >= folded).then_some(())))?;
    let mut serve = ground.start("serve", 0)?;
    serve.wait_ready()?;
    let sql = "SELECT (SELECT count(*) FROM pipeline_runs_events) AS events, (SELECT count(*) FROM pipeline_runs) AS runs, \
               (SELECT sum(runs) FROM pipeline_health) AS health";
    let answer = ask(serve.http, sql)?;
    members.iter_mut().chain(&mut owners).chain([&mut serve]).try_for_each(Process::stop)?;
    let rows = recount(&ground.lake())?;
    let columns = ["pipeline_runs", "source", "run_id"].map(Path::new);
    let derived = python("check_derived.py", &[&[ground.lake().as_path()], &columns[..]].concat())?;
    eprintln!("members: {changes} changes, {zombies} zombies in {tries} tries, {written} records, {rows} rows; {answer}");
    ensure!(rows == written, "{written} were written, {rows} rows are in the lake");
    let row = &answer["rows"][0];
    ensure!(["events", "runs", "health"].iter().all(|name| row[name] == written), "{written} were written: {row}");
    let derived = derived.json()?;
    ensure!(derived["keys"] == written && derived["repeats"] == 0, "of {written} runs the files have {derived}");
    Ok(())
}

/// Members join, and leave well or are killed, while events come in.
fn come_and_go(ground: &Ground, members: &mut Vec<Process>, (changes, writers): (usize, &Writers)) -> Result<()> {
    let mut dice = Dice(SEED);
    for change in 0..changes {
        if members.len() < 3 {
            members.push(ground.start("ingest", 2 + change)?);
            members.last_mut().context("a member")?.wait_ready()?;
        } else {
            let mut leaves = members.remove(usize::try_from(dice.below(members.len() as u64))?);
            if dice.below(2) == 0 { leaves.stop()? } else { leaves.kill()? }
        }
        writers.wait_more(50)?;
    }
    Ok(())
}

/// A member stands still until the others have all of its partitions; it wakes, and the tables refuse it. How many tries.
fn zombie_member(ground: &Ground, members: &[Process]) -> Result<usize> {
    for turn in 0..MOST_TRIES {
        let zombie = &members[turn % members.len()];
        let before = zombie.logged(FENCED)?;
        zombie.signal("STOP")?;
        let stood = stands(&ground.lake(), "pipeline_runs_events", &ground.topic)?;
        wait_for("the others to commit all partitions", 120, || {
            let now = stands(&ground.lake(), "pipeline_runs_events", &ground.topic)?;
            Ok(stood.iter().all(|(app, next)| now.get(app).is_some_and(|now| now > next)).then_some(()))
        })?;
        zombie.signal("CONT")?;
        let heard = |text: &str| zombie.logged(text);
        let revoked = heard("partitions change")?;
        wait_for("the zombie to know that it is none", 60, || {
            Ok((heard("partitions change")? > revoked || heard(FENCED)? > before).then_some(()))
        })?;
        if heard(FENCED)? > before {
            return Ok(turn + 1);
        }
    }
    bail!("in {MOST_TRIES} tries no zombie of ingest met a fence")
}

/// An owner of folds stands still until another one has its shard. How many tries.
fn zombie_owner(owners: &mut [Process]) -> Result<usize> {
    for turn in 0..MOST_TRIES {
        let at = owner(owners)?;
        let shards = owners[at].shards()?;
        let before = owners[at].logged(FENCED)?;
        owners[at].signal("STOP")?;
        let others: Vec<usize> = (0..owners.len()).filter(|other| *other != at).collect();
        wait_for("another owner of all its shards", 60, || {
            let mut taken = BTreeMap::new();
            for other in &others {
                taken.extend(owners[*other].shards()?);
            }
            Ok(shards.iter().all(|(shard, epoch)| taken.get(shard).is_some_and(|now| now > epoch)).then_some(()))
        })?;
        // The new owner has committed when it has taken the tables over, which it did before it said so.
        owners[at].signal("CONT")?;
        wait_for("the zombie to know that it is none", 60, || {
            let now = owners[at].shards()?;
            Ok(shards.iter().all(|(shard, epoch)| now.get(shard).is_none_or(|now| now > epoch)).then_some(()))
        })?;
        if owners[at].logged(FENCED)? > before {
            return Ok(turn + 1);
        }
    }
    bail!("in {MOST_TRIES} tries no zombie of the folds met a fence")
}

/// A process that owns a shard.
fn owner(owners: &mut [Process]) -> Result<usize> {
    wait_for("an owner of the folds", 60, || {
        for (at, owner) in owners.iter_mut().enumerate() {
            if !owner.shards()?.is_empty() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    })
}
