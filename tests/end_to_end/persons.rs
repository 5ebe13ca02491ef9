//! Persons: whichever way a name comes in, no table, file, metric or log tells it; and who is forgotten is nobody's any more.

mod shared;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::github::{Hook, SECRET};
use crate::http;
use crate::server::{Answer, OPEN, Server, directory, wait_for};

const CANARY: &str = "canary-person-7f3a";
/// Reads all Parquet files below a folder and prints each value that holds a text.
const READER: &str = "
import pathlib, sys
import pyarrow.parquet as pq
seen = 0
for path in pathlib.Path(sys.argv[1]).rglob('*.parquet'):
    table = pq.ParquetFile(path).read()
    seen += table.num_rows
    for name in table.column_names:
        for value in table.column(name).to_pylist():
            if sys.argv[2] in str(value):
                print(path, name, value)
print('rows', seen)
";
const MAPPING: &str = "version: 1
keep: true
events:
  - subject: deployment
    transition: finished
    fields: {source: Repo, subject_id: Id, time: Time, actor: Who, outcome: {const: success}}
";
/// Everything that names a person: where it stands, and by whom.
const NAMED: [(&str, &str); 7] = [
    ("a webhook", "SELECT actor AS who FROM pipeline_runs WHERE run_id = '71'"),
    ("a request", "SELECT author AS who FROM changes WHERE change_id = '5' AND source LIKE 'https://github.com/%'"),
    ("a review", "SELECT attributes['reviewer'] AS who FROM changes_events WHERE transition = 'reviewed'"),
    ("a native event", "SELECT actor AS who FROM deployments WHERE deployment_id = 'native'"),
    ("its attributes", "SELECT attributes['requested_by'] AS who FROM deployments WHERE deployment_id = 'native'"),
    ("an import", "SELECT actor AS who FROM deployments WHERE deployment_id = 'imported'"),
    ("a CDEvent", "SELECT attributes['actor'] AS who FROM task_runs WHERE task_run_id = 'standard'"),
];

fn native(id: &str) -> String {
    json!({
        "subject": "deployment", "transition": "finished", "source": "https://ci/acme", "subject_id": id, "time": "2026-11-20T10:07:00Z",
        "fields": {"environment": "production", "outcome": "success", "actor": CANARY}, "attributes": {"requested_by": CANARY},
    })
    .to_string()
}

/// GitHub's webhooks of a run and a request, and Gitea's of a review, whose sender alone tells it from others.
fn deliver(server: &Server) -> Result<()> {
    let repository = json!({"html_url": "https://github.com/acme/shop", "name": "shop"});
    let run = json!({
        "action": "completed", "repository": repository,
        "workflow_run": {
            "id": 71, "name": "ci", "run_attempt": 1, "status": "completed", "conclusion": "success", "event": "push", "head_branch": "main",
            "head_sha": "0a1b2c", "html_url": "https://github.com/acme/shop/runs/71", "triggering_actor": {"login": CANARY},
            "created_at": "2026-11-20T10:00:00Z", "run_started_at": "2026-11-20T10:00:05Z", "updated_at": "2026-11-20T10:07:00Z",
        },
    });
    let pull = json!({
        "number": 5, "title": "Mend it", "html_url": "https://github.com/acme/shop/pull/5", "user": {"login": CANARY}, "state": "open",
        "head": {"ref": "mend", "sha": "0a1b2c"}, "base": {"ref": "main", "sha": "0a1b2d"},
        "created_at": "2026-11-20T10:00:00Z", "updated_at": "2026-11-20T10:00:00Z",
    });
    let request = json!({"action": "opened", "number": 5, "repository": repository, "pull_request": pull});
    for (id, event, body) in [("d-1", "workflow_run", &run), ("d-2", "pull_request", &request)] {
        ensure!(Hook::new(event, body).deliver(server.http, id, SECRET)?.status == 202, "{event} is not taken");
    }
    let path = kiro_tests::root().join("integrations/tests/gitea/pull_request_approved.approved.own.json");
    let mut review: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    review["sender"]["login"] = CANARY.into();
    review["pull_request"]["user"]["login"] = CANARY.into();
    let review = review.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(review.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let headers = [
        ("content-type", "application/json"),
        ("x-gitea-event", "pull_request_approved"),
        ("x-gitea-event-type", "pull_request_review_approved"),
        ("x-gitea-signature", signature.as_str()),
    ];
    let taken = http::must(server.http, "POST /webhooks/gitea", &headers, review.as_bytes())?;
    ensure!(taken.status == 202, "{taken:?}");
    Ok(())
}

/// The same person by all other ways in.
fn tell(server: &Server) -> Result<()> {
    std::fs::write(server.dir.join("mapping.yaml"), MAPPING)?;
    let csv = format!("Repo,Id,Time,Who,assignee,team\nhttps://ci/acme,imported,2026-11-20T10:08:00Z,{CANARY},{CANARY},red\n");
    std::fs::write(server.dir.join("deployments.csv"), csv)?;
    server.must(&["import", "deployments.csv", "--mapping", "mapping.yaml"])?;
    let event = json!({
        "specversion": "1.0", "id": "c-1", "source": "https://ci/acme", "type": "dev.cdevents.taskrun.started.0.3.0",
        "time": "2026-11-20T10:00:00Z", "datacontenttype": "application/json",
        "data": {
            "context": {
                "specversion": "0.6.0-draft", "id": "c-1", "source": "https://ci/acme", "type": "dev.cdevents.taskrun.started.0.3.0",
                "timestamp": "2026-11-20T10:00:00Z",
            },
            "subject": {"id": "standard", "source": "https://ci/acme", "content": {"taskName": "compile"}},
            "customData": {"actor": CANARY},
        },
    });
    server.send("standard.json", "application/cloudevents+json", &event.to_string())?;
    server.send("native.ndjson", "application/x-ndjson", &native("native"))?;
    Ok(())
}

/// The only value of the column `who` of a question.
fn who(server: &Server, sql: &str) -> Result<String> {
    let rows = server.rows(sql)?;
    ensure!(rows.len() == 1, "{sql}: {rows:?}");
    Ok(rows[0]["who"].as_str().with_context(|| format!("{sql}: {rows:?}"))?.to_owned())
}

/// The name in the bytes of a folder's files, and in the values of those that are packed.
fn told_by_files(lake: &Path) -> Result<Vec<String>> {
    let mut found = crate::sources::holds(lake, CANARY)?;
    let python = Answer::of(Command::new(kiro_tests::root().join("scripts/python.sh")).output()?)?;
    let read = Answer::of(Command::new(python.out.trim()).args(["-c", READER]).arg(lake).arg(CANARY).output()?)?;
    ensure!(read.code == Some(0), "{read:?}");
    let (values, rows): (Vec<&str>, Vec<&str>) = read.out.lines().partition(|line| !line.starts_with("rows "));
    ensure!(rows.len() == 1 && rows[0] != "rows 0", "{read:?}");
    found.extend(values.into_iter().map(str::to_owned));
    Ok(found)
}

fn started() -> Result<Server> {
    let secret = directory("persons_secrets")?.join("secret");
    std::fs::write(&secret, SECRET)?;
    let file = format!("{{secret_file: {}}}", secret.display());
    let mut server = Server::prepare("persons", &format!("{OPEN}sources: {{github: {file}, gitea: {file}}}\n"))?;
    start_loud(&mut server)?;
    Ok(server)
}

fn start_loud(server: &mut Server) -> Result<()> {
    let mut loud = Command::new("env");
    loud.arg("KIROLINTER_LOG=debug");
    server.spawn_by(loud)?;
    server.ready(30)
}

/// Admins alone may ask who is who.
fn is_for_admins(server: &Server) -> Result<()> {
    let made = server.must(&["token", "create", "operator", "--role", "operator"])?;
    let token = made["token"].as_str().context("no token")?;
    for command in ["show", "forget"] {
        let refused = server.ask_as(Some(token), &["persons", command, CANARY])?;
        ensure!(refused.code == Some(2) && refused.err.contains("needs the role admin"), "{refused:?}");
    }
    Ok(())
}

/// Events that come later tell another pseudonym as soon as those who remembered have forgotten.
fn is_forgotten(server: &Server, pseudonym: &str) -> Result<String> {
    let forgotten = server.must(&["persons", "forget", CANARY])?;
    ensure!(forgotten["pseudonym"] == pseudonym, "{forgotten} is not {pseudonym}");
    let mut count = 0;
    let other = wait_for("another pseudonym", 60, || {
        count += 1;
        let id = format!("later-{count}");
        server.send("later.ndjson", "application/x-ndjson", &native(&id))?;
        let found = who(server, &format!("SELECT actor AS who FROM deployments WHERE deployment_id = '{id}'"))?;
        Ok((found != pseudonym).then_some(found))
    })?;
    ensure!(server.must(&["persons", "show", CANARY])?["pseudonym"] == other.as_str(), "{other} is not who is shown");
    Ok(other)
}

#[test]
fn whichever_way_a_person_comes_in_the_lake_has_a_pseudonym() -> Result<()> {
    let mut server = started()?;
    let unknown = server.ask(&["persons", "show", CANARY])?;
    ensure!(unknown.code == Some(2) && unknown.err.contains("nobody of this name") && !unknown.err.contains(CANARY), "{unknown:?}");
    deliver(&server)?;
    tell(&server)?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;

    let pseudonym = server.must(&["persons", "show", CANARY])?["pseudonym"].as_str().context("none")?.to_owned();
    ensure!(pseudonym.starts_with("p-") && pseudonym.len() == 22, "{pseudonym}");
    for (what, sql) in NAMED {
        let found = who(&server, sql)?;
        ensure!(found == pseudonym, "{what} is by {found}, not {pseudonym}");
    }
    let review = who(&server, "SELECT event_id AS who FROM changes_events WHERE transition = 'reviewed'")?;
    ensure!(review.ends_with(&format!("/{pseudonym}")), "the review's id is {review}");
    let import = "SELECT attributes['assignee'] AS who FROM deployments WHERE deployment_id = 'imported' AND attributes['team'] = 'red'";
    ensure!(who(&server, import)? == pseudonym, "a column that is kept tells somebody else");
    // A webhook that is read again is found by the id that its event has in the tables.
    let replayed = server.must(&["sources", "replay", "gitea", "--since", "1d"])?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    who(&server, "SELECT event_id AS who FROM changes_events WHERE transition = 'reviewed'").context(replayed.to_string())?;

    is_for_admins(&server)?;
    let other = is_forgotten(&server, &pseudonym)?;
    let is_still = who(&server, NAMED[0].1)?;
    ensure!(is_still == pseudonym && other != pseudonym, "what is written keeps the pseudonym that nobody can resolve");
    let told = crate::sources::told_by_sql(&server, CANARY)?;
    ensure!(told.is_empty(), "{told:?}");
    let audited =
        server.rows(&format!("SELECT action FROM audit_log WHERE object = '{pseudonym}' AND result = 'allowed' ORDER BY time"))?;
    ensure!(audited.iter().map(|row| row["action"].as_str()).eq([Some("person.show"), Some("person.forget")]), "{audited:?}");
    ensure!(!http::must(server.http, "GET /metrics", &[], b"")?.body.contains(CANARY), "the metrics tell it");

    let before = server.rows("SELECT deployment_id, actor FROM deployments ORDER BY deployment_id")?;
    server.stop()?;
    start_loud(&mut server)?;
    let after = server.rows("SELECT deployment_id, actor FROM deployments ORDER BY deployment_id")?;
    ensure!(before == after, "a restart tells others: {before:?} and {after:?}");
    server.send("again.ndjson", "application/x-ndjson", &native("again"))?;
    ensure!(who(&server, "SELECT actor AS who FROM deployments WHERE deployment_id = 'again'")? == other, "a restart names anew");
    server.stop()?;

    let lines = std::fs::read_to_string(server.dir.join("server.log"))?;
    ensure!(lines.len() > 5_000, "the server logs nothing");
    let told: Vec<&str> = lines.lines().filter(|line| line.contains(CANARY)).collect();
    ensure!(told.is_empty(), "the log tells it: {told:?}");
    let told = told_by_files(&server.data().join("lake"))?;
    ensure!(told.is_empty(), "{told:?}");
    let told = crate::sources::holds(&server.data(), CANARY)?;
    let apart: Vec<&String> = told.iter().filter(|path| !path.contains("/data/log/")).collect();
    ensure!(apart.is_empty() && !told.is_empty(), "apart from the log, which keeps what came, it is in {apart:?}");
    Ok(())
}
