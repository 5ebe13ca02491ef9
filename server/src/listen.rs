//! Doors: opened before anything is built, so that a port in use or a bad certificate is told at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::serve::ListenerExt as _;
use kiro_ports::{Clock as _, SystemClock};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Listener;
use crate::tls::{Certificates, TlsListener};

/// How long requests may finish after a signal.
const DRAIN: Duration = Duration::from_secs(10);

/// A door that is open; nobody answers there yet.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
}

impl Door {
    /// Opens a door.
    pub(crate) async fn open(name: &'static str, listener: &Listener) -> Result<Self> {
        let load = |files| Certificates::load(name, files, SystemClock.now()).with_context(|| format!("{name}.tls"));
        let certificates = listener.tls.as_ref().map(load).transpose()?;
        let at = listener.at;
        let listener =
            TcpListener::bind(at).await.with_context(|| format!("{name}: cannot listen at {at} (another process may have it)"))?;
        Ok(Self { listener, certificates })
    }

    /// What it shows, if it speaks TLS.
    pub(crate) fn certificates(&self) -> Option<Arc<Certificates>> {
        self.certificates.clone()
    }

    /// How it speaks TLS, if it does.
    pub(crate) fn tls(&self) -> Result<Option<Arc<ServerConfig>>> {
        self.certificates.as_ref().map(Certificates::server_config).transpose()
    }

    /// Answers HTTP until cancelled; what is asked by then is answered, for a while.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) -> Result<()> {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let graceful = stop.clone().cancelled_owned();
        let server = match self.tls()? {
            None => tokio::spawn(axum::serve(self.listener, service).with_graceful_shutdown(graceful).into_future()),
            Some(tls) => {
                let listener = TlsListener::new(self.listener, tls)?.tap_io(|_stream| {});
                tokio::spawn(axum::serve(listener, service).with_graceful_shutdown(graceful).into_future())
            }
        };
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = server => Ok(ended??),
            () = late => { warn!("requests did not end in time"); Ok(()) }
        }
    }
}
