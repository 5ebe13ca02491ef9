//! How PagerDuty sends.
//!
//! # Source
//! PagerDuty Developer Docs, "Webhooks V3": `X-PagerDuty-Signature: v1=<hex HMAC-SHA256(secret, raw body)>`, one for each live secret,
//! separated by commas.

use super::normalise;
use crate::platform::{Platform, Proof};

/// PagerDuty, webhooks of version 3.
pub static PLATFORM: Platform = Platform {
    name: "pagerduty",
    proofs: &[Proof::Hmac { header: "x-pagerduty-signature", prefix: "v1=" }],
    event_header: None,
    delivery_headers: &[],
    // It has the number and the code of a telephone conference.
    secret_fields: &["conference_bridge"],
    events: &[("", normalise::incident)],
    backfill: None,
};
