//! Other people's APIs: webhooks and history in, triggers out. One folder a platform.
//!
//! Must not know: the event log, the lake, routes, the control store.
//!
//! Entry points: [`platforms`] (webhooks in), [`backfill::Walk`] (history in), [`backfill::reach`] (what a token permits),
//! [`communication::webhook`] (signatures out), [`Deliverer`] (what waits in the outbox).
//!
//! ```text
//! request ── verify (raw bytes) ── redact ──► log ── normalise ──► Event, Event, …
//! Walk ── ask the API page by page ── as webhooks would tell it ── normalise ──► Event, Event, …
//! outbox ── Deliverer ── sign, check the address ──► receiver ──► Sent::{Arrived, Transient, Permanent}
//! ```

pub mod alertmanager;
pub mod backfill;
pub mod communication;
mod deliver;
pub mod devlake;
mod error;
pub mod gitea;
pub mod github;
pub mod gitlab;
mod hmac256;
pub mod opsgenie;
pub mod outbound;
pub mod pagerduty;
mod platform;
mod reading;

pub use backfill::{Api, Reach, reach};
pub use deliver::{Deliverer, Sent, Target};
pub use error::{Error, Result};
pub use platform::{Platform, Proof, Reader, Refusal, platform, platforms};
