//! GitHub: verifies and reads its webhooks, reads its past, starts its workflows.

mod backfill;
mod client;
mod dispatch;
pub(crate) mod normalise;
mod webhook;

pub use dispatch::{Dispatch, dispatch};
pub use webhook::PLATFORM;
