//! The psql wire: PostgreSQL's protocol, read-only, over [`Query`].
//!
//! ```text
//! connection ─► TLS? ─► login (SCRAM, or loopback) ─► statements ─► Query ─► rows in text or binary
//!      └── closed by the client: the running statement is dropped
//! ```

mod connection;
mod copy;
#[cfg(test)]
mod crowd;
mod fault;
mod login;
#[cfg(test)]
mod meta;
#[cfg(test)]
mod real;
mod session;
mod settings;
mod talk;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use kiro_ports::{Audit, Clock, Principal, Tokens};
use pgwire::api::auth::StartupHandler;
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{
    ClientInfo, ConnectionGuard, ConnectionHandle, ConnectionManager, ErrorHandler, PgWireServerHandlers, RandomPidSecretKeyGenerator,
};
use pgwire::error::{ErrorInfo, PgWireError};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::settings::Settings;
use crate::Query;

/// How long a client may stay after a fatal error.
const LEAVE: Duration = Duration::from_secs(2);
/// How long connections may finish after a stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections that may be at their login at a time. One more ends that which has been at it longest: who is slow on purpose keeps
/// nobody out.
const MOST_WAITING: usize = 1_000;

/// What the psql door needs.
pub struct PsqlServer {
    /// The engine.
    pub query: Arc<Query>,
    /// User name = name of a token, password = its text.
    pub tokens: Arc<dyn Tokens>,
    /// Where refused logins are written down.
    pub audit: Arc<dyn Audit>,
    /// The clock that tokens are checked against.
    pub clock: Arc<dyn Clock>,
    /// Certificate and key; without them only loopback should be served.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Who a loopback client is without a password; `None`: it needs one.
    pub open: Option<Principal>,
    /// Logged in connections at a time.
    pub max_connections: usize,
}

impl std::fmt::Debug for PsqlServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PsqlServer")
            .field("tls", &self.tls.is_some())
            .field("open", &self.open)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// What all connections share.
struct Shared {
    server: PsqlServer,
    connections: Arc<ConnectionManager>,
    keys: RandomPidSecretKeyGenerator,
    decoys: login::Decoys,
    places: Arc<Semaphore>,
    waiting: Waiting,
}

/// The connections that are not logged in, in the order in which they came.
#[derive(Default)]
struct Waiting(Mutex<(u64, BTreeMap<u64, CancellationToken>)>);

impl Waiting {
    /// Lets one more in: its number, and what is cancelled when it has to make room.
    fn enter(&self) -> (u64, CancellationToken) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, all) = &mut *held;
        let (number, token) = (*count, CancellationToken::new());
        *count += 1;
        all.insert(number, token.clone());
        if all.len() > MOST_WAITING
            && let Some((_, oldest)) = all.pop_first()
        {
            oldest.cancel();
        }
        (number, token)
    }

    /// It is logged in, or gone.
    fn leave(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
    }
}

/// One connection.
struct Session {
    shared: Arc<Shared>,
    /// Set when, and only when, the login succeeded.
    who: OnceLock<Principal>,
    /// What a cancel request reaches, set at the login. Kept from pgwire's own way, which does not cancel while rows are sent.
    registered: OnceLock<(Arc<ConnectionHandle>, ConnectionGuard)>,
    /// Set at the start-up, changed by statements.
    settings: Mutex<Settings>,
    /// Its number among those that wait to be logged in.
    number: u64,
    /// A fatal error was sent.
    over: CancellationToken,
    /// Held from the login to the end.
    place: OnceLock<OwnedSemaphorePermit>,
}

/// Serves connections until the token is cancelled.
pub async fn serve(listener: TcpListener, server: PsqlServer, stop: CancellationToken) {
    let acceptor = server.tls.clone().map(TlsAcceptor::from);
    let shared = Arc::new(Shared {
        places: Arc::new(Semaphore::new(server.max_connections)),
        server,
        connections: Arc::new(ConnectionManager::new()),
        keys: RandomPidSecretKeyGenerator::default(),
        decoys: login::Decoys::default(),
        waiting: Waiting::default(),
    });
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = running.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: it passes when connections end.
                tracing::warn!(%error, "cannot accept a psql connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (number, pushed) = shared.waiting.enter();
        let session = Session {
            shared: Arc::clone(&shared),
            who: OnceLock::new(),
            registered: OnceLock::new(),
            settings: Mutex::default(),
            number,
            over: CancellationToken::new(),
            place: OnceLock::new(),
        };
        let (session, ends) = (Arc::new(session), [stop.clone(), pushed]);
        running.spawn(connection(stream, peer, acceptor.clone(), session, ends));
    }
    let ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::warn!("psql connections did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    session: Arc<Session>,
    [stop, pushed]: [CancellationToken; 2],
) {
    let (over, held) = (session.over.clone(), Arc::clone(&session));
    let served = async {
        let (stream, watch) = twice(stream)?;
        tokio::select! {
            result = connection::answer(stream, acceptor, Handlers(session)) => result,
            () = closed(&watch) => Ok(()),
            () = stop.cancelled() => Ok(()),
            () = pushed.cancelled() => Ok(()),
            () = async { over.cancelled().await; tokio::time::sleep(LEAVE).await } => Ok(()),
        }
    };
    if let Err(error) = served.await {
        tracing::debug!(%peer, %error, "a psql connection broke");
    }
    held.shared.waiting.leave(held.number);
}

/// A second handle of a connection, to see it close while a statement runs.
fn twice(stream: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let watch = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, watch))
}

/// Returns when the client has closed.
async fn closed(watch: &TcpStream) {
    loop {
        match watch.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {}
            _ => return,
        }
        // Forgets what is readable now (others read it), so that the next call waits for news.
        drop(watch.try_io(Interest::READABLE, || Err::<(), _>(std::io::ErrorKind::WouldBlock.into())));
    }
}

struct Handlers(Arc<Session>);

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::new(talk::Talk(Arc::clone(&self.0)))
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::new(talk::Talk(Arc::clone(&self.0)))
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::new(login::Login::new(Arc::clone(&self.0)))
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::new(DefaultCancelHandler::new(Arc::clone(&self.0.shared.connections)))
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        Arc::new(Errors(Arc::clone(&self.0)))
    }
}

/// Sees every error before it is sent: one before the login, and a fatal one, end the connection.
struct Errors(Arc<Session>);

impl ErrorHandler for Errors {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        let taken = std::mem::replace(error, PgWireError::NotReadyForQuery);
        let mut info = ErrorInfo::from(taken);
        if self.0.who.get().is_none() {
            "FATAL".clone_into(&mut info.severity);
        }
        tracing::debug!(peer = %client.socket_addr(), code = info.code, "a psql client is told of an error");
        if info.is_fatal() {
            self.0.over.cancel();
        }
        *error = PgWireError::UserError(Box::new(info));
    }
}

/// Reads a text as each of the parsers of this door does.
#[cfg(test)]
pub(crate) fn read_all(text: &str) {
    if let Ok(settings) = settings::parse_options(text) {
        assert!(settings.iter().map(|(name, value)| name.len() + value.len() + 1).sum::<usize>() <= text.len(), "made up from {text:?}");
    }
    for part in session::split(text).unwrap_or_default() {
        assert!(text.chars().skip(part.before).collect::<String>().starts_with(part.text), "{text:?}");
        if let Ok(session::Command::Set(change)) = session::Command::of(part.text) {
            assert!(change.place.is_none_or(|place| place <= part.text.chars().count()), "{text:?}");
        }
    }
}
