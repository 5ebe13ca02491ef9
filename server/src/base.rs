//! What every role stands on: log, lake, control store, time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kiro_ingest::decode::Decoder;
use kiro_ingest::engine::{EngineConfig, EnginePorts};
use kiro_ingest::mapping::Mapping;
use kiro_integrations::github::GithubNormaliser;
use kiro_lake::{Lake, local_store, s3_store};
use kiro_log::{EmbeddedLog, EmbeddedOptions, KafkaConfig, KafkaLog};
use kiro_ports::{Clock, EventLog, Folding, SystemClock};
use kiro_processors::{FoldConfig, Processors};
use kiro_schemas::{Problem, Secret};
use kiro_store::{Store, StoreConfig};
use object_store::ObjectStore;
use url::Url;
use uuid::Uuid;

use crate::config::{Config, Postgres};
use crate::journal::Journal;
use crate::lease::Leases;
use crate::telemetry::Telemetry;

/// The name of the log in the transactions of the tables.
pub(crate) const CLUSTER: &str = "main";
/// How often it is tried to make the topic while no broker answers.
const MAKE_EVERY: Duration = Duration::from_secs(1);

/// The ground of a process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) lake: Arc<Lake>,
    pub(crate) files: Arc<dyn ObjectStore>,
    pub(crate) store: Store,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) topics: Vec<String>,
    pub(crate) leases: Leases,
    pub(crate) telemetry: Telemetry,
}

impl Base {
    /// Opens log, lake and control store.
    pub(crate) async fn open(config: Config) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        create_dir(&config.data_dir)?;
        let log = open_log(&config, Arc::clone(&clock)).await?;
        let (files, root) = open_files(&config)?;
        let lake = Lake::open(Arc::clone(&files), root, Arc::clone(&clock)).await.context("cannot open the lake")?;
        let store = Store::open(store(&config)?).await.context("cannot open the control store")?;
        if config.postgres.is_none() {
            // This is the only process on the data directory: what another has claimed is due.
            store.take_over_deliveries(clock.now()).await?;
        }
        let leases = Leases {
            store: store.clone(),
            clock: Arc::clone(&clock),
            holder: format!("{}/{}/{}", config.role, std::process::id(), Uuid::now_v7().simple()),
            span: config.lease,
            is_alone: config.postgres.is_none(),
        };
        let registry = prometheus::Registry::new();
        let derived = Processors::new(FoldConfig::default())?.0.outputs();
        Ok(Self {
            telemetry: Telemetry::register(&registry)?,
            decoder: Arc::new(decoder(&config)?),
            topics: topics(&config),
            registry,
            lake: Arc::new(lake.without_checkpoints().with_version(kiro_processors::VERSION, &derived)),
            config: Arc::new(config),
            clock,
            log,
            files,
            store,
            leases,
        })
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal { log: Arc::clone(&self.log), topic: self.config.topic.clone(), clock: Arc::clone(&self.clock) }
    }

    /// An engine that does everything; roles switch off what others do.
    pub(crate) fn engine_config(&self) -> EngineConfig {
        let mut engine = EngineConfig::new(self.topics.clone(), CLUSTER, quarantine(&self.config));
        if let Some(millis) = self.config.raw.lake.commit_interval_ms {
            engine.commit_interval = Duration::from_millis(millis.max(50));
        }
        engine
    }

    pub(crate) fn engine_ports(&self, folding: Box<dyn Folding>, registry: &prometheus::Registry) -> EnginePorts {
        EnginePorts {
            log: Arc::clone(&self.log),
            sink: Arc::clone(&self.lake) as _,
            source: Arc::clone(&self.lake) as _,
            folding,
            decoder: Arc::clone(&self.decoder) as _,
            anchors: Arc::new(self.store.clone()),
            clock: Arc::clone(&self.clock),
            registry: registry.clone(),
        }
    }
}

fn create_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))
}

async fn open_log(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventLog>> {
    let log: Arc<dyn EventLog> = if let Some(brokers) = &config.raw.log.kafka {
        Arc::new(KafkaLog::connect(kafka(config, brokers), clock)?)
    } else {
        let mut options = EmbeddedOptions::default();
        if let Some(days) = config.raw.log.retention_days {
            options.retention_age = Some(Duration::from_secs(u64::from(days) * 86_400));
        }
        let dir = config.data_dir.join("log");
        Arc::new(EmbeddedLog::open(&dir, options, clock).context("cannot open the embedded log")?)
    };
    if let Err(error) = log.ensure_topic(&config.topic, config.partitions).await {
        tracing::warn!(%error, topic = config.topic, "cannot make sure that the topic is there; it is tried again");
        tokio::spawn(make_topic(Arc::clone(&log), config.topic.clone(), config.partitions));
    }
    Ok(log)
}

/// Tries until the brokers are there; until then readiness tells.
async fn make_topic(log: Arc<dyn EventLog>, topic: String, partitions: i32) {
    loop {
        tokio::time::sleep(MAKE_EVERY).await;
        if log.ensure_topic(&topic, partitions).await.is_ok() {
            tracing::info!(topic, "the topic is there");
            return;
        }
    }
}

/// How the brokers are spoken to.
pub(crate) fn kafka(config: &Config, brokers: &str) -> KafkaConfig {
    let mut kafka = KafkaConfig::new(brokers);
    kafka.properties = config.raw.log.kafka_properties.clone().into_iter().collect();
    kafka
}

/// Where the control store is.
pub(crate) fn store(config: &Config) -> Result<StoreConfig> {
    Ok(match &config.postgres {
        Some(Postgres::Url(url)) => StoreConfig::Postgres(url.clone()),
        Some(Postgres::File(file)) => StoreConfig::Postgres(secret(file)?),
        None => StoreConfig::Sqlite(config.data_dir.join("control.sqlite")),
    })
}

/// Where the bytes of dead letters lie.
pub(crate) fn quarantine(config: &Config) -> PathBuf {
    config.data_dir.join("quarantine")
}

/// The object store of the lake, and its address.
pub(crate) fn open_files(config: &Config) -> Result<(Arc<dyn ObjectStore>, Url)> {
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

/// The topics that are read.
pub(crate) fn topics(config: &Config) -> Vec<String> {
    let log = &config.raw.log;
    std::iter::once(&config.topic).chain(&log.topics).chain(log.mapped_topics.keys()).cloned().collect()
}

/// What makes events of records.
pub(crate) fn decoder(config: &Config) -> Result<Decoder> {
    let mut mappings = Vec::new();
    for (topic, file) in &config.raw.log.mapped_topics {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        mappings.push((topic.clone(), Mapping::parse(&text).map_err(|problems| all(file, &problems))?));
    }
    Ok(Decoder::new(vec![Arc::new(GithubNormaliser)], mappings))
}

/// Every problem of a file in one error.
pub(crate) fn all(file: &Path, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
    anyhow::anyhow!("{} has {} problem(s):\n{}", file.display(), problems.len(), lines.join("\n"))
}

/// Reads a secret from its file; an empty one is refused.
pub(crate) fn secret(file: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty: a secret is needed", file.display());
    Ok(Secret::new(text.trim()))
}
