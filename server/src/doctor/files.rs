//! Files of the configuration and of the data directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kiro_ports::{Clock as _, SystemClock};

use super::{Sheet, checks};
use crate::config::{Config, Target, TlsFiles};
use crate::{base, serve, tls};

/// So little room is little on any disk.
const LOW_BYTES: u64 = 1 << 30;
const FULL_BYTES: u64 = 64 << 20;
/// So little of a disk is little on a large one.
const LOW_SHARE: u64 = 20;
/// Files that are listed by name.
const NAMED: usize = 5;

/// Whether each file can be used, not only read.
pub(super) fn configured(config: &Config, sheet: &mut Sheet) {
    let mut files = 0;
    let mut look = |place: String, result: Result<()>| {
        files += 1;
        if let Err(error) = result {
            sheet.find(&checks::CONFIG_FILE, place, format!("{error:#}"));
        }
    };
    if let Some(file) = &config.raw.gates_file {
        look(file.display().to_string(), serve::gates(config).map(drop));
    }
    if !config.raw.log.mapped_topics.is_empty() {
        look("log.mapped_topics".to_owned(), base::decoder(config).map(drop));
    }
    let secrets = config.raw.sources.iter().flat_map(|(name, source)| {
        let all = source.secret_file.iter().chain(&source.previous_secret_file).chain(&source.token_file);
        all.map(move |file| (format!("sources.{name}"), file.clone()))
    });
    let targets = config.raw.targets.iter().map(|(name, target)| match target {
        Target::Webhook { secret_file: file, .. } | Target::Github { token_file: file, .. } => (format!("targets.{name}"), file.clone()),
    });
    for (place, file) in secrets.chain(targets) {
        look(place, base::secret(&file).map(drop));
    }
    let doors: [(&str, Option<&TlsFiles>); 2] = [("http", config.http.tls.as_ref()), ("pg", config.pg.tls.as_ref())];
    for (door, files) in doors.into_iter().filter_map(|(door, files)| Some((door, files?))) {
        look(format!("{door}.tls"), tls::Certificates::load(door, files, SystemClock.now()).map(drop));
    }
    sheet.looked_at("configured files", files);
}

/// Room, and what a killed process left.
pub(super) fn data(config: &Config, sheet: &mut Sheet) -> Result<()> {
    let dir = &config.data_dir;
    let room = rustix::fs::statvfs(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let (free, all) = (room.f_bavail.saturating_mul(room.f_frsize), room.f_blocks.saturating_mul(room.f_frsize));
    let what = format!("{} MiB of {} MiB are free", free >> 20, all >> 20);
    if let Some(check) = shortage(free, all) {
        sheet.find(check, dir.display().to_string(), what);
    }
    let mut left = Vec::new();
    leftovers(dir, &mut left);
    left.sort();
    if !left.is_empty() {
        let names: Vec<String> = left.iter().take(NAMED).map(|path| path.display().to_string()).collect();
        let more = if left.len() > NAMED { format!(" and {} more", left.len() - NAMED) } else { String::new() };
        sheet.find(&checks::LEFTOVERS, dir.display().to_string(), format!("{}{more}", names.join(", ")));
    }
    Ok(())
}

/// Whether there is too little room.
pub(super) const fn shortage(free: u64, all: u64) -> Option<&'static checks::Check> {
    let low = if all / LOW_SHARE < LOW_BYTES { all / LOW_SHARE } else { LOW_BYTES };
    let full = if low / 4 < FULL_BYTES { low / 4 } else { FULL_BYTES };
    if free <= full {
        return Some(&checks::DISK_FULL);
    }
    if free < low { Some(&checks::DISK_LOW) } else { None }
}

/// Names that a file has only while it is written.
fn is_staged(name: &str) -> bool {
    let is_object = name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    let is_other = Path::new(name).extension().is_some_and(|end| end == "part" || end == "new");
    is_object || is_other
}

fn leftovers(dir: &Path, left: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Parts of imports wait there for their rest.
            if !path.ends_with("imports") {
                leftovers(&path, left);
            }
        } else if entry.file_name().to_str().is_some_and(is_staged) {
            left.push(path);
        }
    }
}

/// No lake is there: lost, where there is a log or a control store.
pub(super) fn lake_is_absent(config: &Config, place: &str, sheet: &mut Sheet) {
    let others: BTreeSet<&str> = ["log", "control.sqlite"].into_iter().filter(|name| config.data_dir.join(name).exists()).collect();
    if !others.is_empty() {
        sheet.find(&checks::LAKE_LOST, place, format!("there is no lake.json, and there is {others:?}"));
    }
}
