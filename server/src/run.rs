//! Runs what was built, and stops it in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::serve::ListenerExt as _;
use kiro_ports::{Principal, Role, SystemClock, Tokens};
use kiro_query::Query;
use kiro_query::psql::{self, PsqlServer};
use kiro_schemas::Tenant;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, Listener};
use crate::models::Shelf;
use crate::{tls, up};

/// How long requests may finish after a signal.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections of the psql door at a time.
const PSQL_CONNECTIONS: usize = 200;
/// How often the model is trained anew.
const TRAIN_EVERY: Duration = Duration::from_hours(1);

/// Runs every role until a signal; a second signal ends it at once.
pub(crate) async fn up(config: Config) -> Result<()> {
    // Doors are opened before anything is built, so that a port in use or a bad certificate is told at once.
    let http = bind("http", &config.http).await?;
    let pg = bind("pg", &config.pg).await?;
    let http_tls = config.http.tls.as_ref().map(tls::load).transpose()?;
    let pg_tls = config.pg.tls.as_ref().map(tls::load).transpose()?;
    let built = up::build(&config).await?;
    let (doors, engine_stop, rest_stop) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let mut engine = tokio::spawn(built.engine.run(engine_stop.clone()));
    let dispatcher = tokio::spawn(built.dispatcher.run(rest_stop.clone()));
    let trainer = tokio::spawn(train(Arc::clone(&built.shelf), built.handle.clone(), rest_stop.clone()));
    info!(http = %http.local_addr()?, pg = %pg.local_addr()?, data_dir = %config.data_dir.display(), "up");
    let psql = tokio::spawn(psql::serve(pg, psql_server(&config, built.query, built.tokens, pg_tls), doors.clone()));
    let service = built.api.into_make_service_with_connect_info::<SocketAddr>();
    let stop = doors.clone().cancelled_owned();
    let server = match http_tls {
        None => tokio::spawn(axum::serve(http, service).with_graceful_shutdown(stop).into_future()),
        Some(tls) => {
            let listener = tls::TlsListener::new(http, tls)?.tap_io(|_stream| {});
            tokio::spawn(axum::serve(listener, service).with_graceful_shutdown(stop).into_future())
        }
    };
    let ended = tokio::select! {
        signal = signal() => { info!(signal = signal?, "stopping; a second signal ends at once"); None }
        ended = &mut engine => Some(ended),
    };
    tokio::spawn(async {
        if signal().await.is_ok() {
            std::process::abort();
        }
    });
    doors.cancel();
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        warn!("requests did not end in time");
    }
    drop(psql.await);
    engine_stop.cancel();
    let result = match ended {
        Some(ended) => ended,
        None => engine.await,
    };
    rest_stop.cancel();
    drop(tokio::join!(dispatcher, trainer));
    result.context("the engine broke")?.context("the engine stopped")?;
    info!("stopped");
    Ok(())
}

/// The psql door; loopback comes in without a password where HTTP lets it in, too.
fn psql_server(config: &Config, query: Arc<Query>, tokens: Arc<dyn Tokens>, tls: Option<Arc<rustls::ServerConfig>>) -> PsqlServer {
    let loopback = || Principal { name: "loopback".to_owned(), tenant: Tenant::default(), role: Role::Admin };
    let open = config.loopback_open.then(loopback);
    PsqlServer { query, tokens, clock: Arc::new(SystemClock), tls, open, max_connections: PSQL_CONNECTIONS }
}

async fn bind(name: &str, listener: &Listener) -> Result<TcpListener> {
    TcpListener::bind(listener.at).await.with_context(|| format!("{name}: cannot listen at {} (another process may have it)", listener.at))
}

async fn signal() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => { result?; Ok("interrupt") }
        _ = terminate.recv() => Ok("terminate"),
    }
}

/// Trains when there is no model yet, then every hour.
async fn train(shelf: Arc<Shelf>, engine: kiro_ingest::engine::EngineHandle, stop: CancellationToken) {
    let tenant = Tenant::default();
    let mut wait = Duration::from_secs(5);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let is_due = engine.status().is_ready && (!shelf.has(&tenant) || wait == TRAIN_EVERY);
        if is_due {
            if let Err(error) = shelf.train(&tenant).await {
                warn!(%error, "training failed; the model before goes on serving");
            }
            wait = TRAIN_EVERY;
        }
    }
}
