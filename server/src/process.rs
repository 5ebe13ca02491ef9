//! The owners of the folds: whoever has the lease of a shard folds it, commits what it derives, and nobody else does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use kiro_ingest::engine::{Engine, EngineConfig, EngineError, EngineHandle, FoldPart};
use kiro_ports::{Features, Folding as _, TableSource as _};
use kiro_processors::{FoldConfig, Processors, Shard};
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::base::{self, Base};
use crate::lease::Held;
use crate::probe::Vital;
use crate::telemetry::merged;

#[cfg(test)]
mod tests;

/// The folds of a shard, and read access to their features.
pub(crate) fn folds(base: &Base, shard: Shard) -> Result<(Processors, Arc<dyn Features>)> {
    let (declared, delivery) = (base.config.raw.features.declared.clone(), base.config.delivery.clone());
    Ok(Processors::new(FoldConfig { declared, shard, delivery, ..FoldConfig::default() })?)
}

/// The names of the leases of all shards.
pub(crate) fn lease_names(shards: u32) -> Vec<String> {
    (0..shards).map(|shard| format!("fold/v{}/{shard}of{shards}", kiro_processors::VERSION)).collect()
}

/// Counts the leases on to the epochs that the tables have seen.
pub(crate) async fn raise_epochs(base: &Base, shards: u32) -> Result<()> {
    let tables = Processors::new(FoldConfig::default())?.0.outputs();
    for (shard, name) in lease_names(shards).iter().enumerate() {
        let (app, mut seen) = (part(shard, shards, 0).epoch_app(base::CLUSTER), 0);
        for table in &tables {
            let snapshot = base.lake.snapshot(table).await?;
            seen = snapshot.and_then(|s| s.offsets().get(&app).copied()).map_or(seen, |epoch| seen.max(epoch));
        }
        if seen > 0 {
            base.store.raise_epoch(name, seen).await?;
        }
    }
    Ok(())
}

/// The part of the folds that a lease names.
pub(crate) fn part(shard: usize, shards: u32, epoch: i64) -> FoldPart {
    FoldPart { version: kiro_processors::VERSION, shard: u32::try_from(shard).unwrap_or(0), shards, epoch }
}

/// Health of pipelines beside the metrics of the shard; without it the folds are as good.
fn register(folding: &Processors, registry: &Registry) {
    if let Err(error) = folding.register(registry) {
        warn!(%error, "the health of pipelines is not exported");
    }
}

/// A shard that is ours.
#[derive(Debug)]
struct Owned {
    epoch: i64,
    handle: EngineHandle,
    registry: Registry,
}

/// Takes shards, as many as it may have.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    base: Base,
    owned: Arc<RwLock<BTreeMap<usize, Owned>>>,
}

impl Owner {
    pub(crate) fn new(base: &Base) -> Self {
        Self { base: base.clone(), owned: Arc::default() }
    }

    /// Folds what it can get until it is told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<()> {
        raise_epochs(&self.base, self.base.config.shards).await?;
        let mut turns = JoinSet::new();
        for _ in 0..self.base.config.most_owned {
            let (owner, stop) = (self.clone(), stop.clone());
            turns.spawn(async move { owner.own(&stop).await });
        }
        while let Some(ended) = turns.join_next().await {
            ended.context("an owner of folds broke")??;
        }
        Ok(())
    }

    /// Owns one shard after the other.
    async fn own(&self, stop: &CancellationToken) -> Result<()> {
        let names = lease_names(self.base.config.shards);
        while let Some((shard, held)) = self.base.leases.hold(&names, stop).await {
            let own = Shard { index: u32::try_from(shard)?, count: self.base.config.shards };
            let (folding, _) = folds(&self.base, own)?;
            let outcome = self.fold(shard, &held, folding).await;
            self.owned.write().unwrap_or_else(PoisonError::into_inner).remove(&shard);
            held.release().await;
            match outcome {
                Err(EngineError::Fenced { table, epoch }) => warn!(shard, table, epoch, "fenced; the shard is left to its owner"),
                outcome => outcome.context("the folds stopped")?,
            }
            if stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    async fn fold(&self, shard: usize, held: &Held, folding: Processors) -> Result<(), EngineError> {
        let base = &self.base;
        let fold = part(shard, base.config.shards, held.lease.epoch);
        let config = EngineConfig { commits_events: false, fold, ..base.engine_config() };
        let labels = HashMap::from([("shard".to_owned(), shard.to_string())]);
        let registry = Registry::new_custom(None, Some(labels)).unwrap_or_default();
        register(&folding, &registry);
        let (engine, handle) = Engine::start(config, base.engine_ports(Box::new(folding), &registry)).await?;
        info!(shard, epoch = held.lease.epoch, "owner of the shard");
        let owned = Owned { epoch: held.lease.epoch, handle, registry };
        self.owned.write().unwrap_or_else(PoisonError::into_inner).insert(shard, owned);
        engine.run(held.over.clone()).await
    }
}

impl Vital for Owner {
    fn state(&self) -> Result<String, String> {
        let owned = self.owned.read().unwrap_or_else(PoisonError::into_inner);
        let catching_up: Vec<_> = owned.iter().filter(|(_, o)| !o.handle.status().is_ready).map(|(shard, _)| shard).collect();
        if !catching_up.is_empty() {
            return Err(format!("catching up with the log for shards {catching_up:?}"));
        }
        let shards: Vec<_> = owned.iter().map(|(shard, o)| format!("shard {shard} in epoch {}", o.epoch)).collect();
        Ok(if shards.is_empty() { "waiting for a shard".to_owned() } else { format!("owner of {}", shards.join(", ")) })
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let owned = self.owned.read().unwrap_or_else(PoisonError::into_inner);
        merged(self.base.registry.gather().into_iter().chain(owned.values().flat_map(|o| o.registry.gather())))
    }
}
