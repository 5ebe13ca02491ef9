//! Gitea and Forgejo: verifies and reads their webhooks.

mod normalise;
mod webhook;

pub use webhook::PLATFORM;
