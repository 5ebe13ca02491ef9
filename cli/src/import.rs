//! `kirolinter import`: uploads a file in pieces and watches the server's job. Interrupted, it resumes.

use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::args::Format;
use crate::http::Server;
use crate::print;

const PIECE: usize = 4 << 20;

pub(crate) async fn run(server: &Server, format: Format, file: &Path, mapping: &Path, kind: Option<String>) -> Result<()> {
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
        source.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        let request = server.request(Method::PUT, &format!("/api/v1/imports/{id}/bytes?offset={offset}")).body(piece);
        status = server.send(request).await?.json().await?;
        bar.set_message("uploading");
    }
    while status["state"] == "running" {
        show(&bar, &status);
        tokio::time::sleep(Duration::from_millis(200)).await;
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
