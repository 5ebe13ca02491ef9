//! Persons: which pseudonym a name has, and that it is forgotten. Names are written down nowhere, pseudonyms are.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use kiro_ports::Principal;
use serde_json::json;

use super::audit;
use crate::{Error, Result, Shared};

pub(super) fn all() -> Router<Shared> {
    Router::new().route("/api/v1/persons/{name}", get(person_show).delete(person_forget))
}

/// The pseudonym of a name, after it is written down that it was asked for.
async fn known(state: &Shared, who: &Principal, action: &str, name: &str) -> Result<String> {
    let pseudonym = state.ports.persons.pseudonym(&who.tenant, name).await?.ok_or(Error::UnknownPerson)?;
    audit(state, who, action, &pseudonym).await?;
    Ok(pseudonym)
}

async fn person_show(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(name): Path<String>) -> Result<Response> {
    Ok(Json(json!({"pseudonym": known(&state, &who, "person.show", &name).await?})).into_response())
}

async fn person_forget(State(state): State<Shared>, Extension(who): Extension<Principal>, Path(name): Path<String>) -> Result<Response> {
    known(&state, &who, "person.forget", &name).await?;
    let forgotten = state.ports.persons.forget(&who.tenant, &name, state.ports.clock.now()).await?;
    Ok(Json(json!({"pseudonym": forgotten.ok_or(Error::UnknownPerson)?})).into_response())
}
