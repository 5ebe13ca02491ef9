//! Platforms beside GitHub: proven, rid of secrets, read.

mod delivered;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::http;
use crate::server::{OPEN, Server, directory};

const SECRET: &str = "the token of this test";
/// The value of a variable in GitLab's payload.
const CANARY: &[u8] = b"canary-of-a-variable";

fn payload(path: &str) -> Result<Vec<u8>> {
    std::fs::read(kiro_tests::root().join("integrations/tests").join(path)).with_context(|| path.to_owned())
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

#[test]
fn webhooks_of_other_platforms_become_rows_without_their_secrets() -> Result<()> {
    let secret = directory("platforms_secrets")?.join("secret");
    std::fs::write(&secret, SECRET)?;
    let file = format!("{{secret_file: {}}}", secret.display());
    let mut server = Server::start("platforms", &format!("{OPEN}sources: {{gitlab: {file}, alertmanager: {file}}}\n"))?;
    let pipeline = payload("gitlab/Pipeline-Hook.canceled.own.json")?;
    ensure!(pipeline.windows(CANARY.len()).any(|part| part == CANARY), "the payload has no variable");
    let gitlab = |event, token| {
        let headers =
            [("content-type", "application/json"), ("x-gitlab-event", event), ("idempotency-key", "d-1"), ("x-gitlab-token", token)];
        http::must(server.http, "POST /webhooks/gitlab", &headers, &pipeline)
    };
    let wrong = gitlab("Pipeline Hook", "another token")?;
    ensure!(wrong.status == 401 && wrong.body.contains("token") && !wrong.body.contains(SECRET), "{wrong:?}");
    // Sent again, and once as an event that nobody reads.
    for event in ["Pipeline Hook", "Pipeline Hook", "Wiki Page Hook"] {
        ensure!(gitlab(event, SECRET)?.status == 202, "{event} is not taken");
    }
    let bearer = format!("Bearer {SECRET}");
    for name in ["firing", "some-resolved", "firing"] {
        let body = payload(&format!("alertmanager/{name}.own.json"))?;
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        ensure!(http::must(server.http, "POST /webhooks/alertmanager", &headers, &body)?.status == 202, "{name} is not taken");
    }
    let unknown = http::must(server.http, "POST /webhooks/gitea", &[("content-type", "application/json")], b"{}")?;
    ensure!(unknown.status == 404, "{unknown:?}");
    server.send("nothing.ndjson", "application/x-ndjson", "")?;

    let runs = server.rows("SELECT run_id, outcome, status FROM pipeline_runs")?;
    ensure!(runs.len() == 1 && runs[0]["outcome"] == "cancel" && runs[0]["status"] == "canceled", "{runs:?}");
    let incidents = server.rows("SELECT service, severity, resolved_at IS NULL AS is_open FROM incidents ORDER BY service")?;
    ensure!(incidents.len() == 2 && incidents[0]["service"] == "checkout" && incidents[0]["is_open"] == true, "{incidents:?}");
    ensure!(incidents[1]["service"] == "node" && incidents[1]["is_open"] == false, "{incidents:?}");

    // What lies still can be looked at.
    server.stop()?;
    let mut all = Vec::new();
    files(&server.data(), &mut all)?;
    ensure!(all.len() > 3, "{all:?}");
    for path in all {
        let bytes = std::fs::read(&path)?;
        ensure!(!bytes.windows(CANARY.len()).any(|part| part == CANARY), "{} holds a secret", path.display());
    }
    Ok(())
}
