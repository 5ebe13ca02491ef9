//! GitLab: reads its past; verifies and reads its webhooks, those of projects and groups and system hooks.

mod backfill;
mod client;
mod normalise;
mod webhook;

pub use webhook::PLATFORM;
