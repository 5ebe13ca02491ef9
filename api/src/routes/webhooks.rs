//! What platforms send.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiro_ports::Taken;
use kiro_schemas::FaultKind;
use serde_json::json;

use super::plain;
use crate::access::refuse;
use crate::{Error, Result, Shared, delivery};

pub(super) async fn webhook_take(
    State(state): State<Shared>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let limit = state.config.max_body_bytes;
    if let Some(size) = told.filter(|size| *size > limit) {
        return Err(Error::TooLarge { size, limit });
    }
    let (body, _place) = delivery::read(body, limit, &state.places).await?;
    let taken = state.ports.intake.webhook(&source, &plain(&headers), body).await;
    if let Err(error) = &taken
        && error.kind == FaultKind::Unauthenticated
    {
        refuse(&state, None, &format!("POST /webhooks/{source}"), &error.to_string()).await;
    }
    let answer = match taken? {
        Taken::Appended => json!({"accepted": 1}),
        Taken::Known => json!({"accepted": 0, "known": "this delivery was taken before"}),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}
