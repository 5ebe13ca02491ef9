//! The doors: HTTP, webhooks, psql and gates, over the view of an engine.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use kiro_api::{ApiConfig, ApiPorts};
use kiro_ingest::engine::EngineHandle;
use kiro_lake::LakeSnapshot;
use kiro_orchestration::GateFile;
use kiro_ports::{Assessor, Features, Operations, Principal, Role, Tokens, Views};
use kiro_query::psql::{self, PsqlServer};
use kiro_query::{Query, QueryConfig};
use kiro_schemas::Tenant;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backfill::Backfiller;
use crate::base::{Base, all, quarantine};
use crate::config::Config;
use crate::decider::Gates;
use crate::held::Held;
use crate::imports::Importer;
use crate::intake::{Doors, RecordIds};
use crate::listen::Door;
use crate::models::Shelf;
use crate::operations::Desk;
use crate::outbound;
use crate::replay::Replayer;
use crate::reports::Reporter;
use crate::sources::{Book, Raw, Seen, SourceDesk};
use crate::telemetry::Watched;
use crate::tls::Certificates;

/// Connections of the psql door at a time.
const PSQL_CONNECTIONS: usize = 200;
/// Time for a question to a platform when a source is tried.
const TRY: Duration = Duration::from_secs(10);
/// How often it is asked for models that another process trained.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The doors of a process, open and not yet answering.
#[derive(Debug)]
pub(crate) struct Entrance {
    http: Door,
    pg: Door,
}

impl Entrance {
    /// Opens both doors.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        Ok(Self { http: Door::open("http", &config.http).await?, pg: Door::open("pg", &config.pg).await? })
    }

    /// Where they are.
    pub(crate) fn addresses(&self) -> Result<String> {
        Ok(format!("http {}, pg {}", self.http.listener.local_addr()?, self.pg.listener.local_addr()?))
    }

    /// What the doors that speak TLS show.
    pub(crate) fn certificates(&self) -> Vec<Arc<Certificates>> {
        [&self.http, &self.pg].into_iter().filter_map(Door::certificates).collect()
    }

    /// Answers until cancelled; looks meanwhile after deliveries whose decision was not recorded, and for what webhooks missed.
    pub(crate) async fn serve(self, desk: Reception, stop: CancellationToken) -> Result<()> {
        let tls = self.pg.tls()?;
        let psql = tokio::spawn(psql::serve(self.pg.listener, desk.psql(tls), stop.clone()));
        let held = tokio::spawn(desk.held.run(stop.clone()));
        let sources = tokio::spawn(desk.sources.run(stop.clone()));
        let reconciling = tokio::spawn(desk.backfiller.reconcile(stop.clone()));
        let result = self.http.serve(desk.api, stop.clone()).await;
        stop.cancel();
        drop(tokio::join!(psql, held, sources, reconciling));
        result
    }
}

/// Who answers at the doors.
pub(crate) struct Reception {
    api: Router,
    query: Arc<Query>,
    tokens: Arc<dyn Tokens>,
    held: Held,
    sources: Book,
    backfiller: Backfiller,
    base: Base,
}

impl Reception {
    /// Puts together what answers, over the view of an engine and the models of a shelf.
    pub(crate) async fn new(base: &Base, engine: &EngineHandle, shelf: &Arc<Shelf>, wake: Arc<Notify>) -> Result<Self> {
        let config = &base.config;
        let (query, journal) = (Arc::clone(&shelf.query), base.journal());
        let file = gates(config)?;
        base.telemetry.gates(file.gates.iter().map(|gate| gate.name.as_str()));
        let assessor: Arc<dyn Assessor> = Arc::new(Watched::new(Arc::clone(shelf), &base.telemetry, &base.clock));
        let gates = Gates {
            file,
            sql: Arc::clone(&query) as _,
            assessor: Arc::clone(&assessor),
            journal: journal.clone(),
            outbox: Arc::new(base.store.clone()),
            wake: Arc::clone(&wake),
        };
        let tokens: Arc<dyn Tokens> = Arc::new(base.store.clone());
        let importer = Importer::new(config.data_dir.join("imports"), base.history())?;
        importer.resume();
        let backfiller = Backfiller::new(base, Arc::clone(&query) as _, engine.clone())?;
        backfiller.resume();
        let operations: Arc<dyn Operations> = Arc::new(Desk {
            engine: engine.clone(),
            log: Arc::clone(&base.log),
            spill: base.spill.clone(),
            topics: base.all_topics(),
            replayer: replayer(base, engine, &query),
            shelf: Arc::clone(shelf),
            outbox: Arc::new(base.store.clone()),
            lake: Arc::clone(&base.lake),
            anchors: Arc::new(base.store.clone()),
            clock: Arc::clone(&base.clock),
        });
        let held = Held {
            outbox: Arc::new(base.store.clone()),
            sql: Arc::clone(&query) as _,
            operations: Arc::clone(&operations),
            clock: Arc::clone(&base.clock),
            wake,
        };
        let sources = Book::open(base).await?;
        let doors = Arc::new(doors(base, &sources));
        let ports = ApiPorts {
            reports: Arc::new(Reporter { doors: Arc::clone(&doors), clock: Arc::clone(&base.clock) }),
            intake: doors,
            sql: Arc::clone(&query) as _,
            assessor,
            decider: Arc::new(Watched::new(Arc::new(gates), &base.telemetry, &base.clock)),
            imports: Arc::new(importer),
            sources: Arc::new(source_desk(base, engine, &query, &sources)?),
            backfills: Arc::new(backfiller.clone()),
            operations,
            tokens: Arc::clone(&tokens),
            persons: Arc::new(base.store.clone()),
            audit: Arc::new(journal),
            clock: Arc::clone(&base.clock),
            registry: base.registry.clone(),
        };
        let limits = config.raw.limits.quotas();
        let api = kiro_api::router(ports, ApiConfig { loopback_open: config.loopback_open, limits, ..ApiConfig::default() })?;
        Ok(Self { api, query, tokens, held, sources, backfiller, base: base.clone() })
    }

    /// The psql door; loopback comes in without a password where HTTP lets it in, too.
    fn psql(&self, tls: Option<Arc<rustls::ServerConfig>>) -> PsqlServer {
        let loopback = || Principal { name: "loopback".to_owned(), tenant: Tenant::default(), role: Role::Admin };
        PsqlServer {
            query: Arc::clone(&self.query),
            tokens: Arc::clone(&self.tokens),
            audit: Arc::new(self.base.journal()),
            clock: Arc::clone(&self.base.clock),
            tls,
            open: self.base.config.loopback_open.then(loopback),
            max_connections: PSQL_CONNECTIONS,
        }
    }
}

/// Who takes what is posted: it is spilled while the log is away; what is decided is refused then.
fn doors(base: &Base, sources: &Book) -> Doors {
    Doors {
        log: base.spill.clone().map_or_else(|| Arc::clone(&base.log), |spill| spill as _),
        topic: base.config.topic.clone(),
        webhook_topic: base.config.webhook_topic.clone(),
        decoder: Arc::clone(&base.decoder),
        sources: sources.clone(),
        seen: Seen::default(),
        ids: RecordIds::new(&base.clock),
        telemetry: base.telemetry.clone(),
    }
}

/// Who appends dead letters again.
fn replayer(base: &Base, engine: &EngineHandle, query: &Arc<Query>) -> Replayer {
    Replayer {
        log: Arc::clone(&base.log),
        sql: Arc::clone(query) as _,
        engine: engine.clone(),
        journal: base.journal(),
        clock: Arc::clone(&base.clock),
        quarantine: quarantine(&base.config),
    }
}

/// Who manages sources.
fn source_desk(base: &Base, engine: &EngineHandle, query: &Arc<Query>, sources: &Book) -> Result<SourceDesk> {
    Ok(SourceDesk {
        book: sources.clone(),
        engine: engine.clone(),
        sql: Arc::clone(query) as _,
        client: outbound::client(&base.config, TRY)?,
        raw: Raw {
            log: Arc::clone(&base.log),
            topic: base.config.webhook_topic.clone(),
            history: base.history(),
            decoder: Arc::clone(&base.decoder),
            clock: Arc::clone(&base.clock),
            sql: Arc::clone(query) as _,
            persons: Arc::new(base.store.clone()),
        },
    })
}

/// The shelf of models over a view; it has the models that were served last.
pub(crate) async fn shelf(base: &Base, views: Arc<dyn Views>, features: Arc<dyn Features>) -> Result<Arc<Shelf>> {
    let query = Query::new(Arc::clone(&views), Arc::new(LakeSnapshot::open), Arc::clone(&base.clock), QueryConfig::default())?;
    let shelf = Shelf {
        source: Arc::clone(&base.lake) as _,
        views,
        query,
        features,
        files: Arc::clone(&base.files),
        store: base.store.clone(),
        journal: base.journal(),
        telemetry: base.telemetry.clone(),
        served: RwLock::new(HashMap::new()),
    };
    shelf.refresh().await?;
    Ok(Arc::new(shelf))
}

/// Serves the models that other processes train.
pub(crate) async fn follow_models(shelf: Arc<Shelf>, stop: CancellationToken) -> Result<()> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = shelf.refresh().await {
            warn!(%error, "it cannot be seen whether there are new models");
        }
    }
}

/// The gates of the configured file.
pub(crate) fn gates(config: &Config) -> Result<GateFile> {
    let Some(file) = &config.raw.gates_file else { return Ok(GateFile::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    GateFile::parse(&text).map_err(|problems| all(file, &problems))
}
