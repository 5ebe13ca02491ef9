//! How what posts to DevLake sends.
//!
//! # Source
//! Apache DevLake, plugin `webhook`: `POST …/deployments` and `POST …/issues` with `Authorization: Bearer <key>`. Both bodies come to one
//! address here.

use super::normalise;
use crate::platform::{Platform, Proof};

/// Whatever posts to DevLake's webhooks.
pub static PLATFORM: Platform = Platform {
    name: "devlake",
    proofs: &[Proof::Token { header: "authorization", prefix: "Bearer " }],
    event_header: None,
    delivery_headers: &[],
    secret_fields: &[],
    events: &[("", normalise::body)],
    backfill: None,
};
