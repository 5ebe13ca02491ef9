//! How GitHub sends.
//!
//! # Source
//! GitHub Docs, "Validating webhook deliveries": `X-Hub-Signature-256: sha256=<hex HMAC-SHA256(secret, raw body)>`.

use super::backfill::BACKFILL;
use super::normalise::{changes, checks, deployments, issues, runs, versions};
use crate::platform::{Platform, Proof};

/// GitHub, and servers of one's own.
pub static PLATFORM: Platform = Platform {
    name: "github",
    proofs: &[Proof::Hmac { header: "x-hub-signature-256", prefix: "sha256=" }],
    event_header: Some("x-github-event"),
    delivery_headers: &["x-github-delivery"],
    // What a hook, an alert, a dispatch and a deployment may carry; a token of some deliveries to apps.
    secret_fields: &["secret", "temp_clone_token", "token", "inputs", "client_payload", "payload"],
    events: &[
        ("workflow_run", runs::workflow_run),
        ("workflow_job", runs::workflow_job),
        ("check_run", checks::check_run),
        ("check_suite", checks::check_suite),
        ("status", checks::status),
        ("branch_protection_rule", checks::branch_rule),
        ("deployment", deployments::deployment),
        ("deployment_status", deployments::deployment),
        ("pull_request", changes::pull_request),
        ("pull_request_review", changes::review),
        ("merge_group", changes::merge_group),
        ("push", changes::push),
        ("issues", issues::issue),
        ("release", versions::release),
        ("create", versions::reference_created),
        ("delete", versions::reference_deleted),
    ],
    backfill: Some(&BACKFILL),
};
