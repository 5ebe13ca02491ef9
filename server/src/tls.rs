//! TLS for the doors: a bad certificate is refused at start, never served without. New files are taken while the doors serve.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kiro_ports::Clock;
use kiro_schemas::Micros;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use x509_certificate::X509Certificate;

use crate::config::TlsFiles;
use crate::telemetry::Telemetry;

#[cfg(test)]
mod tests;

/// How often the files are looked at; SIGHUP looks at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Certificate and key that belong together and are valid.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    expires_at: Micros,
}

/// The files when they were looked at last.
#[derive(Debug)]
struct Seen {
    digest: [u8; 32],
    is_refused: bool,
}

/// What a door shows to new connections.
#[derive(Debug)]
pub(crate) struct Certificates {
    door: &'static str,
    files: TlsFiles,
    served: RwLock<Pair>,
    seen: Mutex<Seen>,
}

impl Certificates {
    /// Loads certificate and key; they must belong together and be valid now.
    pub(crate) fn load(door: &'static str, files: &TlsFiles, now: Micros) -> Result<Arc<Self>> {
        let (digest, pair) = look(files, now);
        Ok(Arc::new(Self { door, files: files.clone(), served: RwLock::new(pair?), seen: Mutex::new(Seen { digest, is_refused: false }) }))
    }

    /// What a listener needs. Connections that are open stay what they are when the files change.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
        Ok(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::clone(self) as _)))
    }

    /// Takes new files; bad ones are refused, and what is served goes on.
    fn renew(&self, now: Micros, telemetry: &Telemetry) {
        let (digest, pair) = look(&self.files, now);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = seen.digest != digest;
        seen.digest = digest;
        match pair {
            // What was refused may have become valid.
            Ok(pair) if is_news || seen.is_refused => {
                info!(door = self.door, expires_at = %pair.expires_at, "a new certificate is served");
                telemetry.certificate(self.door, pair.expires_at);
                *self.served.write().unwrap_or_else(PoisonError::into_inner) = pair;
                seen.is_refused = false;
            }
            Err(refusal) if is_news => {
                error!(door = self.door, error = %format!("{refusal:#}"), "a new certificate is refused; the one before is served on");
                telemetry.certificate_refused(self.door);
                seen.is_refused = true;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// Looks after the files of all doors until it is told to stop.
pub(crate) async fn keep(all: Vec<Arc<Certificates>>, clock: Arc<dyn Clock>, telemetry: Telemetry, stop: CancellationToken) -> Result<()> {
    for certificates in &all {
        telemetry.certificate(certificates.door, certificates.served.read().unwrap_or_else(PoisonError::into_inner).expires_at);
    }
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = hangup.recv() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for certificates in &all {
            let (certificates, telemetry, now) = (Arc::clone(certificates), telemetry.clone(), clock.now());
            tokio::task::spawn_blocking(move || certificates.renew(now, &telemetry)).await?;
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The pair of the files, and a digest of what was seen: of an error when they cannot be read.
fn look(files: &TlsFiles, now: Micros) -> ([u8; 32], Result<Pair>) {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    match (read(&files.certificate_file), read(&files.key_file)) {
        (Ok(certificate), Ok(key)) => {
            let digest = Sha256::new().chain_update(Sha256::digest(&certificate)).chain_update(&key).finalize();
            (digest.into(), pair(files, &certificate, &key, now))
        }
        (Err(error), _) | (_, Err(error)) => (Sha256::digest(format!("{error:#}")).into(), Err(error)),
    }
}

fn pair(files: &TlsFiles, mut certificate: &[u8], mut key: &[u8], now: Micros) -> Result<Pair> {
    let (certificate_file, key_file) = (files.certificate_file.display(), files.key_file.display());
    let chain: Vec<CertificateDer<'static>> =
        rustls_pemfile::certs(&mut certificate).collect::<Result<_, _>>().with_context(|| format!("{certificate_file} is no PEM file"))?;
    let own = chain.first().with_context(|| format!("{certificate_file} holds no certificate"))?.clone();
    let key: Option<PrivateKeyDer<'static>> =
        rustls_pemfile::private_key(&mut key).with_context(|| format!("{key_file} is no PEM file"))?;
    let key = key.with_context(|| format!("{key_file} holds no private key"))?;
    let key = CertifiedKey::from_der(chain, key, &provider())
        .with_context(|| format!("{certificate_file} and {key_file} do not make a certificate"))?;
    let own = X509Certificate::from_der(&own).with_context(|| format!("{certificate_file} holds no certificate that can be read"))?;
    let [begins_at, expires_at] = [own.validity_not_before(), own.validity_not_after()].map(|time| Micros(time.timestamp_micros()));
    anyhow::ensure!(begins_at <= now, "the certificate of {certificate_file} is not valid before {begins_at}");
    anyhow::ensure!(now < expires_at, "the certificate of {certificate_file} has expired at {expires_at}");
    Ok(Pair { key: Arc::new(key), expires_at })
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
