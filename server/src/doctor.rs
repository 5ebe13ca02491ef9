//! `kirolinterd doctor`: looks at log, lake and control store without changing them, and compares them with each other.
//!
//! ```text
//! configuration ─► files that it names
//! data directory ─► room, leftovers        lake ─► log of each table, live files, audit chain, quarantine
//! control store ─► leases, deliveries, models        log ─► watermarks against the offsets of the tables
//! ```

mod checks;
mod control;
mod files;
mod log;
mod tables;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kiro_lake::Lake;
use kiro_ports::{Clock, Folding as _, SystemClock};
use kiro_processors::{FoldConfig, Processors};
use kiro_store::Store;
use object_store::ObjectStore;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::base;
use crate::config::Config;
use checks::{Check, Severity};

/// What the output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// One finding.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    severity: Severity,
    check: &'static str,
    /// A path, a partition, a table, a target.
    place: String,
    what: String,
    means: &'static str,
    #[serde(rename = "do")]
    action: &'static str,
}

/// What was found, and what was looked at.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) findings: Vec<Finding>,
    looked_at: Map<String, Value>,
}

impl Sheet {
    pub(crate) fn find(&mut self, check: &'static Check, place: impl Into<String>, what: impl Into<String>) {
        let (severity, means, action) = (check.severity, check.means, check.action);
        self.findings.push(Finding { severity, check: check.id, place: place.into(), what: what.into(), means, action });
    }

    /// Counts what was looked at.
    pub(crate) fn looked_at(&mut self, what: &str, count: usize) {
        self.looked_at.insert(what.to_owned(), json!(count));
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether somebody has to do something.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

/// What there is to look at.
pub(crate) struct Patient {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Option<Store>,
    pub(crate) lake: Option<Lake>,
    pub(crate) files: Option<Arc<dyn ObjectStore>>,
}

/// Looks at everything; reads every file of the lake when it is `deep`.
pub(crate) async fn examine(config: Config, is_deep: bool, sheet: &mut Sheet) -> Result<()> {
    anyhow::ensure!(config.data_dir.is_dir(), "there is no data directory {}", config.data_dir.display());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    files::configured(&config, sheet);
    files::data(&config, sheet)?;
    let store = control::open(&config, sheet).await?;
    let (objects, lake) = open_lake(&config, &clock, sheet).await?;
    let patient = Patient { config, clock, store, lake, files: objects };
    let stands = tables::examine(&patient, is_deep, sheet).await;
    let is_stopped = log::examine(&patient, &stands, sheet).await;
    control::examine(&patient, is_stopped, sheet).await;
    Ok(())
}

/// The lake, if there is one that this program can use.
async fn open_lake(config: &Config, clock: &Arc<dyn Clock>, sheet: &mut Sheet) -> Result<(Option<Arc<dyn ObjectStore>>, Option<Lake>)> {
    let dir = config.data_dir.join("lake");
    if config.raw.lake.url.is_none() && !dir.is_dir() {
        files::lake_is_absent(config, &dir.display().to_string(), sheet);
        return Ok((None, None));
    }
    let (objects, root) = base::open_files(config)?;
    let place = root.to_string();
    let derived = Processors::new(FoldConfig::default())?.0.outputs();
    match Lake::look(Arc::clone(&objects), root, Arc::clone(clock)).await {
        Ok(Some(lake)) => Ok((Some(objects), Some(lake.with_version(kiro_processors::VERSION, &derived)))),
        Ok(None) => {
            files::lake_is_absent(config, &place, sheet);
            Ok((None, None))
        }
        Err(error) => {
            let check = match &error {
                kiro_lake::Error::Newer { .. } => &checks::LAKE_NEWER,
                kiro_lake::Error::Store { .. } => &checks::LAKE_UNREACHABLE,
                _ => &checks::LAKE_DAMAGED,
            };
            sheet.find(check, place, error.to_string());
            Ok((None, None))
        }
    }
}

/// Reads the configuration; files that it names and that cannot be read are findings, and the rest is looked at without them.
pub(crate) fn read(place: &Path, read: impl Fn(bool) -> Result<Config, Vec<kiro_schemas::Problem>>, sheet: &mut Sheet) -> Result<Config> {
    let problems = match read(true) {
        Ok(config) => return Ok(config),
        Err(problems) => problems,
    };
    for problem in &problems {
        sheet.find(&checks::CONFIG_FILE, place.display().to_string(), problem.to_string());
    }
    read(false).map_err(|problems| base::all(place, &problems)).context("without a configuration it is not known what to look at")
}

/// Prints what was found.
pub(crate) fn print(sheet: &Sheet, format: Format) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut findings: Vec<&Finding> = sheet.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(|severity| sheet.count(severity));
    if format == Format::Json {
        let document = json!({
            "errors": counts[0], "warnings": counts[1], "notes": counts[2],
            "findings": findings, "looked_at": sheet.looked_at,
        });
        return writeln!(out, "{document:#}");
    }
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        writeln!(out, "{severity}: {} at {}", finding.check, finding.place)?;
        writeln!(out, "  what   {}\n  means  {}\n  do     {}", finding.what, finding.means, finding.action)?;
    }
    let looked_at: Vec<String> = sheet.looked_at.iter().map(|(what, count)| format!("{what} {count}")).collect();
    writeln!(out, "looked at: {}", looked_at.join(", "))?;
    writeln!(out, "{} errors, {} warnings, {} notes", counts[0], counts[1], counts[2])
}
