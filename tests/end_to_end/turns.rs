//! Many imports from a platform that asks to be left alone: those of another go on.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::forge::{Fault, Forge, TOKEN};
use crate::server::{OPEN, Server, directory, wait_for};
use crate::{github_world, gitlab_world, http};

/// More than go at a time.
const REPOSITORIES: usize = 12;
/// As many as go at a time.
const TOGETHER: usize = 4;

fn import(server: &Server, platform: &str, repository: &str) -> Result<String> {
    let begin = json!({"platform": platform, "repository": repository, "since": "365d"}).to_string();
    let headers = [("content-type", "application/json")];
    let job = http::must(server.http, "POST /api/v1/imports/platforms", &headers, begin.as_bytes())?.json()?;
    Ok(job["id"].as_str().with_context(|| format!("{job}"))?.to_owned())
}

fn show(server: &Server, id: &str) -> Result<Value> {
    http::must(server.http, &format!("GET /api/v1/imports/platforms/{id}"), &[], b"")?.json()
}

#[test]
fn a_platform_that_is_away_holds_up_no_other() -> Result<()> {
    let runtime = Runtime::new()?;
    let github = Forge::new(github_world::DESCRIPTION, github_world::world(3));
    github.fail((0..1_000).map(|at| (at, Fault::RetryAfter(429, 3_600))));
    let gitlab = Forge::new(gitlab_world::DESCRIPTION, gitlab_world::world(6));
    let (github_at, gitlab_at) = (runtime.block_on(github.open()), runtime.block_on(gitlab.open()));
    let secrets = directory("turns_secrets")?;
    std::fs::write(secrets.join("token"), TOKEN)?;
    let token = secrets.join("token");
    let source = |name: &str, at: &str| format!("  {name}: {{token_file: {}, api_url: \"http://{at}\"}}\n", token.display());
    let config = format!(
        "{OPEN}network: {{allow: [\"{github_at}\", \"{gitlab_at}\"]}}\nsources:\n{}{}",
        source("github", &github_at.to_string()),
        source("gitlab", &format!("{gitlab_at}")),
    );
    let mut server = Server::start("turns", &config)?;
    let jobs = (0..REPOSITORIES).map(|at| import(&server, "github", &format!("acme/shop-{at}"))).collect::<Result<Vec<_>>>()?;
    wait_for("the platform to ask for a wait", 30, || {
        let waits = jobs.iter().map(|id| Ok(show(&server, id)?["waiting_for"] == "the platform asked to wait"));
        Ok(waits.collect::<Result<Vec<_>>>()?.contains(&true).then_some(()))
    })?;
    let other = import(&server, "gitlab", gitlab_world::PROJECT)?;
    let done = wait_for("the import from the other platform", 60, || Ok(Some(show(&server, &other)?).filter(|s| s["state"] != "running")))?;
    ensure!(done["state"] == "done" && done["events"] != 0, "{done}");
    ensure!(gitlab.problems().is_empty(), "{:?}", gitlab.problems());
    let asked = github.seen().len();
    ensure!((1..=TOGETHER).contains(&asked), "a platform that asks to be left alone was asked {asked} times");
    server.stop()
}
