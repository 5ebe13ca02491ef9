//! What a newer program wrote is refused before anything is opened, so that it stays as it is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use kiro_lake::Lake;
use kiro_ports::{Clock, Folding as _};
use kiro_processors::{FoldConfig, Processors};
use kiro_store::Store;
use serde::Deserialize;

use crate::base;
use crate::config::Config;
use crate::imports::FORMAT;

const WAY_OUT: &str = concat!(
    "nothing was opened and nothing was changed by this program, version ",
    env!("CARGO_PKG_VERSION"),
    ": start the program that wrote it, or a newer one; to go back to this one, put the back-up of before the upgrade in place"
);

fn refused(error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}; {WAY_OUT}")
}

/// Looks at the version of everything that is stored.
pub(crate) async fn check(config: &Config, clock: &Arc<dyn Clock>) -> Result<()> {
    logs(config)?;
    imports(config)?;
    lake(config, clock).await?;
    match Store::look(base::store(config)?).await {
        Err(error @ kiro_store::Error::Newer { .. }) => Err(refused(&error)),
        // An older one is brought up to date; what else is wrong with it shows when it is opened.
        _ => Ok(()),
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

/// The files of jobs; one that cannot be read at all is told of by the importer.
fn imports(config: &Config) -> Result<()> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(default)]
        format: u32,
    }
    let entries = std::fs::read_dir(config.data_dir.join("imports")).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")) {
        let told = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Told>(&bytes).ok());
        if let Some(Told { format }) = told.filter(|told| told.format > FORMAT) {
            return Err(refused(&format_args!("the import {} has format {format}, this program knows {FORMAT}", path.display())));
        }
    }
    Ok(())
}

async fn lake(config: &Config, clock: &Arc<dyn Clock>) -> Result<()> {
    if config.raw.lake.url.is_none() && !config.data_dir.join("lake").is_dir() {
        return Ok(());
    }
    let (files, root) = base::open_files(config)?;
    let is_newer = |error: &kiro_lake::Error| {
        matches!(error, kiro_lake::Error::Newer { .. } | kiro_lake::Error::Protocol { .. } | kiro_lake::Error::Schema { .. })
    };
    let derived = Processors::new(FoldConfig::default())?.0.outputs();
    let looked = match Lake::look(files, root, Arc::clone(clock)).await {
        Ok(Some(lake)) => lake.with_version(kiro_processors::VERSION, &derived).check_tables().await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match looked {
        Err(error) if is_newer(&error) => Err(refused(&error)),
        _ => Ok(()),
    }
}
