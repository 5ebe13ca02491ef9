//! `kirolinter import`: uploads a file in pieces, or has the server read the past of a repository, and watches the server's job.
//! Interrupted, it resumes.

use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::args::{Format, ImportArgs, ImportCommand};
use crate::http::Server;
use crate::print;

const PIECE: usize = 4 << 20;

/// Between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The bar's length for what has no bytes.
const PARTS: u64 = 1_000;
/// What shells call a command that was interrupted.
const INTERRUPTED: u8 = 130;

/// Imports; the exit code.
pub(crate) async fn run(server: &Server, format: Format, args: ImportArgs) -> Result<u8> {
    match (args.platform, args.file, args.mapping) {
        (Some(ImportCommand::Github(of)), ..) => {
            platform(server, format, &json!({"platform": "github", "repository": of.repository, "since": of.since})).await
        }
        (Some(ImportCommand::Gitlab(of)), ..) => {
            platform(server, format, &json!({"platform": "gitlab", "repository": of.repository, "since": of.since})).await
        }
        (None, Some(file), Some(mapping)) => self::file(server, format, &file, &mapping, args.kind).await.map(|()| 0),
        (None, ..) => bail!("a file and its --mapping are needed, or a platform and a repository"),
    }
}

/// Has the past of a repository read. Interrupted, the job goes on at the server.
async fn platform(server: &Server, format: Format, asked: &Value) -> Result<u8> {
    let mut status = server.post("/api/v1/imports/platforms", asked).await?;
    let path = format!("/api/v1/imports/platforms/{}", status["id"].as_str().context("the server gave no import id")?);
    let [platform, repository, since] = ["platform", "repository", "since"].map(|name| asked[name].as_str().unwrap_or(""));
    let name = format!("{platform} {repository}");
    let bar = bar(PARTS, format)?;
    bar.set_style(ProgressStyle::with_template("{bar:30} {percent:>3} % {eta:>4} left  {msg}")?);
    // One for all looks: it is remembered while the server is asked.
    let mut pressed = std::pin::pin!(tokio::signal::ctrl_c());
    while status["state"] == "running" {
        show_course(&bar, &status);
        tokio::select! {
            result = &mut pressed => {
                result?;
                bar.finish_and_clear();
                let again = format!("kirolinter import {name} --since {since}");
                drop(writeln!(std::io::stderr(), "kirolinter: the import of {name} goes on at the server; look at it again: {again}"));
                return Ok(INTERRUPTED);
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        status = server.get(&path).await?;
    }
    bar.finish_and_clear();
    for note in status["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        drop(writeln!(std::io::stderr(), "kirolinter: not read: {note}"));
    }
    if status["state"] == "failed" {
        bail!(
            "{name}: {}; what was read is in the log, and the same command goes on from there",
            status["error"].as_str().unwrap_or("failed")
        );
    }
    if format == Format::Text {
        let line = format!(
            "{name}: {} events are in the log, of {} answers ({} as before)",
            status["events"], status["requests"], status["unchanged"]
        );
        print::line(&line)?;
    } else {
        print::json(&status)?;
    }
    Ok(0)
}

/// How far the job is, what it does or waits for, and what is left.
fn show_course(bar: &ProgressBar, status: &Value) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    bar.set_position((status["progress"].as_f64().unwrap_or(0.0).clamp(0.0, 1.0) * PARTS as f64) as u64);
    let remaining =
        status["remaining"].as_u64().map_or_else(String::new, |left| format!(", {left} requests left in the platform's window"));
    let doing = match (status["waiting_until"].as_str(), status["waiting_for"].as_str()) {
        (Some(until), Some(why)) => format!("waits until {until}: {why}"),
        _ => status["at"].as_str().unwrap_or("").to_owned(),
    };
    bar.set_message(format!("{doing}: {} events, {} questions wait{remaining}", status["events"], status["waiting"]));
}

async fn file(server: &Server, format: Format, file: &Path, mapping: &Path, kind: Option<String>) -> Result<()> {
    let mapping = std::fs::read_to_string(mapping).with_context(|| format!("cannot read {}", mapping.display()))?;
    let mut source = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let kind = kind.unwrap_or_else(|| kind_of(file));
    let (size, digest) = digest(&mut source)?;
    let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let begin = json!({"name": name, "mapping": mapping, "format": kind, "size_bytes": size, "sha256": digest});
    let mut status = server.post("/api/v1/imports", &begin).await?;
    let id = status["id"].as_str().context("the server gave no import id")?.to_owned();
    let bar = bar(size, format)?;
    while status["state"] == "receiving" {
        let offset = status["received_bytes"].as_u64().unwrap_or(0);
        source.seek(SeekFrom::Start(offset))?;
        let mut piece = Vec::new();
        std::io::Read::by_ref(&mut source).take(PIECE as u64).read_to_end(&mut piece)?;
        let request = server.request(Method::PUT, &format!("/api/v1/imports/{id}/bytes?offset={offset}")).body(piece);
        status = server.send(request).await?.json().await?;
        bar.set_message("uploading");
    }
    while status["state"] == "running" {
        show(&bar, &status);
        tokio::time::sleep(LOOK_EVERY).await;
        status = server.get(&format!("/api/v1/imports/{id}")).await?;
    }
    show(&bar, &status);
    bar.finish_and_clear();
    if status["state"] == "failed" {
        bail!("{}: {}", file.display(), status["error"].as_str().unwrap_or("failed"));
    }
    if format == Format::Text {
        return print::line(&format!("{}: {} rows, {} events are in the log", file.display(), status["rows"], status["events"]));
    }
    print::json(&status)
}

fn show(bar: &ProgressBar, status: &Value) {
    bar.set_position(status["read_bytes"].as_u64().unwrap_or(0));
    bar.set_message(format!("{} rows, {} events", status["rows"], status["events"]));
}

/// A bar that counts; nothing where nobody sees it.
pub(crate) fn counter(format: Format) -> Result<ProgressBar> {
    let bar = bar(0, format)?;
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos} of {len} {eta:>4} left")?);
    Ok(bar)
}

/// A bar with rate and time left on a terminal; nothing elsewhere.
pub(crate) fn bar(size: u64, format: Format) -> Result<ProgressBar> {
    let is_shown = format == Format::Text && std::io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(Some(size), if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
    bar.set_style(ProgressStyle::with_template("{bar:30} {percent:>3} % {bytes_per_sec:>14} {eta:>4} left  {msg}")?);
    Ok(bar)
}

fn kind_of(file: &Path) -> String {
    let is_json = file.extension().is_some_and(|e| ["json", "ndjson", "jsonl"].iter().any(|j| e.eq_ignore_ascii_case(j)));
    if is_json { "json" } else { "csv" }.to_owned()
}

fn digest(file: &mut std::fs::File) -> Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}
