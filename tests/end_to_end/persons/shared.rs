//! Processes that agree on who is who, also while the control store is away and after somebody was forgotten.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::http;
use crate::kafka::Broker;
use crate::process::{Postgres, Process};
use crate::server::{Answer, OPEN, directory, wait_for};

const KNOWN: &str = "known-person-91c2";
const NEW: &str = "new-person-55d0";
/// Events after somebody was forgotten, over all partitions.
const LATER: usize = 24;
const READER: &str = "
import pathlib, sys
import pyarrow.parquet as pq
for path in pathlib.Path(sys.argv[1]).glob('*.parquet'):
    rows = pq.ParquetFile(path).read(columns=['deployment_id', 'actor'])
    for id, actor in zip(*[rows.column(name).to_pylist() for name in rows.column_names]):
        if id.startswith(sys.argv[2]):
            print(actor)
";

fn post(serve: u16, id: &str, who: &str) -> Result<()> {
    let event = json!({
        "subject": "deployment", "transition": "finished", "source": format!("https://ci/{id}"), "subject_id": id,
        "time": "2026-11-20T10:07:00Z", "fields": {"environment": "production", "outcome": "success", "actor": who},
    });
    let headers = [("content-type", "application/x-ndjson")];
    let taken = http::must(serve, "POST /api/v1/events", &headers, event.to_string().as_bytes())?;
    ensure!(taken.status == 202, "{id}: {taken:?}");
    Ok(())
}

/// Who deployed, as SQL tells it; `None` before the event is there.
fn actor(serve: u16, id: &str) -> Result<Option<String>> {
    let sql = format!("SELECT actor FROM deployments_events WHERE deployment_id = '{id}'");
    let body = json!({ "sql": sql }).to_string();
    let answer = http::must(serve, "POST /api/v1/query", &[("content-type", "application/json")], body.as_bytes())?.json()?;
    Ok(answer["rows"][0]["actor"].as_str().map(str::to_owned))
}

fn told(serve: u16, id: &str) -> Result<String> {
    wait_for(&format!("the deployment {id}"), 30, || actor(serve, id))
}

/// Whom the control store has by a name.
fn shown(serve: u16, name: &str) -> Result<String> {
    let person = http::must(serve, &format!("GET /api/v1/persons/{name}"), &[], b"")?.json()?;
    Ok(person["pseudonym"].as_str().with_context(|| person.to_string())?.to_owned())
}

/// While the control store is away, who is known goes on, who is new waits with all that comes behind, and nobody is told by name.
fn names_that_are_new_wait(postgres: &mut Postgres, serve: &Process, known: &str) -> Result<()> {
    postgres.stop()?;
    post(serve.http, "away-known", KNOWN)?;
    ensure!(told(serve.http, "away-known")? == known, "another pseudonym while the control store is away");
    let before = serve.metrics()?.sum("kiro_ingest_person_errors_total", &[]);
    post(serve.http, "away-new", NEW)?;
    wait_for("the failure to be counted", 30, || {
        Ok((serve.metrics()?.sum("kiro_ingest_person_errors_total", &[]) >= before + 2.0).then_some(()))
    })?;
    ensure!(actor(serve.http, "away-new")?.is_none(), "an event is shown whose person has no pseudonym");
    postgres.again()?;
    let new = told(serve.http, "away-new")?;
    ensure!(new.starts_with("p-") && new != known && new == shown(serve.http, NEW)?, "{new} is not who is shown");
    Ok(())
}

/// By whom the files of the lake say that some deployments are, whose ids begin alike.
fn filed(lake: &Path, prefix: &str) -> Result<Vec<String>> {
    let python = Answer::of(Command::new(kiro_tests::root().join("scripts/python.sh")).output()?)?;
    let read = Answer::of(Command::new(python.out.trim()).args(["-c", READER]).arg(lake).arg(prefix).output()?)?;
    ensure!(read.code == Some(0), "{read:?}");
    Ok(read.out.lines().map(str::to_owned).collect())
}

/// All processes follow when one forgets: what comes later is by one other pseudonym, whichever of them read and wrote it.
fn all_forget(serve: &Process, ingest: &[Process], dir: &Path, known: &str) -> Result<()> {
    let gone = http::must(serve.http, &format!("DELETE /api/v1/persons/{KNOWN}"), &[], b"")?;
    ensure!(gone.status == 200, "{gone:?}");
    let lake = dir.join("data/lake/tables/deployments_events");
    let mut round = 0;
    let other = wait_for("all processes to forget", 60, || {
        round += 1;
        let prefix = format!("later-{round}-");
        let ids: Vec<String> = (0..LATER).map(|at| format!("{prefix}{at}")).collect();
        ids.iter().try_for_each(|id| post(serve.http, id, KNOWN))?;
        let mut actors = ids.iter().map(|id| told(serve.http, id)).collect::<Result<Vec<_>>>()?;
        actors.extend(wait_for("the rows in files", 30, || Ok(Some(filed(&lake, &prefix)?).filter(|found| found.len() == LATER)))?);
        Ok(actors.iter().all(|actor| *actor == actors[0] && actor != known).then(|| actors[0].clone()))
    })?;
    ensure!(shown(serve.http, KNOWN)? == other, "{other} is not who is shown");
    ensure!(told(serve.http, "before")? == known, "what is written keeps the pseudonym that nobody can resolve");
    for process in ingest {
        ensure!(process.metrics()?.sum("kiro_ingest_records_total", &[]) > 0.0, "a process of ingest read nothing: it shows nothing");
    }
    Ok(())
}

#[test]
fn processes_agree_on_persons_through_an_outage_of_the_control_store() -> Result<()> {
    let (dir, broker, mut postgres) = (directory("persons_shared")?, Broker::shared()?, Postgres::start()?);
    std::fs::write(dir.join("postgres.url"), &postgres.url)?;
    let config = format!(
        "{OPEN}log: {{kafka: \"{}\", topic: persons.shared, partitions: 4}}\n\
         control: {{postgres_file: postgres.url, lease_seconds: 2}}\n",
        broker.address
    );
    std::fs::write(dir.join("kirolinter.yaml"), config)?;
    let mut serve = Process::start(&dir, "serve", 0)?;
    serve.wait_ready()?;
    let mut ingest = [Process::start(&dir, "ingest", 0)?, Process::start(&dir, "ingest", 1)?];
    ingest.iter_mut().try_for_each(Process::wait_ready)?;

    post(serve.http, "before", KNOWN)?;
    let known = told(serve.http, "before")?;
    ensure!(known == shown(serve.http, KNOWN)?, "{known} is not who is shown");
    // What is not in a file when somebody is forgotten is by whom it is then.
    let lake = dir.join("data/lake/tables/deployments_events");
    wait_for("the row in a file", 30, || Ok((filed(&lake, "before")? == [known.clone()]).then_some(())))?;
    names_that_are_new_wait(&mut postgres, &serve, &known)?;
    all_forget(&serve, &ingest, &dir, &known)?;

    for process in ingest.iter_mut().chain([&mut serve]) {
        process.stop()?;
    }
    for name in [KNOWN, NEW] {
        let found = crate::sources::holds(&dir.join("data"), name)?;
        ensure!(found.is_empty(), "{name} is in {found:?}");
    }
    Ok(())
}
