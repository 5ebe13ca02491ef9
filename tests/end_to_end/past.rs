//! The past of a repository, read by a server that is killed in the middle, from a platform that limits it: the rows are those of
//! the webhooks of the same facts, and what webhooks missed is found. Who looked at it and pressed Ctrl-C does not end it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::forge::{Fault, Forge, TOKEN, Thing, World};
use crate::github::{Hook, SECRET};
use crate::server::{Answer, OPEN, Server, directory, program, wait_for};
use crate::{github_world, gitlab_world, http};

/// Each table with its order; what is known beside the webhooks has a place of its own.
const TABLES: [(&str, &str); 6] = [
    ("pipeline_runs", "run_id, attempt"),
    ("task_runs", "task_run_id, attempt"),
    ("deployments", "deployment_id"),
    ("changes", "change_id"),
    ("incidents", "incident_id"),
    ("artifacts", "artifact_id"),
];

/// A platform with a small world, the webhooks of the same facts, and a change of which no webhook tells.
struct Side {
    name: &'static str,
    repository: &'static str,
    /// What is asked for first.
    root: &'static str,
    forge: Forge,
    hooks: Vec<github_world::Hook>,
    /// Adds a run of this id to the world, and what is not missed.
    more: fn(&mut World),
    run: &'static str,
}

fn github() -> Side {
    let world = github_world::world(60);
    let hooks = github_world::hooks(&world);
    let more = |world: &mut World| {
        let row = github_world::rows(world, "actions/runs").pop().unwrap_or_default();
        if let Some(Thing::List(runs, _)) = world.get_mut("/repos/acme/shop/actions/runs") {
            runs.push(github_world::run(&row, 7_777, 1, 12, 11));
        }
        // An issue that no rule makes an incident is not missed.
        let issue = github_world::rows(world, "issues").pop().unwrap_or_default();
        if let Some(Thing::List(issues, _)) = world.get_mut("/repos/acme/shop/issues") {
            let told = json!({
                "id": 7_777, "number": 7_777, "labels": [], "created_at": github_world::ago(12), "updated_at": github_world::ago(11),
                "closed_at": github_world::ago(11),
            });
            issues.push(github_world::with(&issue, told));
        }
    };
    let (repository, root) = (github_world::REPOSITORY, "/repos/acme/shop");
    Side { name: "github", repository, root, forge: Forge::new(github_world::DESCRIPTION, world), hooks, more, run: "9007777" }
}

fn gitlab() -> Side {
    let forge = Forge::new(gitlab_world::DESCRIPTION, gitlab_world::world(60));
    let (repository, root) = (gitlab_world::PROJECT, "/projects/acme%2Fweb%2Fshop");
    Side { name: "gitlab", repository, root, forge, hooks: gitlab_world::hooks(60), more: gitlab_world::one_more, run: "7777" }
}

fn config(test: &str, platform: &str, port: u16) -> Result<String> {
    let secrets = directory(&format!("{test}_secrets"))?;
    std::fs::write(secrets.join("secret"), SECRET)?;
    std::fs::write(secrets.join("token"), TOKEN)?;
    let (secret, token) = (secrets.join("secret"), secrets.join("token"));
    Ok(format!(
        "{OPEN}\nnetwork: {{allow: [\"127.0.0.1:{port}\"]}}\nsources:\n  {platform}: {{secret_file: {}, token_file: {}, api_url: \"http://127.0.0.1:{port}\", reconcile_minutes: 60}}\n",
        secret.display(),
        token.display()
    ))
}

/// Each server has pseudonyms of its own: they are numbered as they come.
fn number_persons(value: &mut Value, known: &mut Vec<String>) {
    match value {
        Value::String(text) if kiro_schemas::person::is_pseudonym(text) => {
            let at = known.iter().position(|name| name == text).unwrap_or_else(|| {
                known.push(text.clone());
                known.len() - 1
            });
            *text = format!("person {at}");
        }
        Value::Array(values) => values.iter_mut().for_each(|value| number_persons(value, known)),
        Value::Object(columns) => columns.values_mut().for_each(|value| number_persons(value, known)),
        _ => {}
    }
}

/// The rows of all tables, but for when and where the log had them.
fn tables(server: &Server) -> Result<Vec<Value>> {
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let (mut all, mut persons) = (Vec::new(), Vec::new());
    for (table, order) in TABLES {
        for mut row in server.rows(&format!("SELECT * FROM {table} ORDER BY {order}"))? {
            let columns = row.as_object_mut().context("no row")?;
            columns.retain(|name, _| !name.starts_with('_') && !matches!(name.as_str(), "known_at" | "recorded_at"));
            number_persons(&mut row, &mut persons);
            all.push(json!({ table: row }));
        }
    }
    ensure!(!persons.is_empty(), "nobody did anything");
    Ok(all)
}

/// What only the API tells is left out.
fn untold(mut rows: Vec<Value>) -> Vec<Value> {
    for columns in rows.iter_mut().filter_map(Value::as_object_mut).flat_map(|row| row.values_mut()) {
        if let Some(attributes) = columns["attributes"].as_object_mut() {
            attributes.remove("first_commit_at");
        }
        if columns["attributes"] == json!({}) {
            columns["attributes"] = Value::Null;
        }
    }
    rows
}

fn deliver(server: &Server, side: &Side) -> Result<()> {
    for (at, (event, body)) in side.hooks.iter().enumerate() {
        let delivery = format!("delivery-{at}");
        let taken = if side.name == "github" {
            Hook::new(event, body).deliver(server.http, &delivery, SECRET)?
        } else {
            let headers = [
                ("content-type", "application/json"),
                ("x-gitlab-event", *event),
                ("idempotency-key", &delivery),
                ("x-gitlab-token", SECRET),
            ];
            http::must(server.http, "POST /webhooks/gitlab", &headers, body.to_string().as_bytes())?
        };
        ensure!(taken.status == 202, "{taken:?}");
    }
    Ok(())
}

fn same(found: &[Value], expected: &[Value], what: &str) -> Result<()> {
    for (found, expected) in found.iter().zip(expected) {
        ensure!(found == expected, "{what}:\n{found}\nis not\n{expected}");
    }
    ensure!(found.len() == expected.len(), "{what}: {} rows, not {}", found.len(), expected.len());
    Ok(())
}

#[test]
fn a_killed_import_of_github_goes_on_and_its_rows_are_those_of_the_webhooks() -> Result<()> {
    let runtime = Runtime::new()?;
    let server = goes_on(&runtime, &github())?;
    wrong(&server)
}

#[test]
fn a_killed_import_of_gitlab_goes_on_and_its_rows_are_those_of_the_webhooks() -> Result<()> {
    goes_on(&Runtime::new()?, &gitlab()).map(drop)
}

fn goes_on(runtime: &Runtime, side: &Side) -> Result<Server> {
    let forge = &side.forge;
    // It is waited for the platform while the server is killed.
    forge.fail([(20, Fault::Status(500)), (30, Fault::Cut), (70, Fault::RetryAfter(429, 5))]);
    let port = runtime.block_on(forge.open()).port();
    let name = format!("past_{}", side.name);
    let mut server = Server::start(&name, &config(&name, side.name, port)?)?;
    let id = interrupted(&server, side)?;
    let show = |server: &Server| http::must(server.http, &format!("GET /api/v1/imports/platforms/{id}"), &[], b"")?.json();
    let before = show(&server)?;
    ensure!(before["state"] == "running" && before["progress"].as_f64().is_some_and(|part| part > 0.0 && part < 1.0), "{before}");
    server.kill()?;
    server.up()?;
    wait_for("the import to end", 60, || Ok((show(&server)?["state"] == "done").then_some(())))?;
    let asked_first = forge.seen().iter().filter(|seen| seen.path == side.root && seen.status == 200).count();
    ensure!(asked_first == 1, "it began again after the kill: {asked_first}");
    let again = server.must(&["import", side.name, side.repository, "--since", "365d"])?;
    ensure!(again["state"] == "done" && again["id"] == *id && again["notes"] == json!([]), "{again}");
    ensure!(again["events"] == 0 && again["unchanged"].as_u64().is_some_and(|count| count > 0), "it is not incremental: {again}");
    ensure!(forge.problems().is_empty(), "{:?}", forge.problems());
    let found = tables(&server)?;

    let by_hook = Server::start(&format!("{name}_hooks"), &config(&format!("{name}_hooks"), side.name, port)?)?;
    deliver(&by_hook, side)?;
    same(&untold(found.clone()), &tables(&by_hook)?, "the import and the webhooks")?;
    // Whichever comes first: what the API alone tells is there.
    ensure!(found.iter().any(|row| row["changes"]["attributes"]["first_commit_at"].is_string()), "no first commit");
    by_hook.must(&["import", side.name, side.repository, "--since", "365d"])?;
    same(&tables(&by_hook)?, &found, "the webhooks and the import after them")?;
    drop(by_hook);
    deliver(&server, side)?;
    same(&tables(&server)?, &found, "the import and the webhooks after it")?;

    missed(&mut server, side)?;
    let log = std::fs::read_to_string(server.dir.join("server.log"))?;
    let kept: String = std::fs::read_dir(server.data().join("backfills"))?
        .map(|entry| Ok(std::fs::read_to_string(entry?.path())?))
        .collect::<Result<_>>()?;
    for canary in [TOKEN, "canary-of-a-payload"] {
        ensure!(!log.contains(canary) && !kept.contains(canary), "{canary} is in the log or in a job's file");
    }
    Ok(server)
}

/// Looks at an import, and presses Ctrl-C while it is waited for the platform: the command ends and says so, the job goes on. Its id.
fn interrupted(server: &Server, side: &Side) -> Result<String> {
    let mut command = Command::new(program("kirolinter")?);
    command.args(["import", side.name, side.repository, "--since", "365d", "--format", "json"]);
    command.args(["--server", &format!("http://127.0.0.1:{}", server.http)]).env_remove("KIROLINTER_TOKEN");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let is_limited = || Ok(side.forge.seen().iter().any(|seen| seen.status == 429).then_some(()));
    let limited = wait_for("the platform to limit the import", 30, is_limited);
    ensure!(Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status()?.success(), "no signal was sent");
    let answer = Answer::of(child.wait_with_output()?)?;
    limited?;
    let again = format!("look at it again: kirolinter import {} {} --since 365d", side.name, side.repository);
    ensure!(answer.code == Some(130) && answer.out.is_empty() && answer.err.contains(&again), "{answer:?}");
    // What that command asks the server first, which is answered with the same job.
    let asked = json!({"platform": side.name, "repository": side.repository, "since": "365d"}).to_string();
    let job =
        http::must(server.http, "POST /api/v1/imports/platforms", &[("content-type", "application/json")], asked.as_bytes())?.json()?;
    ensure!(job["state"] == "running", "it does not go on: {job}");
    Ok(job["id"].as_str().with_context(|| format!("{job}"))?.to_owned())
}

/// While the server is down nobody takes webhooks: what they would have told is found when it is up.
fn missed(server: &mut Server, side: &Side) -> Result<()> {
    server.stop()?;
    side.forge.change(side.more);
    server.up()?;
    wait_for("what was missed", 30, || {
        let rows = server.rows(&format!("SELECT outcome FROM pipeline_runs WHERE run_id = '{}'", side.run))?;
        Ok((rows.len() == 1).then_some(()))
    })?;
    let missed = format!("kiro_backfill_events_total{{found=\"missed\",platform=\"{}\"}} 1\n", side.name);
    wait_for("the count of what was missed", 30, || {
        let metrics = http::must(server.http, "GET /metrics", &[], b"")?.body;
        Ok(metrics.contains(&missed).then_some(()))
    })?;
    Ok(())
}

/// What cannot be imported says why.
fn wrong(server: &Server) -> Result<()> {
    let cases: [(&[&str], &str); 5] = [
        (&["github", "acme/nowhere"], "no access"),
        (&["github", "nowhere"], "octocat/hello-world"),
        (&["github", github_world::REPOSITORY, "--since", "yesterday"], "365d"),
        (&["gitlab", "acme/shop"], "sources.gitlab.token_file"),
        (&["bitbucket", "acme/shop"], "cannot be used with"),
    ];
    for (arguments, word) in cases {
        let all: Vec<&str> = ["import"].iter().chain(arguments).copied().collect();
        let answer = server.ask(&all)?;
        ensure!(answer.code == Some(2) && answer.err.contains(word), "{word:?} is not told: {answer:?}");
    }
    Ok(())
}
