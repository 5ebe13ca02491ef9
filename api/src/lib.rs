//! The front door: HTTP routes, who may use them, limits, and the exporter.
//!
//! Must not know: Kafka, Delta, DataFusion, linfa, SQLite; it speaks to ports only.
//!
//! Entry points: [`router`] (everything), [`access::ROUTES`] (each route with the role that it needs).
//!
//! ```text
//! request ─► access (who, quota, role, audit of refusals) ─► route ─► port ─► answer or problem (RFC 9457)
//! ```

pub mod access;
mod delivery;
mod encode;
mod error;
mod limit;
mod openapi;
mod problem;
mod routes;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use kiro_ports::{Assessor, Audit, Backfills, Clock, Decider, Imports, Intake, Operations, Persons, Reports, Sources, SqlEngine, Tokens};
use kiro_schemas::Tenant;

use crate::delivery::Places;
use crate::limit::Limiter;

pub use error::{Error, Result};
pub use limit::{Class, Limits, Quota};
pub use telemetry::Telemetry;

/// What the front door needs.
#[derive(Debug, Clone)]
pub struct ApiPorts {
    /// Takes events in.
    pub intake: Arc<dyn Intake>,
    /// Answers SQL.
    pub sql: Arc<dyn SqlEngine>,
    /// Answers risk.
    pub assessor: Arc<dyn Assessor>,
    /// Decides gates.
    pub decider: Arc<dyn Decider>,
    /// Imports files.
    pub imports: Arc<dyn Imports>,
    /// Reads the past of repositories.
    pub backfills: Arc<dyn Backfills>,
    /// Manages sources.
    pub sources: Arc<dyn Sources>,
    /// Takes reports.
    pub reports: Arc<dyn Reports>,
    /// Does what operators ask for.
    pub operations: Arc<dyn Operations>,
    /// Knows tokens.
    pub tokens: Arc<dyn Tokens>,
    /// Knows who is behind a pseudonym.
    pub persons: Arc<dyn Persons>,
    /// Writes the audit log.
    pub audit: Arc<dyn Audit>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is exported at `/metrics`.
    pub registry: prometheus::Registry,
}

/// How the front door behaves.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Lets loopback in without a token, as an admin of the default tenant.
    pub loopback_open: bool,
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// Time for a request, but for imports and queries, which have their own.
    pub timeout: Duration,
    /// Time for a report to come and be read.
    pub report_timeout: Duration,
    /// How often each caller may ask.
    pub limits: Limits,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            loopback_open: false,
            max_body_bytes: 25 << 20,
            timeout: Duration::from_mins(1),
            report_timeout: Duration::from_mins(15),
            limits: Limits::default(),
        }
    }
}

/// Shared by all routes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) ports: ApiPorts,
    pub(crate) config: ApiConfig,
    pub(crate) telemetry: Telemetry,
    pub(crate) limiter: Limiter,
    /// Of large deliveries.
    pub(crate) places: Places,
}

pub(crate) type Shared = Arc<State>;

/// All routes, with access control around them.
///
/// # Errors
/// A metric is registered twice.
pub fn router(ports: ApiPorts, config: ApiConfig) -> Result<Router> {
    let telemetry = Telemetry::new(&ports.registry)?;
    let limiter = Limiter::new(config.limits);
    let state: Shared = Arc::new(State { ports, config, telemetry, limiter, places: Places::default() });
    let limit = state.config.max_body_bytes;
    let within = |routes: Router<Shared>, timeout| {
        let guard = middleware::from_fn_with_state(Arc::clone(&state), access::guard);
        let timeout = tower_http::timeout::TimeoutLayer::with_status_code(axum::http::StatusCode::GATEWAY_TIMEOUT, timeout);
        routes.layer(guard).layer(timeout)
    };
    Ok(within(routes::all(), state.config.timeout)
        .merge(within(routes::streams(), state.config.report_timeout))
        .layer(DefaultBodyLimit::max(limit))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(problem::of_panic))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), telemetry::observe))
        .with_state(state))
}

/// The tenant of requests that come in without a token.
#[must_use]
pub fn open_tenant() -> Tenant {
    Tenant::default()
}
