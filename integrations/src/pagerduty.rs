//! PagerDuty: verifies and reads its webhooks of incidents.

mod normalise;
mod webhook;

pub use webhook::PLATFORM;
