//! What platforms send.

use std::sync::atomic::{AtomicUsize, Ordering};

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
use crate::{Error, Result, Shared};

/// A delivery with more bytes is large.
const LARGE: usize = 1 << 20;
/// Large deliveries that are taken at a time. Who sends has proven nothing yet, so this bounds what anybody can make us hold.
const MOST_LARGE: usize = 8;

/// One of the large deliveries that are taken at a time.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize) -> Result<Self> {
        let one_more = |count: usize| (count < MOST_LARGE).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map(|_before| Self(taken)).map_err(|_full| Error::Crowded)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn webhook_take(
    State(state): State<Shared>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    // A body that does not tell its length may be as large as any.
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let (size, limit) = (told.unwrap_or(usize::MAX), state.config.max_body_bytes);
    if told.is_some_and(|size| size > limit) {
        return Err(Error::TooLarge { size, limit });
    }
    let _place = if size > LARGE { Some(Place::take(&state.large)?) } else { None };
    let body =
        axum::body::to_bytes(body, limit).await.map_err(|error| Error::BadRequest { what: format!("the body cannot be read: {error}") })?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::{MOST_LARGE, Place};

    #[test]
    fn places_are_given_back() {
        let taken = AtomicUsize::new(0);
        let all: Vec<_> = (0..MOST_LARGE).map(|_| Place::take(&taken).expect("a place")).collect();
        assert!(Place::take(&taken).is_err());
        drop(all);
        assert!(Place::take(&taken).is_ok());
    }
}
