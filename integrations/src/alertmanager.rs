//! Prometheus' Alertmanager: verifies and reads its notifications.

mod normalise;
mod webhook;

pub use webhook::PLATFORM;
