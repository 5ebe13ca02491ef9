//! TLS for the doors: a bad certificate is refused at start, never served without.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;

/// Loads certificate and key and checks that they belong together.
pub(crate) fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>> {
    let certificates = certificates(&files.certificate_file)?;
    let key = key(&files.key_file)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| format!("{} and {} do not make a certificate", files.certificate_file.display(), files.key_file.display()))?;
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found: Vec<_> = rustls_pemfile::certs(&mut bytes.as_slice())
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is no PEM file", file.display()))?;
    anyhow::ensure!(!found.is_empty(), "{} holds no certificate", file.display());
    Ok(found)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = rustls_pemfile::private_key(&mut bytes.as_slice()).with_context(|| format!("{} is no PEM file", file.display()))?;
    found.with_context(|| format!("{} holds no private key", file.display()))
}

/// A listener for axum that shakes hands beside accepting, so that a slow client holds nobody up.
pub(crate) struct TlsListener {
    at: SocketAddr,
    ready: tokio::sync::mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Handshakes that wait at most: more than this many slow clients are dropped in turn.
    const PENDING: usize = 256;
    const HANDSHAKE: Duration = Duration::from_secs(10);

    pub(crate) fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Result<Self> {
        let at = listener.local_addr()?;
        let (send, ready) = tokio::sync::mpsc::channel(Self::PENDING);
        let acceptor = TlsAcceptor::from(config);
        let permits = Arc::new(tokio::sync::Semaphore::new(Self::PENDING));
        tokio::spawn(async move {
            while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (acceptor, send) = (acceptor.clone(), send.clone());
                if send.is_closed() {
                    return;
                }
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Ok(Ok(stream)) = tokio::time::timeout(Self::HANDSHAKE, acceptor.accept(stream)).await {
                        // The receiver is gone only when the server ends.
                        drop(send.send((stream, peer)).await);
                    }
                });
            }
        });
        Ok(Self { at, ready })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.at)
    }
}
