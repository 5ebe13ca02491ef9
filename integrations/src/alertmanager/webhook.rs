//! How Alertmanager sends.
//!
//! # Source
//! Prometheus Docs, "Alerting configuration", `webhook_config`: notifications are not signed; `http_config.authorization` sends
//! `Authorization: Bearer <credentials>`.

use super::normalise;
use crate::platform::{Platform, Proof};

/// Prometheus' Alertmanager.
pub static PLATFORM: Platform = Platform {
    name: "alertmanager",
    proofs: &[Proof::Token { header: "authorization", prefix: "Bearer " }],
    event_header: None,
    delivery_headers: &[],
    secret_fields: &[],
    events: &[("", normalise::notification)],
    backfill: None,
};
