//! How GitLab sends.
//!
//! # Source
//! GitLab Docs, "Webhooks" and "Webhook events": `X-Gitlab-Token` holds the secret itself; with a signing token, the headers of
//! Standard Webhooks hold a signature. `Idempotency-Key` (17.4) stays the same when a delivery is sent again.

use super::backfill::BACKFILL;
use super::normalise::{changes, deployments, issues, runs, system, versions};
use crate::platform::{Platform, Proof};

/// GitLab, and servers of one's own.
pub static PLATFORM: Platform = Platform {
    name: "gitlab",
    proofs: &[Proof::Signed, Proof::Token { header: "x-gitlab-token", prefix: "" }],
    event_header: Some("x-gitlab-event"),
    delivery_headers: &["idempotency-key", "x-gitlab-event-uuid"],
    // A pipeline's variables come with their values.
    secret_fields: &["variables", "secret_token", "token", "runners_token"],
    events: &[
        ("Pipeline Hook", runs::pipeline),
        ("Job Hook", runs::job),
        ("Build Hook", runs::job),
        ("Deployment Hook", deployments::deployment),
        ("Merge Request Hook", changes::merge_request),
        ("Push Hook", changes::push),
        ("Tag Push Hook", versions::tag_push),
        ("Issue Hook", issues::issue),
        ("Confidential Issue Hook", issues::issue),
        ("Release Hook", versions::release),
        ("System Hook", system),
    ],
    backfill: Some(&BACKFILL),
};
