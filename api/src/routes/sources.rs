//! Sources: who may send webhooks.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use kiro_ports::{AddedSource, ExplainRequest, NewSource, Principal, ReplayRequest};
use kiro_schemas::Secret;
use serde_json::json;

use super::{audit, read};
use crate::{Result, Shared};

pub(super) fn all() -> Router<Shared> {
    Router::new()
        .route("/api/v1/sources", get(sources_list).post(source_add))
        .route("/api/v1/sources/explain", post(source_explain))
        .route("/api/v1/sources/replay", post(source_replay))
        .route("/api/v1/sources/{name}", delete(source_remove))
        .route("/api/v1/sources/{name}/rotate", post(source_rotate))
        .route("/api/v1/sources/{name}/test", post(source_test))
}

/// The one answer that holds a secret.
fn shown(added: &AddedSource) -> serde_json::Value {
    json!({"source": added.source, "secret": added.secret.as_ref().map(Secret::expose)})
}

async fn sources_list(State(state): State<Shared>, Extension(who): Extension<Principal>) -> Result<Response> {
    Ok(Json(json!({"sources": state.ports.sources.list(&who).await?})).into_response())
}

async fn source_add(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let source: NewSource = read(&body)?;
    audit(&state, &who, "source.add", source.name.as_deref().unwrap_or(&source.platform)).await?;
    let added = state.ports.sources.add(&who, source).await?;
    Ok((StatusCode::CREATED, Json(shown(&added))).into_response())
}

async fn source_remove(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(name): Path<String>) -> Result<Response> {
    audit(&state, &who, "source.remove", &name).await?;
    state.ports.sources.remove(&who, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn source_rotate(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(name): Path<String>) -> Result<Response> {
    audit(&state, &who, "source.rotate", &name).await?;
    Ok(Json(shown(&state.ports.sources.rotate(&who, &name).await?)).into_response())
}

async fn source_test(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(name): Path<String>) -> Result<Response> {
    Ok(Json(state.ports.sources.test(&who, &name).await?).into_response())
}

async fn source_replay(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let request: ReplayRequest = read(&body)?;
    audit(&state, &who, "source.replay", &request.platform).await?;
    Ok(Json(state.ports.sources.replay(&who, request).await?).into_response())
}

async fn source_explain(State(state): State<Shared>, Extension(who): Extension<Principal>, body: Bytes) -> Result<Response> {
    let request: ExplainRequest = read(&body)?;
    Ok(Json(state.ports.sources.explain(&who, request).await?).into_response())
}
