//! How Gitea sends.
//!
//! # Source
//! Gitea Docs, "Webhooks": `X-Gitea-Signature: <hex HMAC-SHA256(secret, raw body)>`, `X-Gitea-Event`, `X-Gitea-Delivery`. Before 1.14
//! the body held the secret.

use super::normalise;
use crate::platform::{Platform, Proof};

/// Gitea and Forgejo.
pub static PLATFORM: Platform = Platform {
    name: "gitea",
    proofs: &[Proof::Hmac { header: "x-gitea-signature", prefix: "" }],
    event_header: Some("x-gitea-event"),
    delivery_headers: &["x-gitea-delivery"],
    secret_fields: &["secret", "token"],
    events: &[
        ("push", normalise::push),
        ("pull_request", normalise::pull_request),
        ("pull_request_approved", normalise::pull_request),
        ("pull_request_rejected", normalise::pull_request),
        ("issues", normalise::issue),
        ("release", normalise::release),
    ],
    backfill: None,
};
