//! What a newer program wrote is refused before anything is opened, so that it stays as it is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use kiro_lake::Lake;
use kiro_ports::{Clock, Folding as _};
use kiro_processors::{FoldConfig, Processors};
use kiro_store::Store;
use serde::Deserialize;

use crate::config::Config;
use crate::{backfill, base, imports};

const WAY_OUT: &str = concat!(
    "nothing was opened and nothing was changed by this program, version ",
    env!("CARGO_PKG_VERSION"),
    ": start the program that wrote it, or a newer one; to go back to this one, put the back-up of before the upgrade in place"
);

fn refused(error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}; {WAY_OUT}")
}

/// Looks at the version of everything that is stored. The lake that was looked at, if there is one and nothing is wrong with it:
/// what was read of it is not read again.
pub(crate) async fn check(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Lake>> {
    logs(config)?;
    jobs(config, "imports", imports::FORMAT)?;
    jobs(config, "backfills", backfill::FORMAT)?;
    let lake = lake(config, clock).await?;
    match Store::look(base::store(config)?).await {
        Err(error @ kiro_store::Error::Newer { .. }) => Err(refused(&error)),
        // An older one is brought up to date; what else is wrong with it shows when it is opened.
        _ => Ok(lake),
    }
}

fn logs(config: &Config) -> Result<()> {
    let own = config.data_dir.join("log");
    let own = Some(&own).filter(|_| config.raw.log.kafka.is_none());
    let check = |folder: &Path| match kiro_log::check_format(folder) {
        Err(error @ kiro_log::Error::Format { .. }) => Err(refused(&error)),
        _ => Ok(()),
    };
    own.into_iter().chain(&config.raw.log.spill_dir).try_for_each(|folder| check(folder))
}

/// The files of jobs; one that cannot be read at all is told of by who reads it.
fn jobs(config: &Config, folder: &str, known: u32) -> Result<()> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(default)]
        format: u32,
    }
    let entries = std::fs::read_dir(config.data_dir.join(folder)).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")) {
        let told = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Told>(&bytes).ok());
        if let Some(Told { format }) = told.filter(|told| told.format > known) {
            return Err(refused(&format_args!("the import {} has format {format}, this program knows {known}", path.display())));
        }
    }
    Ok(())
}

async fn lake(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Lake>> {
    if config.raw.lake.url.is_none() && !config.data_dir.join("lake").is_dir() {
        return Ok(None);
    }
    let (files, root) = base::open_files(config)?;
    let is_newer = |error: &kiro_lake::Error| {
        matches!(error, kiro_lake::Error::Newer { .. } | kiro_lake::Error::Protocol { .. } | kiro_lake::Error::Schema { .. })
    };
    let derived = Processors::new(FoldConfig::default())?.0.outputs();
    let looked = async {
        let Some(lake) = Lake::look(files, root, Arc::clone(clock)).await? else { return Ok(None) };
        let lake = lake.with_version(kiro_processors::VERSION, &derived);
        lake.check_tables().await?;
        Ok(Some(lake))
    };
    match looked.await {
        Err(error) if is_newer(&error) => Err(refused(&error)),
        // What else is wrong with it shows when it is opened.
        looked => Ok(looked.unwrap_or_default()),
    }
}
