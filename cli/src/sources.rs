//! `kirolinter sources`: who may send webhooks.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};

use crate::args::Format;
use crate::http::{Server, part};
use crate::print;

/// A larger payload is none that people look at.
const MOST_PAYLOAD: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum SourcesCommand {
    /// Add a source: prints the address and the secret that its webhooks need; the secret is shown once.
    Add {
        /// The platform: github, gitlab, gitea, pagerduty, opsgenie, alertmanager or devlake.
        platform: String,
        /// Its name, the last part of its address; the platform's when absent.
        #[arg(long)]
        name: Option<String>,
        /// A file on the server that holds a token for the platform's API, as an absolute path.
        #[arg(long, value_name = "PATH")]
        token_file: Option<String>,
        /// A file on the server that holds the secret of the webhooks, as an absolute path; one is made when absent.
        #[arg(long, value_name = "PATH")]
        secret_file: Option<String>,
        /// The platform's API, when it is a server of your own, such as `https://github.example/api/v3`.
        #[arg(long, value_name = "URL")]
        api: Option<String>,
        /// Whose its events are; yours when absent.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// List the sources: when each sent last, what was refused, what has to be looked after.
    List,
    /// Try a source: its secrets, its token, what the token may do. No row is added. Exits with 1 when something does not hold.
    Test {
        /// Its name.
        name: String,
    },
    /// Give a source a new secret; the one before stays live until the next rotation.
    Rotate {
        /// Its name.
        name: String,
    },
    /// Remove a source: its webhooks are refused from then on.
    Remove {
        /// Its name.
        name: String,
    },
    /// Read the webhooks of a platform again as they came, after an upgrade reads more of them; what was read before adds no row.
    Replay {
        /// The platform.
        platform: String,
        /// From when on: `2d`, `12h`, `30m` ago, or a time (RFC 3339). They are kept 14 days unless the server is told otherwise.
        #[arg(long)]
        since: String,
    },
    /// Say which rule makes an event a deployment, a hotfix, a rollback or an incident, and why not.
    Explain {
        /// A file (`-` is standard input) that holds a webhook's payload, with --platform, or an event; else the id of an event, run, change, deployment or incident.
        event: String,
        /// The platform of the payload.
        #[arg(long)]
        platform: Option<String>,
        /// What the platform calls the payload's event, such as `workflow_run` or `Pipeline Hook`.
        #[arg(long, requires = "platform")]
        kind: Option<String>,
    },
}

/// Runs a command; the exit code.
pub(crate) async fn run(server: &Server, format: Format, command: SourcesCommand) -> Result<u8> {
    match command {
        SourcesCommand::Add { platform, name, token_file, secret_file, api, tenant } => {
            let body = json!({
                "platform": platform, "name": name, "token_file": token_file, "secret_file": secret_file, "api": api, "tenant": tenant,
            });
            show_added(server, format, &server.post("/api/v1/sources", &body).await?)?;
        }
        SourcesCommand::List => list(format, &server.get("/api/v1/sources").await?)?,
        SourcesCommand::Test { name } => return test(format, &server.post(&of(&name, "/test"), &json!({})).await?),
        SourcesCommand::Rotate { name } => show_added(server, format, &server.post(&of(&name, "/rotate"), &json!({})).await?)?,
        SourcesCommand::Remove { name } => {
            server.send(server.request(Method::DELETE, &of(&name, ""))).await.with_context(|| format!("cannot remove {name:?}"))?;
            say(format, &json!({ "removed": name }), "removed: its webhooks are refused from now on")?;
        }
        SourcesCommand::Replay { platform, since } => replay(server, format, &platform, &since).await?,
        SourcesCommand::Explain { event, platform, kind } => explain(server, format, &event, platform, kind).await?,
    }
    Ok(0)
}

/// The path of a source.
fn of(name: &str, rest: &str) -> String {
    format!("/api/v1/sources/{}{rest}", part(name))
}

fn say(format: Format, answer: &Value, text: &str) -> Result<()> {
    if format == Format::Text { print::line(text) } else { print::json(answer) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn show_added(server: &Server, format: Format, answer: &Value) -> Result<()> {
    let source = &answer["source"];
    let address = server.address(text(&source["path"]));
    if format != Format::Text {
        let mut answer = answer.clone();
        answer["address"] = address.into();
        return print::json(&answer);
    }
    let (name, platform, tenant) = (text(&source["name"]), text(&source["platform"]), text(&source["tenant"]));
    print::line(&format!("source   {name} ({platform}), tenant {tenant}"))?;
    print::line(&format!("address  {address}"))?;
    match answer["secret"].as_str() {
        Some(secret) => print::line(&format!("secret   {secret}  (shown this once)"))?,
        None => print::line("secret   what the file holds")?,
    }
    print::line(&format!("The platform posts JSON there; then: kirolinter sources test {name}"))
}

fn list(format: Format, answer: &Value) -> Result<()> {
    if format != Format::Text {
        return print::json(answer);
    }
    let sources = answer["sources"].as_array().cloned().unwrap_or_default();
    if sources.is_empty() {
        return print::line("There are no sources yet: kirolinter sources add github");
    }
    let keys =
        ["name", "platform", "tenant", "configured_in", "last_delivery_at", "last_event", "deliveries", "known", "refused", "lag_records"];
    let rows: Vec<Vec<Value>> = sources.iter().map(|source| keys.iter().map(|key| source[*key].clone()).collect()).collect();
    print::table(&keys.map(str::to_owned), &rows)?;
    for source in &sources {
        for problem in source["problems"].as_array().into_iter().flatten() {
            print::line(&print::clean(&format!("{}: {}", text(&source["name"]), text(problem))))?;
        }
    }
    Ok(())
}

fn test(format: Format, answer: &Value) -> Result<u8> {
    let is_ok = answer["is_ok"].as_bool().context("the server does not tell how it went")?;
    if format == Format::Text {
        let word = |check: &Value| if check["is_ok"] == true { "ok" } else { "FAILED" }.into();
        let checks = answer["checks"].as_array().into_iter().flatten();
        let rows: Vec<Vec<Value>> = checks.map(|check| vec![check["check"].clone(), word(check), check["detail"].clone()]).collect();
        print::table(&["check", "result", "detail"].map(str::to_owned), &rows)?;
    } else {
        print::json(answer)?;
    }
    Ok(u8::from(!is_ok))
}

async fn replay(server: &Server, format: Format, platform: &str, since: &str) -> Result<()> {
    let is_shown = format == Format::Text && std::io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(None, if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} records {eta:>4} left  {msg}")?);
    let mut sums = [0_u64; 4];
    let mut cursor = Value::Null;
    loop {
        let body = json!({"platform": platform, "since": since, "cursor": cursor});
        let mut answer = server.post("/api/v1/sources/replay", &body).await?;
        for (sum, key) in sums.iter_mut().zip(["read", "deliveries", "events", "unreadable"]) {
            *sum += answer[key].as_u64().unwrap_or(0);
        }
        bar.set_length(sums[0] + answer["left"].as_u64().unwrap_or(0));
        bar.set_position(sums[0]);
        bar.set_message(format!("{} events", sums[2]));
        cursor = answer["cursor"].take();
        if cursor.is_null() {
            break;
        }
    }
    bar.finish_and_clear();
    let [read, deliveries, events, unreadable] = sums;
    let answer = json!({"read": read, "deliveries": deliveries, "events": events, "unreadable": unreadable});
    let rest = if unreadable > 0 { format!("; {unreadable} cannot be read: see `kirolinter dead-letters list`") } else { String::new() };
    say(
        format,
        &answer,
        &format!("{deliveries} webhooks of {platform} were read again: {events} events, of which those that were known add no row{rest}"),
    )
}

/// A file, standard input, or neither.
fn payload(event: &str) -> Result<Option<String>> {
    let mut text = String::new();
    if event == "-" {
        std::io::stdin().take(MOST_PAYLOAD).read_to_string(&mut text)?;
        return Ok(Some(text));
    }
    let path = PathBuf::from(event);
    if !Path::is_file(&path) {
        return Ok(None);
    }
    let file = std::fs::File::open(&path).with_context(|| format!("cannot read {event}"))?;
    file.take(MOST_PAYLOAD).read_to_string(&mut text).with_context(|| format!("cannot read {event}"))?;
    Ok(Some(text))
}

async fn explain(server: &Server, format: Format, event: &str, platform: Option<String>, kind: Option<String>) -> Result<()> {
    let payload = payload(event)?;
    anyhow::ensure!(payload.is_some() || platform.is_none(), "there is no file {event:?}, and --platform is for a payload");
    let id = payload.is_none().then_some(event);
    let body = json!({"event": id, "platform": platform, "kind": kind, "payload": payload});
    let answer = server.post("/api/v1/sources/explain", &body).await?;
    if format != Format::Text {
        return print::json(&answer);
    }
    for event in answer["events"].as_array().into_iter().flatten() {
        let transition = event["transition"].as_str().map(|word| format!(" {word}")).unwrap_or_default();
        let head = format!("{}{transition} {} of {}", text(&event["subject"]), text(&event["subject_id"]), text(&event["source"]));
        print::line(&print::clean(&head))?;
        for reason in event["reasons"].as_array().into_iter().flatten() {
            let line = format!("  {:<12} {:<12} {}", text(&reason["question"]), text(&reason["answer"]), text(&reason["because"]));
            print::line(&print::clean(&line))?;
        }
    }
    match answer["note"].as_str() {
        Some(note) => print::line(note),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(of("shop-1", "/test"), "/api/v1/sources/shop-1/test");
        assert_eq!(of("../tokens", ""), "/api/v1/sources/%2E%2E%2Ftokens");
    }
}
