//! How Opsgenie sends.
//!
//! # Source
//! Opsgenie Docs, "Webhook Integration": deliveries are not signed, but may have headers of one's own; give it `Authorization: Bearer
//! <secret>`.

use super::normalise;
use crate::platform::{Platform, Proof};

/// Opsgenie.
pub static PLATFORM: Platform = Platform {
    name: "opsgenie",
    proofs: &[Proof::Token { header: "authorization", prefix: "Bearer " }],
    event_header: None,
    delivery_headers: &[],
    secret_fields: &[],
    events: &[("", normalise::alert)],
    backfill: None,
};
