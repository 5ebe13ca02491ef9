//! Puts together what a role needs, runs it, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kiro_ingest::engine::{Engine, EngineConfig, EngineHandle};
use kiro_ports::{Derived, Folding, Missing, PortError, Views};
use kiro_processors::Shard;
use kiro_schemas::Micros;
use kiro_tables::Table;
use prometheus::proto::MetricFamily;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::base::Base;
use crate::config::Config;
use crate::lease::Leases;
use crate::listen::Door;
use crate::maintain::Keeper;
use crate::outbound::{Dispatcher, deliverer};
use crate::probe::{self, Vital};
use crate::process::{self, Owner};
use crate::role::Role;
use crate::serve::{self, Entrance, Reception};
use crate::stages::Stages;
use crate::tls;
use crate::train::Trainer;

/// How long a stop waits for the control store.
const CLOSE: Duration = Duration::from_secs(5);
/// The consumer group that shares the partitions among the processes of `ingest`.
const GROUP: &str = "kirolinter-ingest";

/// Runs a role until a signal; a second signal ends it at once.
pub(crate) async fn run(config: Config) -> Result<()> {
    let role = config.role;
    let entrance = if role.serves() { Some(Entrance::open(&config).await?) } else { None };
    let probe = match &config.probe {
        Some(listener) => Some(Door::open("http", listener).await?),
        None => None,
    };
    let certificates: Vec<_> =
        entrance.iter().flat_map(Entrance::certificates).chain(probe.iter().filter_map(Door::certificates)).collect();
    let base = Base::open(config).await?;
    let mut stages = Stages::default();
    let addresses = entrance.as_ref().map(Entrance::addresses).transpose()?;
    let vital = match (role, entrance) {
        (Role::Up, Some(entrance)) => up(&base, entrance, &mut stages).await?,
        (Role::Serve, Some(entrance)) => serve(&base, entrance, &mut stages).await?,
        (Role::Ingest, _) => ingest(&base, &mut stages).await?,
        (Role::Process, _) => process(&base, &mut stages).await?,
        (Role::Orchestrate, _) => {
            add_dispatcher(&base, Arc::default(), &mut stages)?;
            Arc::new(Steady(base.clone()))
        }
        (Role::Maintain | Role::Up | Role::Serve, _) => {
            add_maintenance(&base, &mut stages);
            Arc::new(Steady(base.clone()))
        }
    };
    if !certificates.is_empty() {
        let (clock, telemetry) = (Arc::clone(&base.clock), base.telemetry.clone());
        stages.add("certificates", |stop| tls::keep(certificates, clock, telemetry, stop));
    }
    if let Some(door) = probe {
        // The last to end: it tells how the others end.
        stages.add("probe", |stop| door.serve(probe::router(vital), stop));
    }
    info!(%role, addresses, data_dir = %base.config.data_dir.display(), "up");
    let ended = stages.run().await;
    // Nobody asks it any more: what SQLite keeps beside its file goes into it.
    if tokio::time::timeout(CLOSE, base.store.close()).await.is_err() {
        warn!("the control store was not closed in time");
    }
    ended
}

/// Everything in one process.
async fn up(base: &Base, entrance: Entrance, stages: &mut Stages) -> Result<Arc<dyn Vital>> {
    let stop = CancellationToken::new();
    process::raise_epochs(base, 1).await?;
    let names = process::lease_names(1);
    let (_, held) = base.leases.hold(&names, &stop).await.context("no lease")?;
    let config = EngineConfig { fold: process::part(0, 1, held.lease.epoch), ..base.engine_config() };
    let (folding, features) = process::folds(base, Shard::default())?;
    folding.register(&base.registry)?;
    let (engine, handle) = Engine::start(config, base.engine_ports(Box::new(folding), &base.registry)).await.context("cannot start")?;
    kiro_query::register(&base.registry)?;
    let shelf = serve::shelf(base, Arc::new(handle.clone()), features).await?;
    let wake = Arc::<Notify>::default();
    let reception = Reception::new(base, &handle, &shelf, Arc::clone(&wake)).await?;
    stages.add("doors", |stop| entrance.serve(reception, stop));
    stages.add("engine", |end| async move {
        let told = end.clone();
        let pass_on = AbortOnDropHandle::new(tokio::spawn(async move {
            told.cancelled().await;
            stop.cancel();
        }));
        let result = engine.run(held.over.clone()).await;
        drop(pass_on);
        held.release().await;
        result?;
        anyhow::ensure!(end.is_cancelled(), "another process has taken the lease of the folds");
        Ok(())
    });
    add_trainer(base, Trainer { shelf, lake: Arc::clone(&base.lake) }, stages);
    add_dispatcher(base, wake, stages)?;
    add_maintenance(base, stages);
    Ok(Arc::new(Reading(base.clone(), handle)))
}

/// Doors over folds that are never committed.
async fn serve(base: &Base, entrance: Entrance, stages: &mut Stages) -> Result<Arc<dyn Vital>> {
    let fold = process::part(0, base.config.shards, 0);
    let config = EngineConfig { commits_events: false, commits_derived: false, fold, ..base.engine_config() };
    let (folding, features) = process::folds(base, Shard::default())?;
    folding.register(&base.registry)?;
    let (engine, handle) = Engine::start(config, base.engine_ports(Box::new(folding), &base.registry)).await.context("cannot start")?;
    kiro_query::register(&base.registry)?;
    let shelf = serve::shelf(base, Arc::new(handle.clone()), features).await?;
    let reception = Reception::new(base, &handle, &shelf, Arc::default()).await?;
    stages.add("doors", |stop| entrance.serve(reception, stop));
    stages.add("engine", |stop| async move { Ok(engine.run(stop).await?) });
    stages.add("models", |stop| serve::follow_models(shelf, stop));
    Ok(Arc::new(Reading(base.clone(), handle)))
}

/// Log to lake.
async fn ingest(base: &Base, stages: &mut Stages) -> Result<Arc<dyn Vital>> {
    let config = EngineConfig { group: Some(GROUP.to_owned()), commits_derived: false, ..base.engine_config() };
    let (engine, handle) = Engine::start(config, base.engine_ports(Box::new(NoFolds), &base.registry)).await.context("cannot start")?;
    stages.add("engine", |stop| async move { Ok(engine.run(stop).await?) });
    Ok(Arc::new(Reading(base.clone(), handle)))
}

/// Folds and training.
async fn process(base: &Base, stages: &mut Stages) -> Result<Arc<dyn Vital>> {
    let owner = Owner::new(base);
    // Training reads files; no features are asked for, and no view is needed.
    let (_, features) = process::folds(base, Shard::default())?;
    let shelf = serve::shelf(base, Arc::new(NoView), features).await?;
    let folding = owner.clone();
    stages.add("folds", |stop| folding.run(stop));
    add_trainer(base, Trainer { shelf, lake: Arc::clone(&base.lake) }, stages);
    Ok(Arc::new(owner))
}

fn add_trainer(base: &Base, trainer: Trainer, stages: &mut Stages) {
    add_leased(&base.leases, "train", stages, move |over| trainer.clone().run(over));
}

fn add_dispatcher(base: &Base, wake: Arc<Notify>, stages: &mut Stages) -> Result<()> {
    let outbox = Arc::new(base.store.clone());
    let deliverer = deliverer(&base.config, &base.clock)?;
    let telemetry = base.telemetry.clone();
    let dispatcher = Arc::new(Dispatcher { outbox, deliverer, clock: Arc::clone(&base.clock), telemetry, wake });
    add_leased(&base.leases, "orchestrate", stages, move |over| Arc::clone(&dispatcher).run(over));
    Ok(())
}

fn add_maintenance(base: &Base, stages: &mut Stages) {
    let (lake, clock) = (Arc::clone(&base.lake), Arc::clone(&base.clock));
    let (telemetry, by) = (base.telemetry.clone(), base.leases.holder.clone());
    let keeper = Keeper { lake, plan: base.config.upkeep, clock, telemetry, by };
    add_leased(&base.leases, "maintain", stages, move |over| keeper.clone().run(over));
}

/// Adds what one process at a time does.
fn add_leased<F>(leases: &Leases, name: &'static str, stages: &mut Stages, work: impl Fn(CancellationToken) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let leases = leases.clone();
    stages.add(name, |stop| async move {
        leases.whenever_held(name, &stop, work).await;
        Ok(())
    });
}

/// A role that is ready as soon as it runs.
struct Steady(Base);

impl Vital for Steady {
    fn state(&self) -> Result<String, String> {
        Ok("ready".to_owned())
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        self.0.registry.gather()
    }
}

/// A role that reads the log.
struct Reading(Base, EngineHandle);

impl Vital for Reading {
    fn state(&self) -> Result<String, String> {
        if self.1.status().is_ready { Ok("ready".to_owned()) } else { Err("catching up with the log".to_owned()) }
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        self.0.registry.gather()
    }
}

/// No view: what is asked of it is in the files.
#[derive(Debug)]
struct NoView;

impl Views for NoView {
    fn view(&self) -> Arc<kiro_ports::View> {
        Arc::default()
    }
}

/// Derives nothing.
#[derive(Debug)]
pub(crate) struct NoFolds;

impl Folding for NoFolds {
    fn outputs(&self) -> Vec<&'static Table> {
        Vec::new()
    }

    fn restore(&mut self, _table: &'static Table, _rows: &arrow::array::RecordBatch) -> Result<(), PortError> {
        Ok(())
    }

    fn apply(&mut self, _table: &'static Table, _events: &arrow::array::RecordBatch) -> Result<(), PortError> {
        Ok(())
    }

    fn missing(&mut self) -> Vec<Missing> {
        Vec::new()
    }

    fn supply(&mut self, _table: &'static Table, _events: &arrow::array::RecordBatch) -> Result<(), PortError> {
        Ok(())
    }

    fn emit(&mut self, _recorded_at: Micros) -> Result<Vec<Derived>, PortError> {
        Ok(Vec::new())
    }

    fn open(&mut self) -> Result<Vec<Derived>, PortError> {
        Ok(Vec::new())
    }
}
