//! Secrets of every kind, put wherever one may stand: none of them is in a log, a table, a metric or a dead letter afterwards.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::holds;
use crate::http;
use crate::server::{Answer, OPEN, Server, directory, free_port};

/// All canaries begin so; what comes after tells them apart.
const CANARY: &str = "canary0f";
/// Reads all Parquet files below a folder and prints each value that holds one of the texts of a file.
const READER: &str = "
import pathlib, sys
import pyarrow.parquet as pq
seen, wanted = 0, pathlib.Path(sys.argv[2]).read_text().split('\\n')
for path in pathlib.Path(sys.argv[1]).rglob('*.parquet'):
    table = pq.ParquetFile(path).read()
    seen += table.num_rows
    for name in table.column_names:
        for value in table.column(name).to_pylist():
            if any(text in str(value) for text in wanted):
                print(path, name, value)
print('rows', seen)
";

/// Makes canaries, and knows how many there are.
#[derive(Default)]
struct Cage(Vec<String>);

impl Cage {
    fn canary(&mut self, place: &str) -> String {
        let canary = format!("{CANARY}-{:02}-{place}", self.0.len());
        self.0.push(canary.clone());
        canary
    }
}

fn hex_hmac(secret: &str, body: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(body.as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// A payload of the tests of a platform, with a secret under each of some names: in the midst of it and beside.
fn planted(cage: &mut Cage, file: &str, names: &[&str]) -> Result<String> {
    let path = kiro_tests::root().join("integrations/tests").join(file);
    let mut payload: Value = serde_json::from_slice(&std::fs::read(&path).with_context(|| file.to_owned())?)?;
    for name in names {
        let canary = cage.canary(name);
        payload[*name] = json!([{"key": "K", "value": canary}]);
        payload["nested"][*name] = canary.into();
    }
    Ok(payload.to_string())
}

struct Files<'f> {
    folder: &'f Path,
    cage: Cage,
}

impl Files<'_> {
    /// A file with a canary in it.
    fn secret(&mut self, name: &str) -> Result<(String, String)> {
        let (canary, path) = (self.cage.canary(name), self.folder.join(name));
        std::fs::write(&path, &canary)?;
        Ok((canary, path.display().to_string()))
    }
}

/// Each platform's secret is a canary, and so is each secret field of what it sends; then something that proves nothing.
fn deliver_all(server: &Server, files: &mut Files<'_>, secrets: &[(&str, String)]) -> Result<()> {
    let secret = |platform: &str| secrets.iter().find(|(name, _)| *name == platform).map_or("", |(_, secret)| secret.as_str());
    let cage = &mut files.cage;
    let payloads = [
        (
            "github",
            "github/workflow_run.completed.json",
            &["secret", "temp_clone_token", "token", "inputs", "client_payload", "payload"][..],
        ),
        ("gitlab", "gitlab/Pipeline-Hook.canceled.own.json", &["variables", "secret_token", "token", "runners_token"]),
        ("gitea", "gitea/push.push-event.json", &["secret", "token"]),
        ("pagerduty", "pagerduty/triggered.own.json", &["conference_bridge"]),
        ("opsgenie", "opsgenie/create.own.json", &[]),
        ("alertmanager", "alertmanager/firing.own.json", &[]),
        ("devlake", "devlake/deployment.own.json", &[]),
    ];
    for (platform, file, names) in payloads {
        let body = planted(cage, file, names)?;
        let code = hex_hmac(secret(platform), &body)?;
        let proof = match platform {
            "github" => ("x-hub-signature-256", format!("sha256={code}")),
            "gitlab" => ("x-gitlab-token", secret(platform).to_owned()),
            "gitea" => ("x-gitea-signature", code),
            "pagerduty" => ("x-pagerduty-signature", format!("v1={code}")),
            _ => ("authorization", format!("Bearer {}", secret(platform))),
        };
        let event = match platform {
            "github" => "workflow_run",
            "gitlab" => "Pipeline Hook",
            _ => "push",
        };
        let (query, cookie, other) = (cage.canary("query"), cage.canary("cookie"), cage.canary("header"));
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", event),
            ("x-gitlab-event", event),
            ("x-gitea-event", event),
            ("cookie", cookie.as_str()),
            ("x-other", other.as_str()),
            (proof.0, proof.1.as_str()),
        ];
        let address = format!("POST /webhooks/{platform}?token={query}");
        let taken = http::must(server.http, &address, &headers, body.as_bytes())?;
        ensure!(taken.status == 202, "{platform}: {taken:?}");
        let wrong = cage.canary("wrong-proof");
        let headers = [("content-type", "application/json"), ("x-github-event", event), (proof.0, wrong.as_str())];
        let refused = http::must(server.http, &address, &headers, body.as_bytes())?;
        ensure!(refused.status == 401 && !refused.body.contains(CANARY), "{platform}: {refused:?}");
    }
    // What cannot be read becomes a dead letter, without its secrets.
    let broken = format!(r#"{{"workflow_run":7,"secret":"{}""#, cage.canary("broken"));
    let signature = format!("sha256={}", hex_hmac(secret("github"), &broken)?);
    let headers = [("content-type", "application/json"), ("x-github-event", "workflow_run"), ("x-hub-signature-256", signature.as_str())];
    ensure!(http::must(server.http, "POST /webhooks/github", &headers, broken.as_bytes())?.status == 202, "not taken");
    Ok(())
}

/// Secrets of people, right and wrong, at each door.
fn knock(server: &Server, cage: &mut Cage) -> Result<()> {
    let made = server.must(&["token", "create", "someone", "--role", "viewer"])?;
    let token = made["token"].as_str().context("no token")?.to_owned();
    ensure!(server.ask_as(Some(&token), &["tables"])?.code == Some(0), "a token is refused");
    cage.0.push(token);
    let wrong = cage.canary("wrong-token");
    let refused = server.ask_as(Some(&wrong), &["tables"])?;
    ensure!(refused.code == Some(2) && !refused.err.contains(CANARY), "{refused:?}");
    let basic = format!("Basic {}", cage.canary("basic"));
    http::must(server.http, "GET /api/v1/status", &[("authorization", basic.as_str())], b"")?;
    let path = format!("GET /api/v1/status?access_token={}", cage.canary("api-query"));
    http::must(server.http, &path, &[], b"")?;
    Ok(())
}

/// Programs that cannot reach what their secrets are for: what they log tells none.
fn start_in_vain(folder: &Path, cage: &mut Cage) -> Result<()> {
    let closed = free_port()?;
    let (postgres, sasl, aws) = (cage.canary("postgres"), cage.canary("sasl"), cage.canary("aws"));
    let file = folder.join("postgres.url");
    std::fs::write(&file, format!("postgres://user:{}@127.0.0.1:{closed}/db", cage.canary("postgres-file")))?;
    let sasl = format!(
        "log: {{kafka: \"127.0.0.1:{closed}\", kafka_properties: {{security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, \
         sasl.username: u, sasl.password: {sasl}}}}}\ncontrol: {{postgres_file: {}}}\n",
        file.display()
    );
    let runs = [
        ("url", String::new(), vec![("KIROLINTER_POSTGRES", format!("postgres://user:{postgres}@127.0.0.1:{closed}/db"))]),
        ("sasl", sasl, Vec::new()),
        (
            "bucket",
            "lake: {url: \"s3://bucket/lake\"}\n".to_owned(),
            vec![
                ("AWS_ACCESS_KEY_ID", "id".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", aws),
                ("AWS_REGION", "eu-1".to_owned()),
                ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{closed}")),
            ],
        ),
    ];
    for (name, config, environment) in runs {
        let config_file = folder.join(format!("{name}.yaml"));
        std::fs::write(&config_file, config)?;
        let mut command = Command::new("timeout");
        command.arg("40").arg(crate::server::program("kirolinterd")?).args(["up", "--http", "127.0.0.1:0", "--pg", "127.0.0.1:0"]);
        command.arg("--config").arg(&config_file).arg("--data-dir").arg(folder.join(name)).env("KIROLINTER_LOG", "debug");
        let answer = Answer::of(command.envs(environment).output()?)?;
        ensure!(answer.code != Some(0) && answer.err.len() > 50, "{name}: {answer:?}");
        ensure!(!answer.err.contains(CANARY) && !answer.out.contains(CANARY), "{name} tells a secret: {}", answer.err);
    }
    Ok(())
}

/// All rows of all tables that hold a text, as SQL tells them.
pub(crate) fn told_by_sql(server: &Server, text: &str) -> Result<Vec<String>> {
    let tables = server.must(&["tables"])?;
    let mut found = Vec::new();
    for name in tables["tables"].as_array().into_iter().flatten().filter_map(|table| table["name"].as_str()) {
        let rows = server.rows(&format!("SELECT * FROM {name}"))?;
        found.extend(rows.iter().filter(|row| row.to_string().contains(text)).map(|row| format!("{name}: {row}")));
    }
    Ok(found)
}

/// A server with a secret of each platform, and with targets that cannot be reached; what it logs is as much as it can.
fn started(files: &mut Files<'_>) -> Result<(Server, Vec<(&'static str, String)>)> {
    let (mut yaml, mut secrets) = (format!("{OPEN}sources:\n"), Vec::new());
    for platform in ["github", "gitlab", "gitea", "pagerduty", "opsgenie", "alertmanager", "devlake"] {
        let (secret, file) = files.secret(&format!("{platform}.secret"))?;
        let (_, previous) = files.secret(&format!("{platform}.previous"))?;
        writeln!(yaml, "  {platform}: {{secret_file: {file}, previous_secret_file: {previous}}}")?;
        secrets.push((platform, secret));
    }
    let ((_, hook), (_, token)) = (files.secret("target.secret")?, files.secret("target.token")?);
    let (closed, folder, query) = (free_port()?, files.folder.display(), files.cage.canary("target-url"));
    write!(
        yaml,
        "gates_file: {folder}/gates.yaml\nnetwork: {{allow: [\"127.0.0.1:{closed}\"]}}\ntargets:\n  \
         hook: {{kind: webhook, url: \"http://127.0.0.1:{closed}/hook?token={query}\", secret_file: {hook}}}\n  \
         run: {{kind: github, api: \"http://127.0.0.1:{closed}\", repository: o/r, workflow: ci.yml, reference: main, token_file: {token}}}\n"
    )?;
    let gates = "version: 1\ngates:\n  - name: always\n    type: pre-deploy\n    on_decision: [{target: hook, when: always}, {target: run, when: always}]\n    \
                 criteria: [{name: one, sql: \"SELECT 1 AS value\", pass: [\"= 1\"]}]\n";
    std::fs::write(files.folder.join("gates.yaml"), gates)?;
    let (mut server, mut loud) = (Server::prepare("canaries", &yaml)?, Command::new("env"));
    loud.arg("KIROLINTER_LOG=debug");
    server.spawn_by(loud)?;
    server.ready(30)?;
    Ok((server, secrets))
}

/// Sources that are added at run time; what is told of them beside their secrets.
fn add_sources(server: &Server, files: &mut Files<'_>) -> Result<[String; 2]> {
    let ((_, given), (_, api_token)) = (files.secret("given.secret")?, files.secret("api.token")?);
    for (name, more) in [("made", vec![]), ("given", vec!["--secret-file", given.as_str(), "--token-file", api_token.as_str()])] {
        let added = server.must(&[&["sources", "add", "gitea", "--name", name][..], &more].concat())?;
        files.cage.0.extend(added["secret"].as_str().map(str::to_owned));
    }
    files.cage.0.extend(server.must(&["sources", "rotate", "made"])?["secret"].as_str().map(str::to_owned));
    server.must(&["sources", "test", "given"])?;
    Ok([server.must(&["sources", "list"])?.to_string(), server.must(&["sources", "explain", "nothing"])?.to_string()])
}

#[test]
fn no_secret_is_told_anywhere() -> Result<()> {
    let folder = directory("canaries_files")?;
    let mut files = Files { folder: &folder, cage: Cage::default() };
    start_in_vain(&folder, &mut files.cage)?;
    let (mut server, secrets) = started(&mut files)?;
    deliver_all(&server, &mut files, &secrets)?;
    knock(&server, &mut files.cage)?;
    server.must(&["gate", "--gate", "always"])?;
    let [list, explained] = add_sources(&server, &mut files)?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    ensure!(!server.rows("SELECT reason FROM dead_letters")?.is_empty(), "there is no dead letter");

    let told = told_by_sql(&server, CANARY)?;
    ensure!(told.is_empty(), "{told:?}");
    let metrics = http::must(server.http, "GET /metrics", &[], b"")?.body;
    for (place, text) in [("metrics", &metrics), ("the list", &list), ("an explanation", &explained)] {
        let found: Vec<&String> = files.cage.0.iter().filter(|canary| text.contains(canary.as_str())).collect();
        ensure!(found.is_empty(), "{place} tells {found:?}");
    }
    server.stop()?;

    let log = std::fs::read_to_string(server.dir.join("server.log"))?;
    ensure!(log.len() > 5_000, "the server logs nothing");
    std::fs::rename(server.data().join("secrets"), folder.join("secrets"))?;
    for canary in &files.cage.0 {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(canary.as_str())).collect();
        ensure!(lines.is_empty(), "the log tells {canary}: {lines:?}");
        let found = holds(&server.data(), canary)?;
        ensure!(found.is_empty(), "{canary} is in {found:?}");
    }
    let python = Answer::of(Command::new(kiro_tests::root().join("scripts/python.sh")).output()?)?;
    let wanted = folder.join("canaries");
    std::fs::write(&wanted, files.cage.0.join("\n"))?;
    let read = Answer::of(Command::new(python.out.trim()).args(["-c", READER]).arg(server.data().join("lake")).arg(&wanted).output()?)?;
    ensure!(read.code == Some(0) && read.out.starts_with("rows ") && !read.out.starts_with("rows 0"), "{read:?}");
    eprintln!("{} canaries", files.cage.0.len());
    ensure!(files.cage.0.len() >= 30, "only {} canaries", files.cage.0.len());
    Ok(())
}
