//! `kirolinterd up`: every role in one process. The only place that chooses implementations.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use kiro_api::{ApiConfig, ApiPorts};
use kiro_ingest::decode::Decoder;
use kiro_ingest::engine::{Engine, EngineConfig, EngineHandle, EnginePorts, EngineService};
use kiro_ingest::mapping::Mapping;
use kiro_integrations::github::GithubNormaliser;
use kiro_lake::{Lake, LakeSnapshot, local_store, s3_store};
use kiro_log::{EmbeddedLog, EmbeddedOptions, KafkaConfig, KafkaLog};
use kiro_orchestration::GateFile;
use kiro_ports::{Clock, EventLog, Snapshot, SystemClock, Tokens, Views};
use kiro_processors::{FoldConfig, Processors};
use kiro_query::{Providers, Query, QueryConfig};
use kiro_schemas::{Problem, Secret, Tenant};
use kiro_store::{Store, StoreConfig};
use object_store::ObjectStore;
use tokio::sync::Notify;
use url::Url;

use crate::config::{Config, Source};
use crate::decider::Gates;
use crate::imports::Importer;
use crate::intake::{Doors, Platform};
use crate::journal::Journal;
use crate::models::Shelf;
use crate::operations::Desk;
use crate::outbound::Dispatcher;

/// What runs, put together.
pub(crate) struct Built {
    pub(crate) api: axum::Router,
    pub(crate) engine: EngineService,
    pub(crate) handle: EngineHandle,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) query: Arc<Query>,
    pub(crate) tokens: Arc<dyn Tokens>,
    pub(crate) registry: prometheus::Registry,
}

/// Builds every role from the configuration.
pub(crate) async fn build(config: &Config) -> Result<Built> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = prometheus::Registry::new();
    create_dir(&config.data_dir)?;
    let log = open_log(config, Arc::clone(&clock)).await?;
    let (files, root) = open_store(config)?;
    let lake = Arc::new(Lake::open(Arc::clone(&files), root, Arc::clone(&clock)).await.context("cannot open the lake")?);
    let store = Store::open(StoreConfig::Sqlite(config.data_dir.join("control.sqlite"))).await.context("cannot open the control store")?;
    let decoder = Arc::new(decoder(config)?);
    let (folding, features) = Processors::new(FoldConfig { declared: config.raw.features.declared.clone(), ..FoldConfig::default() })?;
    let topics = topics(config);
    let mut engine_config = EngineConfig::new(topics.clone(), "main", config.data_dir.join("quarantine"));
    if let Some(millis) = config.raw.lake.commit_interval_ms {
        engine_config.commit_interval = Duration::from_millis(millis.max(50));
    }
    let ports = EnginePorts {
        log: Arc::clone(&log),
        sink: Arc::clone(&lake) as _,
        source: Arc::clone(&lake) as _,
        folding: Box::new(folding),
        decoder: Arc::clone(&decoder) as _,
        clock: Arc::clone(&clock),
        registry: registry.clone(),
    };
    let (engine, handle) = Engine::start(engine_config, ports).await.context("cannot start")?;
    kiro_query::register(&registry)?;
    let views: Arc<dyn Views> = Arc::new(handle.clone());
    let query = Query::new(Arc::clone(&views), providers(), Arc::clone(&clock), QueryConfig::default())?;
    let journal = Journal { log: Arc::clone(&log), topic: config.topic.clone(), clock: Arc::clone(&clock) };
    let shelf = Arc::new(Shelf {
        source: Arc::clone(&lake) as _,
        views,
        sql: Arc::clone(&query) as _,
        features,
        files,
        store: store.clone(),
        journal: journal.clone(),
        served: RwLock::new(HashMap::new()),
    });
    shelf.load(&Tenant::default()).await?;
    let wake = Arc::new(Notify::new());
    let gates = Gates {
        file: gates(config)?,
        sql: Arc::clone(&query) as _,
        assessor: Arc::clone(&shelf) as _,
        journal: journal.clone(),
        outbox: Arc::new(store.clone()),
        wake: Arc::clone(&wake),
    };
    let tokens: Arc<dyn Tokens> = Arc::new(store.clone());
    let importer = Importer::new(config.data_dir.join("imports"), journal.clone())?;
    importer.resume();
    let api_ports = ApiPorts {
        intake: Arc::new(Doors { log: Arc::clone(&log), topic: config.topic.clone(), decoder, platforms: platforms(config)? }),
        sql: Arc::clone(&query) as _,
        assessor: Arc::clone(&shelf) as _,
        decider: Arc::new(gates),
        imports: Arc::new(importer),
        operations: Arc::new(Desk {
            engine: handle.clone(),
            log,
            topics,
            sql: Arc::clone(&query) as _,
            shelf: Arc::clone(&shelf),
            outbox: Arc::new(store.clone()),
        }),
        tokens: Arc::clone(&tokens),
        audit: Arc::new(journal),
        clock: Arc::clone(&clock),
        registry: registry.clone(),
    };
    let api = kiro_api::router(api_ports, ApiConfig { loopback_open: config.loopback_open, ..ApiConfig::default() })?;
    let dispatcher = Dispatcher { outbox: Arc::new(store), deliverer: crate::outbound::deliverer(config, &clock)?, clock, wake };
    Ok(Built { api, engine, handle, dispatcher, shelf, query, tokens, registry })
}

fn create_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))
}

async fn open_log(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventLog>> {
    let log: Arc<dyn EventLog> = if let Some(brokers) = &config.raw.log.kafka {
        let mut kafka = KafkaConfig::new(brokers.as_str());
        kafka.properties = config.raw.log.kafka_properties.clone().into_iter().collect();
        Arc::new(KafkaLog::connect(kafka, clock)?)
    } else {
        let mut options = EmbeddedOptions::default();
        if let Some(days) = config.raw.log.retention_days {
            options.retention_age = Some(Duration::from_secs(u64::from(days) * 86_400));
        }
        let dir = config.data_dir.join("log");
        Arc::new(EmbeddedLog::open(&dir, options, clock).context("cannot open the embedded log")?)
    };
    // A broker that is down is tried again by the log itself; readiness tells.
    if let Err(error) = log.ensure_topic(&config.topic, config.partitions).await {
        tracing::warn!(%error, topic = config.topic, "cannot make sure that the topic is there");
    }
    Ok(log)
}

fn open_store(config: &Config) -> Result<(Arc<dyn ObjectStore>, Url)> {
    let Some(text) = &config.raw.lake.url else {
        let dir = config.data_dir.join("lake");
        create_dir(&dir)?;
        let dir = dir.canonicalize()?;
        let root = Url::from_directory_path(&dir).map_err(|()| anyhow::anyhow!("{} is no absolute path", dir.display()))?;
        return Ok((local_store(&dir)?, root));
    };
    let url = Url::parse(text).with_context(|| format!("lake.url: {text:?}"))?;
    let s3 = crate::environment::s3(&url)?;
    Ok((s3_store(&s3)?, url))
}

fn topics(config: &Config) -> Vec<String> {
    std::iter::once(config.topic.clone()).chain(config.raw.log.mapped_topics.keys().cloned()).collect()
}

fn decoder(config: &Config) -> Result<Decoder> {
    let mut mappings = Vec::new();
    for (topic, file) in &config.raw.log.mapped_topics {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        mappings.push((topic.clone(), Mapping::parse(&text).map_err(|problems| all(file, &problems))?));
    }
    Ok(Decoder::new(vec![Arc::new(GithubNormaliser)], mappings))
}

fn gates(config: &Config) -> Result<GateFile> {
    let Some(file) = &config.raw.gates_file else { return Ok(GateFile::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    GateFile::parse(&text).map_err(|problems| all(file, &problems))
}

/// Every problem of a file in one error.
pub(crate) fn all(file: &Path, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
    anyhow::anyhow!("{} has {} problem(s):\n{}", file.display(), problems.len(), lines.join("\n"))
}

fn platforms(config: &Config) -> Result<BTreeMap<String, Platform>> {
    let platform = |(name, source): (&String, &Source)| {
        let files = std::iter::once(&source.secret_file).chain(&source.previous_secret_file);
        let secrets = files.map(|file| secret(file)).collect::<Result<_>>()?;
        let tenant = source.tenant.as_deref().map_or_else(Tenant::default, Tenant::new);
        Ok((name.clone(), Platform { secrets, tenant }))
    };
    config.raw.sources.iter().map(platform).collect()
}

/// Reads a secret from its file; an empty one is refused.
pub(crate) fn secret(file: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty: a secret is needed", file.display());
    Ok(Secret::new(text.trim()))
}

/// Snapshots of the lake as providers; making one does no IO.
fn providers() -> Providers {
    Arc::new(|snapshot: &dyn Snapshot| {
        let snapshot = snapshot.as_any().downcast_ref::<LakeSnapshot>()?;
        match snapshot.provider().now_or_never() {
            Some(Ok(provider)) => Some(provider),
            Some(Err(error)) => {
                tracing::error!(%error, table = snapshot.table().name, "a snapshot cannot be read");
                None
            }
            None => futures::executor::block_on(snapshot.provider()).ok(),
        }
    })
}
