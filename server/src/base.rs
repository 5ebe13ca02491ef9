//! What every role stands on: log, lake, control store, time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kiro_ingest::decode::Decoder;
use kiro_ingest::engine::{EngineConfig, EnginePorts};
use kiro_ingest::mapping::Mapping;
use kiro_integrations::platforms;
use kiro_lake::{Lake, local_store, s3_store};
use kiro_log::{EmbeddedLog, EmbeddedOptions, KafkaConfig, KafkaLog, SpillLog, SpillOptions};
use kiro_ports::{Clock, EventLog, Folding, Normaliser, SystemClock};
use kiro_processors::{FoldConfig, Processors};
use kiro_schemas::{Problem, Secret};
use kiro_store::{Store, StoreConfig};
use object_store::ObjectStore;
use url::Url;
use uuid::Uuid;

use crate::config::{Config, Postgres};
use crate::formats;
use crate::journal::Journal;
use crate::lease::Leases;
use crate::telemetry::Telemetry;

/// The name of the log in the transactions of the tables.
pub(crate) const CLUSTER: &str = "main";
/// How often it is tried to make the topic while no broker answers.
const MAKE_EVERY: Duration = Duration::from_secs(1);
/// How long a start waits for the topic.
const MAKE_WAIT: Duration = Duration::from_secs(3);

/// The ground of a process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) log: Arc<dyn EventLog>,
    /// The same log, for what is posted, when that is spilled while the log is away.
    pub(crate) spill: Option<Arc<SpillLog>>,
    pub(crate) lake: Arc<Lake>,
    pub(crate) files: Arc<dyn ObjectStore>,
    pub(crate) store: Store,
    pub(crate) decoder: Arc<Decoder>,
    /// The topics of what happens now.
    pub(crate) topics: Vec<String>,
    pub(crate) leases: Leases,
    pub(crate) telemetry: Telemetry,
}

impl Base {
    /// Opens log, lake and control store.
    pub(crate) async fn open(config: Config) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let looked = formats::check(&config, &clock).await?;
        create_dir(&config.data_dir)?;
        let (log, spill) = open_log(&config, &clock)?;
        let make = |topic| ensure_topic(&log, topic, config.partitions);
        tokio::join!(make(&config.topic), make(&config.history_topic), make(&config.webhook_topic));
        let (files, root) = open_files(&config)?;
        let lake = if let Some(lake) = looked {
            lake
        } else {
            let derived = Processors::new(FoldConfig::default())?.0.outputs();
            let lake = Lake::open(Arc::clone(&files), root, Arc::clone(&clock)).await.context("cannot open the lake")?;
            lake.with_version(kiro_processors::VERSION, &derived)
        };
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
        Ok(Self {
            telemetry: Telemetry::register(&registry, spill.clone())?,
            decoder: Arc::new(decoder(&config)?),
            topics: topics(&config),
            registry,
            lake: Arc::new(lake.without_checkpoints()),
            config: Arc::new(config),
            clock,
            log,
            spill,
            files,
            store,
            leases,
        })
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal { log: Arc::clone(&self.log), topic: self.config.topic.clone(), clock: Arc::clone(&self.clock) }
    }

    /// A journal of what happened before.
    pub(crate) fn history(&self) -> Journal {
        Journal { topic: self.config.history_topic.clone(), ..self.journal() }
    }

    /// All topics that are read.
    pub(crate) fn all_topics(&self) -> Vec<String> {
        all_topics(&self.config)
    }

    /// An engine that does everything; roles switch off what others do.
    pub(crate) fn engine_config(&self) -> EngineConfig {
        let mut engine = EngineConfig::new(self.topics.clone(), CLUSTER, quarantine(&self.config));
        engine.history = vec![self.config.history_topic.clone()];
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
            persons: Arc::new(self.store.clone()),
            clock: Arc::clone(&self.clock),
            registry: registry.clone(),
        }
    }
}

fn create_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))
}

type Log = Arc<dyn EventLog>;

/// The log, and what is before it for posts.
fn open_log(config: &Config, clock: &Arc<dyn Clock>) -> Result<(Log, Option<Arc<SpillLog>>)> {
    let raw = &config.raw.log;
    let Some(brokers) = &raw.kafka else {
        let mut options = EmbeddedOptions::default();
        if !is_one_topic(config) {
            options.ages.insert(config.webhook_topic.clone(), config.webhook_age());
        }
        if let Some(days) = raw.retention_days {
            options.retention_age = Some(Duration::from_secs(u64::from(days) * 86_400));
        }
        let dir = config.data_dir.join("log");
        let log = EmbeddedLog::open(&dir, options, Arc::clone(clock)).context("cannot open the embedded log")?;
        return Ok((Arc::new(log), None));
    };
    let kafka = kafka(config, brokers);
    let larger = kafka.raw.keys().map(|topic| (topic.clone(), kafka.max_record_bytes(topic))).collect();
    let mut options = SpillOptions { max_record_bytes: kafka.max_record_bytes(&config.topic), larger, ..SpillOptions::default() };
    options.limit_bytes = raw.spill_bytes.unwrap_or(options.limit_bytes);
    let log: Log = Arc::new(KafkaLog::connect(kafka, Arc::clone(clock))?);
    let dir = raw.spill_dir.as_ref().filter(|_| config.role.serves());
    let open = |dir| SpillLog::open(dir, Arc::clone(&log), Arc::clone(clock), options);
    let spill = dir.map(|dir| open(dir).context("cannot open log.spill_dir")).transpose()?;
    Ok((log, spill.map(Arc::new)))
}

/// Brokers that are away hold up no start: what can be done without them is done.
async fn ensure_topic(log: &Log, topic: &str, partitions: i32) {
    let made = tokio::time::timeout(MAKE_WAIT, log.ensure_topic(topic, partitions)).await;
    let reason = match made {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "no broker answered yet".to_owned(),
    };
    tracing::warn!(reason, topic, "cannot make sure that the topic is there; it is tried again");
    tokio::spawn(make_topic(Arc::clone(log), topic.to_owned(), partitions));
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
    kafka.replication = config.raw.log.replication.unwrap_or(kafka.replication);
    if !is_one_topic(config) {
        kafka.raw.insert(config.webhook_topic.clone(), config.webhook_age());
    }
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

/// Whether webhooks go where events go.
fn is_one_topic(config: &Config) -> bool {
    config.webhook_topic == config.topic
}

/// The topics of what happens now.
fn topics(config: &Config) -> Vec<String> {
    let log = &config.raw.log;
    let webhooks = std::iter::once(&config.webhook_topic).filter(|_| !is_one_topic(config));
    std::iter::once(&config.topic).chain(&log.topics).chain(log.mapped_topics.keys()).chain(webhooks).cloned().collect()
}

/// All topics that are read.
pub(crate) fn all_topics(config: &Config) -> Vec<String> {
    topics(config).into_iter().chain([config.history_topic.clone()]).collect()
}

/// What makes events of records.
pub(crate) fn decoder(config: &Config) -> Result<Decoder> {
    let mut mappings = Vec::new();
    for (topic, file) in &config.raw.log.mapped_topics {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        mappings.push((topic.clone(), Mapping::parse(&text).map_err(|problems| all(file, &problems))?));
    }
    let normalisers = platforms().iter().map(|platform| Arc::new(**platform) as Arc<dyn Normaliser>);
    Ok(Decoder::new(normalisers.collect(), mappings).with_rules(config.delivery.clone()))
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
