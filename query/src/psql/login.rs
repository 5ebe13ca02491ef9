//! The login: SCRAM-SHA-256 with a token as password, or nothing from loopback when that is open.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use kiro_ports::{AuditEntry, Principal, Role, ScramVerifier};
use kiro_schemas::Tenant;
use pgwire::api::auth::sasl::scram::{ScramAuth, random_nonce};
use pgwire::api::auth::sasl::{SASLState, SCRAM_SHA_256_METHOD};
use pgwire::api::auth::{
    AuthSource, LoginInfo, Password, ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::{ClientInfo, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::{Authentication, PasswordMessageFamily, Startup};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::sync::Mutex;

use super::settings::Settings;
use super::{Session, fault};
use crate::tools::SERVER_VERSION;

/// Verifiers of users that are not there, so that asking does not tell who is.
#[derive(Debug, Default)]
pub(super) struct Decoys(RandomState);

impl Decoys {
    /// The salt is the same each time, as that of a real user is.
    fn of(&self, user: &str) -> ScramVerifier {
        let salt: Vec<u8> = (0_u8..).flat_map(|part| self.0.hash_one((user, part)).to_be_bytes()).take(ScramVerifier::SALT_BYTES).collect();
        ScramVerifier { salt, iterations: ScramVerifier::ITERATIONS, salted_password: random_nonce().into_bytes() }
    }
}

/// The login of one connection.
pub(super) struct Login {
    session: Arc<Session>,
    proof: Mutex<Option<Proof>>,
}

/// A proof that goes on.
struct Proof {
    scram: ScramAuth,
    state: SASLState,
    who: Option<Principal>,
}

#[derive(Debug)]
struct Known(Password);

#[async_trait]
impl AuthSource for Known {
    async fn get_password(&self, _login: &LoginInfo) -> PgWireResult<Password> {
        Ok(self.0.clone())
    }
}

impl Login {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, proof: Mutex::new(None) }
    }

    async fn begin<C>(&self, client: &mut C, startup: &Startup) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        protocol_negotiation(client, startup).await?;
        save_startup_parameters_to_metadata(client, startup);
        client.set_state(PgWireConnectionState::AuthenticationInProgress);
        let server = &self.session.shared.server;
        *self.session.settings.lock().unwrap_or_else(PoisonError::into_inner) = Settings::of(startup)?;
        let is_local = client.socket_addr().ip().to_canonical().is_loopback();
        if let (true, Some(who)) = (is_local, &server.open) {
            return self.finish(client, who.clone()).await;
        }
        if !is_local && !client.is_secure() {
            return Err(fault::fatal("28000", "this server wants TLS: connect with sslmode=require"));
        }
        let user = startup.parameters.get(METADATA_USER).map(String::as_str).unwrap_or_default();
        let found = server.tokens.scram(user, server.clock.now()).await.map_err(|e| {
            tracing::warn!(error = %e, "cannot look up a token");
            fault::fatal("57P03", "tokens cannot be checked at the moment")
        })?;
        let (who, verifier) = match found {
            Some((who, verifier)) => (Some(who), verifier),
            None => (None, self.session.shared.decoys.of(user)),
        };
        let known = Known(Password::new(Some(verifier.salt), verifier.salted_password));
        let mut scram = ScramAuth::new(Arc::new(known));
        scram.set_iterations(usize::try_from(verifier.iterations).unwrap_or(usize::MAX));
        *self.proof.lock().await = Some(Proof { scram, state: SASLState::Initial, who });
        client.send(PgWireBackendMessage::Authentication(Authentication::SASL(vec![SCRAM_SHA_256_METHOD.to_owned()]))).await?;
        Ok(())
    }

    async fn step<C>(&self, client: &mut C, message: PasswordMessageFamily) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut held = self.proof.lock().await;
        let proof = held.as_mut().ok_or_else(|| fault::fatal("08P01", "a password came before the name"))?;
        let message = if let SASLState::Initial = proof.state {
            let first = message.into_sasl_initial_response()?;
            if first.auth_method != SCRAM_SHA_256_METHOD {
                return Err(fault::fatal("28000", "only SCRAM-SHA-256 is supported"));
            }
            proof.state = SASLState::ScramClientFirstReceived;
            PasswordMessageFamily::SASLInitialResponse(first)
        } else {
            PasswordMessageFamily::SASLResponse(message.into_sasl_response()?)
        };
        let (answer, state) = proof.scram.process_scram_message(client, message, &proof.state).await?;
        proof.state = state;
        if !matches!(proof.state, SASLState::Finished) {
            client.send(PgWireBackendMessage::Authentication(answer)).await?;
            return Ok(());
        }
        let who = proof.who.clone().ok_or_else(refused)?;
        if who.role == Role::Ingest {
            return Err(fault::fatal("42501", format!("the token {:?} may only write events, not read", who.name)));
        }
        client.feed(PgWireBackendMessage::Authentication(answer)).await?;
        self.finish(client, who).await
    }

    /// A refused login is written down for the tenant of the token that was named; for the default one where there is none.
    async fn write_down(&self, reason: &str) {
        let named = self.proof.lock().await.as_ref().and_then(|proof| proof.who.clone());
        let (tenant, actor) = named.map_or_else(|| (Tenant::default(), "-".to_owned()), |who| (who.tenant, who.name));
        let refused = Some(reason.to_owned());
        let entry = AuditEntry { tenant, actor, action: "psql login".to_owned(), object: String::new(), refused };
        if let Err(error) = self.session.shared.server.audit.record(entry).await {
            tracing::error!(%error, "cannot write the audit log");
        }
    }

    async fn finish<C>(&self, client: &mut C, who: Principal) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let shared = &self.session.shared;
        let place = Arc::clone(&shared.places)
            .try_acquire_owned()
            .map_err(|_full| fault::fatal("53300", format!("too many connections: {} are allowed", shared.server.max_connections)))?;
        let (pid, key) = shared.keys.generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        let registered = self.session.registered.set(shared.connections.register(pid, key));
        if self.session.place.set(place).is_err() || registered.is_err() || self.session.who.set(who).is_err() {
            return Err(fault::fatal("08P01", "a second login"));
        }
        shared.waiting.leave(self.session.number);
        finish_authentication(client, &Parameters).await
    }
}

fn refused() -> PgWireError {
    fault::fatal("28P01", "password authentication failed")
}

/// What clients are told of a failed proof.
fn told(error: PgWireError) -> PgWireError {
    if matches!(error, PgWireError::InvalidPassword(_)) { refused() } else { error }
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let result = match message {
            PgWireFrontendMessage::Startup(ref startup) => self.begin(client, startup).await,
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let result = self.step(client, message).await.map_err(told);
                if let Err(PgWireError::UserError(error)) = &result {
                    self.write_down(&error.message).await;
                }
                result
            }
            _ => Err(fault::fatal("08P01", "a message before the login")),
        };
        result.map_err(told)
    }
}

/// What a client is told of the server at its login.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, _client: &C) -> Option<HashMap<String, String>> {
        let told = [
            ("server_version", SERVER_VERSION),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("integer_datetimes", "on"),
            ("in_hot_standby", "off"),
            ("search_path", "public"),
            ("is_superuser", "off"),
            ("default_transaction_read_only", "on"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, YMD"),
            ("IntervalStyle", "postgres"),
            ("standard_conforming_strings", "on"),
        ];
        Some(told.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}
