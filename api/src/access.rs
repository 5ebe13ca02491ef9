//! Who may use which route: a typed matrix, checked before any handler runs.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kiro_ports::{AuditEntry, Principal, Role};
use kiro_schemas::Secret;

use crate::limit::{Caller, Class, Standing};
use crate::{Error, Result, Shared, open_tenant};

/// Who a route lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone: it tells nothing about data, or verifies by itself (webhooks).
    Open,
    /// Tokens that permit this role.
    Needs(Role),
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path, with `{names}`.
    pub path: &'static str,
    /// Who it lets in.
    pub access: Access,
    /// Which quota it counts against.
    pub class: Class,
    /// What it does, for the `OpenAPI` description.
    pub summary: &'static str,
}

const fn ask(method: &'static str, path: &'static str, access: Access, summary: &'static str) -> Route {
    Route { method, path, access, class: Class::Query, summary }
}

const fn send(method: &'static str, path: &'static str, access: Access, summary: &'static str) -> Route {
    Route { method, path, access, class: Class::Ingest, summary }
}

const fn probe(path: &'static str, summary: &'static str) -> Route {
    Route { method: "GET", path, access: Access::Open, class: Class::Free, summary }
}

/// All routes. A route that is not here is refused, whatever the router knows.
pub const ROUTES: &[Route] = &[
    probe("/", "What there is, for people"),
    probe("/healthz", "Whether the process runs"),
    probe("/readyz", "Whether it is ready to serve, and why not"),
    ask("GET", "/openapi.json", Access::Open, "This description"),
    ask("GET", "/metrics", Access::Needs(Role::Viewer), "Metrics in the Prometheus text format"),
    send("POST", "/webhooks/{source}", Access::Open, "A source's webhook; verified by its signature"),
    send("POST", "/api/v1/events", Access::Needs(Role::Ingest), "Events: CloudEvents (single, batch, binary) or native JSON lines"),
    send(
        "POST",
        "/api/v1/reports/{format}",
        Access::Needs(Role::Ingest),
        "A report of tests, coverage or a scanner, as it comes; the query names source and run_id",
    ),
    ask("POST", "/api/v1/query", Access::Needs(Role::Viewer), "One read-only SQL statement"),
    ask("GET", "/api/v1/tables", Access::Needs(Role::Viewer), "The tables and their columns"),
    ask("POST", "/api/v1/risk", Access::Needs(Role::Viewer), "The risk of a run or deployment, with its reasons"),
    ask("GET", "/api/v1/gates", Access::Needs(Role::Viewer), "The gates"),
    ask("POST", "/api/v1/gates/evaluate", Access::Needs(Role::Developer), "A gate's decision, with its evidence"),
    send("POST", "/api/v1/imports", Access::Needs(Role::Operator), "Begins or resumes an import"),
    send("GET", "/api/v1/imports/{id}", Access::Needs(Role::Operator), "How an import stands"),
    send("PUT", "/api/v1/imports/{id}/bytes", Access::Needs(Role::Operator), "Bytes of an import, from `offset` on"),
    send("POST", "/api/v1/imports/platforms", Access::Needs(Role::Operator), "Reads the past of a repository, on from where it came to"),
    send("GET", "/api/v1/imports/platforms/{id}", Access::Needs(Role::Operator), "How the reading of a repository's past stands"),
    ask("GET", "/api/v1/sources", Access::Needs(Role::Operator), "The sources, and how each fares"),
    ask("POST", "/api/v1/sources", Access::Needs(Role::Admin), "Adds a source; a secret that is made for it is shown once"),
    ask(
        "POST",
        "/api/v1/sources/explain",
        Access::Needs(Role::Viewer),
        "Which rule makes an event a deployment, hotfix, rollback or incident",
    ),
    ask("POST", "/api/v1/sources/replay", Access::Needs(Role::Operator), "Reads raw webhooks again, a part at a time"),
    ask("DELETE", "/api/v1/sources/{name}", Access::Needs(Role::Admin), "Removes a source"),
    ask("POST", "/api/v1/sources/{name}/rotate", Access::Needs(Role::Admin), "Makes a new secret, shown once; the one before stays live"),
    ask("POST", "/api/v1/sources/{name}/test", Access::Needs(Role::Operator), "Tries secrets, token and scopes without adding a row"),
    ask("GET", "/api/v1/persons/{name}", Access::Needs(Role::Admin), "The pseudonym of a person"),
    ask("DELETE", "/api/v1/persons/{name}", Access::Needs(Role::Admin), "Forgets whose pseudonym it is, which is answered once more"),
    ask("GET", "/api/v1/tokens", Access::Needs(Role::Admin), "The tokens of the tenant"),
    ask("POST", "/api/v1/tokens", Access::Needs(Role::Admin), "Creates a token; its text is shown once"),
    ask("DELETE", "/api/v1/tokens/{name}", Access::Needs(Role::Admin), "Revokes a token"),
    ask("POST", "/api/v1/models/evaluate", Access::Needs(Role::Operator), "Trains and judges the model now"),
    ask("POST", "/api/v1/dead-letters/replay", Access::Needs(Role::Operator), "Appends dead letters again"),
    ask("GET", "/api/v1/audit/verify", Access::Needs(Role::Operator), "Checks every row of the audit log; of the default tenant alone"),
    ask("POST", "/api/v1/settle", Access::Needs(Role::Viewer), "Waits until what was appended before can be queried"),
    ask("GET", "/api/v1/status", Access::Needs(Role::Viewer), "How the process is"),
];

/// Lets a request through to its route, or refuses and audits it; the answer tells what is left of the caller's quota.
pub(crate) async fn guard(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let mut standing = None;
    let mut response = match admit(&state, &head, &mut standing).await {
        Ok(principal) => {
            if let Some(principal) = principal {
                head.extensions.insert(principal);
            }
            next.run(Request::from_parts(head, body)).await
        }
        Err(error) => error.into_response(),
    };
    if let Some(standing) = standing {
        standing.tell(response.headers_mut());
    }
    response
}

async fn admit(state: &Shared, request: &Parts, standing: &mut Option<Standing>) -> Result<Option<Principal>> {
    let path = request.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = if request.method == Method::HEAD { "GET" } else { request.method.as_str() };
    let Some(route) = ROUTES.iter().find(|r| r.path == path && r.method == method) else {
        return Err(Error::NoRoute { path: request.uri.path().to_owned() });
    };
    let principal = if route.access == Access::Open { None } else { identify(state, request).await? };
    // Counted before anything is refused: who guesses tokens runs out of tries, and cannot fill the audit log.
    *standing = count(state, request, route.class, principal.as_ref());
    if let Some(over) = standing.filter(|s| s.is_over) {
        state.telemetry.limited(over.class);
        return Err(Error::TooMany { class: over.class.as_str(), retry_after_seconds: over.reset_seconds() });
    }
    let Access::Needs(needed) = route.access else { return Ok(None) };
    let action = format!("{} {}", route.method, route.path);
    let Some(principal) = principal else {
        refuse(state, None, &action, "no valid token").await;
        return Err(Error::Unauthenticated);
    };
    if !principal.role.permits(needed) {
        refuse(state, Some(&principal), &action, "the role does not permit it").await;
        return Err(Error::Forbidden { needed, has: principal.role });
    }
    Ok(Some(principal))
}

fn count(state: &Shared, request: &Parts, class: Class, principal: Option<&Principal>) -> Option<Standing> {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(at)| at.ip());
    state.limiter.count(class, Caller::of(principal, peer), state.ports.clock.now())
}

async fn identify(state: &Shared, request: &Parts) -> Result<Option<Principal>> {
    let header = request.headers.get(axum::http::header::AUTHORIZATION);
    let Some(header) = header else {
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let is_loopback = peer.is_some_and(|ConnectInfo(at)| at.ip().to_canonical().is_loopback());
        // A proxy in front makes every caller look local: a forwarded request is never let in without a token.
        let is_forwarded = ["x-forwarded-for", "forwarded", "x-real-ip"].iter().any(|name| request.headers.contains_key(*name));
        let is_open = state.config.loopback_open && is_loopback && !is_forwarded && is_local_host(request);
        return Ok(is_open.then(|| Principal { name: "loopback".into(), tenant: open_tenant(), role: Role::Admin }));
    };
    let Some(token) = header.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")) else { return Ok(None) };
    Ok(state.ports.tokens.verify(&Secret::new(token.trim()), state.ports.clock.now()).await?)
}

/// Refuses names that a browser was made to resolve to loopback (DNS rebinding), and pages of other origins.
fn is_local_host(request: &Parts) -> bool {
    let host = request.headers.get(axum::http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let name = if host.starts_with('[') {
        host.split(']').next().unwrap_or(host).trim_start_matches('[')
    } else {
        host.split(':').next().unwrap_or(host)
    };
    let is_local = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_local && !request.headers.contains_key("origin")
}

/// Counts a refusal and writes it down.
pub(crate) async fn refuse(state: &Shared, who: Option<&Principal>, action: &str, reason: &str) {
    state.telemetry.refused(action, reason);
    let entry = AuditEntry {
        tenant: who.map_or_else(open_tenant, |p| p.tenant.clone()),
        actor: who.map_or_else(|| "-".to_owned(), |p| p.name.clone()),
        action: action.to_owned(),
        object: String::new(),
        refused: Some(reason.to_owned()),
    };
    if let Err(error) = state.ports.audit.record(entry).await {
        tracing::error!(%error, "cannot write the audit log");
    }
}
