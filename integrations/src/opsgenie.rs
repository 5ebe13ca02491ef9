//! Opsgenie: verifies and reads its webhooks of alerts.

mod normalise;
mod webhook;

pub use webhook::PLATFORM;
