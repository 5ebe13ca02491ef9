//! GitLab: verifies and reads its webhooks, those of projects and groups and system hooks.

mod normalise;
mod webhook;

pub use webhook::PLATFORM;
