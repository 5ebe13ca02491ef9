//! The routes, each of them a few lines around a port.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use futures::TryStreamExt as _;
use kiro_ports::{AuditEntry, GateRequest, Headers, NewBackfill, NewImport, NewToken, Principal, RiskRequest, Role, SqlRequest};
use kiro_schemas::report::ReportScope;
use kiro_schemas::{Micros, Tenant};
use kiro_tables::{Table, TableShape};
use prometheus::TextEncoder;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::access::refuse;
use crate::encode::{self, Form};
use crate::{Error, Result, Shared, openapi, telemetry};

mod persons;
mod sources;
mod webhooks;

/// Most bytes of a question: those of events, webhooks and imports have limits of their own.
const MOST_JSON: usize = 1 << 20;

/// The router without its layers.
pub(crate) fn all() -> Router<Shared> {
    Router::new()
        .route("/", get(|| async { openapi::page() }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_show))
        .route("/openapi.json", get(|| async { Json(openapi::description()) }))
        .route("/metrics", get(metrics_show))
        .route("/webhooks/{source}", post(webhooks::webhook_take))
        .route("/api/v1/events", post(events_take))
        .route("/api/v1/query", post(query_answer))
        .route("/api/v1/tables", get(tables_list))
        .route("/api/v1/risk", post(risk_assess))
        .route("/api/v1/gates", get(gates_list))
        .route("/api/v1/gates/evaluate", post(gate_evaluate))
        .route("/api/v1/imports", post(import_begin))
        .route("/api/v1/imports/{id}", get(import_show))
        .route("/api/v1/imports/{id}/bytes", put(import_receive))
        .route("/api/v1/imports/platforms", post(backfill_begin))
        .route("/api/v1/imports/platforms/{id}", get(backfill_show))
        .merge(sources::all())
        .merge(persons::all())
        .route("/api/v1/tokens", get(tokens_list).post(token_create))
        .route("/api/v1/tokens/{name}", delete(token_revoke))
        .route("/api/v1/models/evaluate", post(model_evaluate))
        .route("/api/v1/dead-letters/replay", post(dead_letters_replay))
        .route("/api/v1/audit/verify", get(audit_verify))
        .route("/api/v1/settle", post(settle))
        .route("/api/v1/status", get(status_show))
        .fallback(|uri: Uri| async move { Error::NoRoute { path: uri.path().to_owned() } })
}

/// The routes whose bodies are read as they come, without the limit of others; they have more time.
pub(crate) fn streams() -> Router<Shared> {
    Router::new().route("/api/v1/reports/{format}", post(report_take))
}

/// Reads a JSON body, naming the place of what is wrong.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T> {
    if body.len() > MOST_JSON {
        return Err(Error::TooLarge { size: body.len(), limit: MOST_JSON });
    }
    serde_json::from_slice(body).map_err(|e| Error::BadRequest { what: format!("the body is not the JSON that is expected: {e}") })
}

fn plain(headers: &HeaderMap) -> Headers {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

async fn ready_show(State(state): State<Shared>) -> Response {
    match state.ports.operations.ready().await {
        Ok(state) => (StatusCode::OK, format!("{state}\n")).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics_show(State(state): State<Shared>, Extension(who): Extension<Principal>) -> Result<Response> {
    let text = TextEncoder::new().encode_to_string(&telemetry::visible(&state.ports.registry, &who.tenant))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn events_take(
    State(state): State<Shared>,
    Extension(who): Extension<Principal>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let accepted = state.ports.intake.post(&who.tenant, &plain(&headers), body).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"accepted": accepted}))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryBody {
    sql: String,
    #[serde(default)]
    as_of: Option<Micros>,
    #[serde(default)]
    parameters: Vec<Option<String>>,
}

async fn query_answer(
    State(state): State<Shared>,
    Extension(who): Extension<Principal>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let query: QueryBody = read(&body)?;
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*"));
    let mut request = SqlRequest::new(who.tenant, query.sql);
    request.as_of = query.as_of;
    request.parameters = query.parameters;
    encode::respond(state.ports.sql.clone().query(request).await?, form).await
}

async fn tables_list() -> Json<Value> {
    let tables: Vec<Value> = Table::all()
        .iter()
        .map(|table| {
            let is_shown = |name: &str| !(table.shape == TableShape::Versions && name == "_rev");
            let columns: Vec<Value> = table
                .columns
                .iter()
                .filter(|c| is_shown(c.name))
                .map(|c| json!({"name": c.name, "type": format!("{:?}", c.kind).to_lowercase(), "nullable": c.nullable, "doc": c.doc}))
                .collect();
            json!({"name": table.name, "doc": table.doc, "columns": columns})
        })
        .collect();
    Json(json!({ "tables": tables }))
}

async fn risk_assess(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let request: RiskRequest = read(&body)?;
    Ok(Json(state.ports.assessor.assess(&who, request).await?).into_response())
}

async fn gates_list(State(state): State<Shared>) -> Json<Value> {
    Json(json!({ "gates": state.ports.decider.gates() }))
}

async fn gate_evaluate(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let request: GateRequest = read(&body)?;
    Ok(Json(state.ports.decider.decide(&who, request).await?).into_response())
}

async fn import_begin(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let import: NewImport = read(&body)?;
    audit(&state, &who, "import.begin", &import.name).await?;
    Ok(Json(state.ports.imports.begin(&who, import).await?).into_response())
}

async fn import_show(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(id): Path<String>) -> Result<Response> {
    Ok(Json(state.ports.imports.status(&who, &id).await?).into_response())
}

async fn backfill_begin(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let backfill: NewBackfill = read(&body)?;
    audit(&state, &who, "import.begin", &format!("{} {}", backfill.platform, backfill.repository)).await?;
    Ok(Json(state.ports.backfills.begin(&who, backfill).await?).into_response())
}

async fn backfill_show(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(id): Path<String>) -> Result<Response> {
    Ok(Json(state.ports.backfills.status(&who, &id).await?).into_response())
}

#[derive(Deserialize)]
struct ReceiveQuery {
    offset: u64,
}

async fn import_receive(
    State(state): State<Shared>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    Query(query): Query<ReceiveQuery>,
    body: Bytes,
) -> Result<Response> {
    Ok(Json(state.ports.imports.receive(&who, &id, query.offset, body).await?).into_response())
}

/// What a report is about, from the query; an empty text is none.
fn scope(uri: &Uri) -> Result<ReportScope> {
    let wrong = |what: String| Error::BadRequest { what: format!("the query does not say what the report is about: {what}") };
    let Query(mut scope) = Query::<ReportScope>::try_from_uri(uri).map_err(|error| wrong(error.body_text()))?;
    for text in [&mut scope.commit_sha, &mut scope.branch, &mut scope.service, &mut scope.environment] {
        text.take_if(|text| text.is_empty());
    }
    scope.check().map_err(wrong)?;
    Ok(scope)
}

async fn report_take(
    State(state): State<Shared>,
    Extension(who): Extension<Principal>,
    Path(format): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Response> {
    let bytes = Box::pin(body.into_data_stream().map_err(std::io::Error::other));
    Ok(Json(state.ports.reports.take(&who, &format, scope(&uri)?, bytes).await?).into_response())
}

async fn tokens_list(State(state): State<Shared>, Extension(who): Extension<Principal>) -> Result<Response> {
    Ok(Json(json!({"tokens": state.ports.tokens.list(&who.tenant).await?})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    name: String,
    role: Role,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    expires_at: Option<Micros>,
}

async fn token_create(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let body: TokenBody = read(&body)?;
    let tenant = body.tenant.map_or_else(|| who.tenant.clone(), Tenant::new);
    // Only an admin of the default tenant, who runs the installation, may make tokens of other tenants.
    if tenant != who.tenant && who.tenant != Tenant::default() {
        return Err(Error::BadRequest { what: "tokens of another tenant are made by an admin of the default tenant".to_owned() });
    }
    if !kiro_schemas::id::is_tenant(tenant.as_str()) {
        return Err(Error::BadRequest { what: format!("{:?} is no tenant: 1 to 64 of a-z, 0-9, - and _", tenant.as_str()) });
    }
    let token = NewToken { name: body.name.clone(), tenant: tenant.clone(), role: body.role, expires_at: body.expires_at };
    audit(&state, &who, "token.create", &body.name).await?;
    let secret = state.ports.tokens.create(token, state.ports.clock.now()).await?;
    let answer = json!({"name": body.name, "tenant": tenant, "role": body.role, "token": secret.expose()});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn token_revoke(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(name): Path<String>) -> Result<Response> {
    audit(&state, &who, "token.revoke", &name).await?;
    let was_there = state.ports.tokens.revoke(&who.tenant, &name).await?;
    Ok(if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }.into_response())
}

async fn model_evaluate(State(state): State<Shared>, Extension(who): Extension<Principal>) -> Result<Response> {
    audit(&state, &who, "model.evaluate", "").await?;
    Ok(Json(state.ports.operations.evaluate_model(&who).await?).into_response())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    #[serde(default)]
    reason: String,
    /// `next` of the answer before.
    #[serde(default)]
    after: Option<String>,
}

async fn dead_letters_replay(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let request: ReplayBody = if body.is_empty() { ReplayBody::default() } else { read(&body)? };
    audit(&state, &who, "dead_letters.replay", &request.reason).await?;
    let replayed = state.ports.operations.replay_dead_letters(&who, &request.reason, request.after.as_deref()).await?;
    Ok(Json(replayed).into_response())
}

/// The chain runs through the rows of all tenants: who runs the installation may check it.
async fn audit_verify(State(state): State<Shared>, Extension(who): Extension<Principal>) -> Result<Json<Value>> {
    if who.tenant != Tenant::default() {
        refuse(&state, Some(&who), "audit.verify", "it is about all tenants").await;
        return Err(Error::AllTenants);
    }
    Ok(Json(state.ports.operations.verify_audit().await?))
}

async fn settle(State(state): State<Shared>) -> Result<Response> {
    state.ports.operations.settle().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn status_show(State(state): State<Shared>) -> Json<Value> {
    Json(state.ports.operations.status().await)
}

/// Written down before it is done: what cannot be written down is not done.
async fn audit(state: &Shared, who: &Principal, action: &str, object: &str) -> Result<()> {
    let entry = AuditEntry {
        tenant: who.tenant.clone(),
        actor: who.name.clone(),
        action: action.to_owned(),
        object: object.to_owned(),
        refused: None,
    };
    Ok(state.ports.audit.record(entry).await?)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use kiro_ports::RiskRequest;

    use super::{read, scope};
    use crate::Error;

    #[test]
    fn a_query_says_what_a_report_is_about() {
        let uri = "/api/v1/reports/junit?source=https%3A%2F%2Fci%2Facme&run_id=7&attempt=2&branch=&service=shop&time=2026-11-23T09:45:00Z";
        let read = scope(&uri.parse().expect("a URI")).expect("a scope");
        assert_eq!((read.source.as_str(), read.run_id.as_str(), read.attempt), ("https://ci/acme", "7", 2));
        assert_eq!((read.branch, read.service.as_deref()), (None, Some("shop")));
        for (query, problem) in [
            ("run_id=7", "missing field `source`"),
            ("source=s&run_id=", "run_id must not be empty"),
            ("source=s&run_id=7&attempt=x", "invalid digit"),
            ("source=s&run_id=7&time=now", "not an RFC 3339 time"),
            ("source=s&run_id=7&comit_sha=x", "unknown field `comit_sha`"),
        ] {
            let error = scope(&format!("/api/v1/reports/auto?{query}").parse().expect("a URI")).expect_err(query).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn questions_without_measure_are_refused() {
        let many: String = (0..100_000).flat_map(|at| ["\"k".to_owned(), at.to_string(), "\":1,".to_owned()]).collect();
        let large = Bytes::from(format!("{{\"source\":\"s\",\"attributes\":{{{many}\"z\":1}}}}"));
        assert!(matches!(read::<RiskRequest>(&large), Err(Error::TooLarge { .. })));
        let deep = Bytes::from(format!("{{\"source\":{}", "[".repeat(500_000)));
        assert!(matches!(read::<RiskRequest>(&deep), Err(Error::BadRequest { .. })));
        assert!(read::<RiskRequest>(&Bytes::from_static(b"{\"source\":\"s\"}")).is_ok());
    }
}
