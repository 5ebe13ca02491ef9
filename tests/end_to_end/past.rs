//! The past of a repository, read by a server that is killed in the middle, from a platform that limits it: the rows are those of
//! the webhooks of the same facts, and what webhooks missed is found.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::forge::{Fault, Forge, TOKEN, Thing};
use crate::github::{Hook, SECRET};
use crate::github_world::{DESCRIPTION, REPOSITORY, hooks, rows, run, world};
use crate::http;
use crate::server::{OPEN, Server, directory, wait_for};

/// Each table with its order; what is known beside the webhooks has a place of its own.
const TABLES: [(&str, &str); 6] = [
    ("pipeline_runs", "run_id, attempt"),
    ("task_runs", "task_run_id, attempt"),
    ("deployments", "deployment_id"),
    ("changes", "change_id"),
    ("incidents", "incident_id"),
    ("artifacts", "artifact_id"),
];

fn config(test: &str, port: u16) -> Result<String> {
    let secrets = directory(&format!("{test}_secrets"))?;
    std::fs::write(secrets.join("secret"), SECRET)?;
    std::fs::write(secrets.join("token"), TOKEN)?;
    let (secret, token) = (secrets.join("secret"), secrets.join("token"));
    Ok(format!(
        "{OPEN}\nnetwork: {{allow: [\"127.0.0.1:{port}\"]}}\nsources:\n  github: {{secret_file: {}, token_file: {}, api_url: \"http://127.0.0.1:{port}\", reconcile_minutes: 60}}\n",
        secret.display(),
        token.display()
    ))
}

/// The rows of all tables, but for when and where the log had them; notes that only the API gives are left out.
fn tables(server: &Server) -> Result<Vec<Value>> {
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let mut all = Vec::new();
    for (table, order) in TABLES {
        for mut row in server.rows(&format!("SELECT * FROM {table} ORDER BY {order}"))? {
            let columns = row.as_object_mut().context("no row")?;
            columns.retain(|name, _| !name.starts_with('_') && !matches!(name.as_str(), "known_at" | "recorded_at"));
            if let Some(attributes) = columns.get_mut("attributes").and_then(Value::as_object_mut) {
                attributes.remove("first_commit_at");
            }
            if columns.get("attributes").is_some_and(|attributes| *attributes == json!({})) {
                columns.insert("attributes".to_owned(), Value::Null);
            }
            all.push(json!({ table: row }));
        }
    }
    Ok(all)
}

fn deliver(server: &Server, hooks: &[(&'static str, Value)]) -> Result<()> {
    for (at, (event, body)) in hooks.iter().enumerate() {
        let taken = Hook::new(event, body).deliver(server.http, &format!("delivery-{at}"), SECRET)?;
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
fn a_killed_import_goes_on_and_its_rows_are_those_of_the_webhooks() -> Result<()> {
    let runtime = Runtime::new()?;
    let (small, hooks) = (world(60), hooks(&world(60)));
    let forge = Forge::new(DESCRIPTION, small);
    // It is waited for the platform while the server is killed.
    forge.fail([(20, Fault::Status(500)), (30, Fault::Cut), (70, Fault::RetryAfter(429, 5))]);
    let port = runtime.block_on(forge.open()).port();
    let mut server = Server::start("past", &config("past", port)?)?;
    let begin = json!({"platform": "github", "repository": REPOSITORY, "since": "365d"}).to_string();
    let first =
        http::must(server.http, "POST /api/v1/imports/platforms", &[("content-type", "application/json")], begin.as_bytes())?.json()?;
    let path = format!("GET /api/v1/imports/platforms/{}", first["id"].as_str().with_context(|| format!("{first}"))?);
    let show = |server: &Server| http::must(server.http, &path, &[], b"")?.json();
    wait_for("the platform to limit the import", 30, || {
        let status = show(&server)?;
        Ok((status["waiting_for"] == "the platform asked to wait").then_some(()))
    })?;
    let before = show(&server)?;
    ensure!(before["state"] == "running" && before["progress"].as_f64().is_some_and(|part| part > 0.0 && part < 1.0), "{before}");
    server.kill()?;
    server.up()?;
    wait_for("the import to end", 60, || Ok((show(&server)?["state"] == "done").then_some(())))?;
    let asked_first = forge.seen().iter().filter(|seen| seen.path == "/repos/acme/shop" && seen.status == 200).count();
    ensure!(asked_first == 1, "it began again after the kill: {asked_first}");
    let again = server.must(&["import", "github", REPOSITORY, "--since", "365d"])?;
    ensure!(again["state"] == "done" && again["id"] == first["id"] && again["notes"] == json!([]), "{again}");
    ensure!(again["events"] == 0 && again["unchanged"].as_u64().is_some_and(|count| count > 0), "it is not incremental: {again}");
    ensure!(forge.problems().is_empty(), "{:?}", forge.problems());
    let found = tables(&server)?;

    let by_hook = Server::start("past_hooks", &config("past_hooks", port)?)?;
    deliver(&by_hook, &hooks)?;
    same(&found, &tables(&by_hook)?, "the import and the webhooks")?;
    drop(by_hook);
    deliver(&server, &hooks)?;
    same(&tables(&server)?, &found, "the import and the webhooks after it")?;

    missed(&mut server, &forge)?;
    wrong(&server)?;
    let log = std::fs::read_to_string(server.dir.join("server.log"))?;
    let kept: String = std::fs::read_dir(server.data().join("backfills"))?
        .map(|entry| Ok(std::fs::read_to_string(entry?.path())?))
        .collect::<Result<_>>()?;
    for canary in [TOKEN, "canary-of-a-payload"] {
        ensure!(!log.contains(canary) && !kept.contains(canary), "{canary} is in the log or in a job's file");
    }
    Ok(())
}

/// While the server is down nobody takes webhooks: what they would have told is found when it is up.
fn missed(server: &mut Server, forge: &Forge) -> Result<()> {
    server.stop()?;
    forge.change(|world| {
        let row = rows(world, "actions/runs").pop().unwrap_or_default();
        if let Some(Thing::List(runs, _)) = world.get_mut("/repos/acme/shop/actions/runs") {
            runs.push(run(&row, 7_777, 1, 12, 11));
        }
    });
    server.up()?;
    wait_for("what was missed", 30, || {
        let rows = server.rows("SELECT outcome FROM pipeline_runs WHERE run_id = '9007777'")?;
        Ok((rows.len() == 1).then_some(()))
    })?;
    let missed = "kiro_backfill_events_total{found=\"missed\",platform=\"github\"} 1";
    wait_for("the count of what was missed", 30, || {
        let metrics = http::must(server.http, "GET /metrics", &[], b"")?.body;
        Ok(metrics.contains(missed).then_some(()))
    })?;
    Ok(())
}

/// What cannot be imported says why.
fn wrong(server: &Server) -> Result<()> {
    let cases: [(&[&str], &str); 5] = [
        (&["github", "acme/nowhere"], "no access"),
        (&["github", "nowhere"], "octocat/hello-world"),
        (&["github", REPOSITORY, "--since", "yesterday"], "365d"),
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
