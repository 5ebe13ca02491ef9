//! The control store: whose leases ran out, what is not sent, which models are gone.

use anyhow::Result;
use kiro_schemas::Micros;
use kiro_store::{Error, Store, StoreConfig};
use object_store::ObjectStoreExt as _;

use super::{Patient, Sheet, checks};
use crate::config::Config;
use crate::{base, models};

/// What is due for so long is not sent by anybody, in microseconds.
const OVERDUE: i64 = 10 * 60 * 1_000_000;

/// Opens it only to look.
pub(super) async fn open(config: &Config, sheet: &mut Sheet) -> Result<Option<Store>> {
    let at = base::store(config)?;
    let place = match &at {
        StoreConfig::Sqlite(path) => path.display().to_string(),
        StoreConfig::Postgres(_) => "PostgreSQL".to_owned(),
    };
    match Store::look(at).await {
        Ok(Some(store)) => return Ok(Some(store)),
        Ok(None) if config.data_dir.join("lake/lake.json").exists() => sheet.find(&checks::CONTROL_ABSENT, place, "the file is not there"),
        Ok(None) => {}
        Err(error) => {
            let check = match &error {
                Error::Newer { .. } => &checks::CONTROL_NEWER,
                Error::Older { .. } => &checks::CONTROL_OLDER,
                _ => &checks::CONTROL_UNREADABLE,
            };
            sheet.find(check, place, error.to_string());
        }
    }
    Ok(None)
}

/// Looks at what it holds.
pub(super) async fn examine(patient: &Patient, is_stopped: bool, sheet: &mut Sheet) {
    let Some(store) = &patient.store else { return };
    if let Err(error) = look(patient, store, is_stopped, sheet).await {
        sheet.find(&checks::CONTROL_UNREADABLE, "control store", error.to_string());
    }
}

async fn look(patient: &Patient, store: &Store, is_stopped: bool, sheet: &mut Sheet) -> Result<(), Error> {
    let now = patient.clock.now();
    let leases = store.leases().await?;
    sheet.looked_at("leases", leases.len());
    let is_alone = patient.config.postgres.is_none();
    for lease in leases.into_iter().filter(|lease| lease.until > Micros(0)) {
        let what = format!("{} has it until {}", lease.holder, lease.until);
        if is_alone && is_stopped {
            sheet.find(&checks::LEASE_LEFT, lease.name, what);
        } else if lease.until < now {
            sheet.find(&checks::LEASE_DEAD, lease.name, what);
        }
    }
    for stuck in store.stuck_deliveries(now.plus(-OVERDUE)).await? {
        let check = if stuck.state == "dead" { &checks::DELIVERIES_DEAD } else { &checks::DELIVERIES_STUCK };
        sheet.find(check, stuck.target, format!("{} are {}, last for this reason: {:?}", stuck.count, stuck.state, stuck.reason));
    }
    let Some(files) = &patient.files else { return Ok(()) };
    for (key, version) in store.settings(models::SETTING).await? {
        let path = models::path(&version);
        if let Err(error) = files.head(&path).await {
            sheet.find(&checks::MODEL_MISSING, key, error.to_string());
        }
    }
    Ok(())
}
