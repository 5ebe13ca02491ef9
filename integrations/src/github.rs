//! GitHub: verifies and reads its webhooks, starts its workflows.

mod dispatch;
pub(crate) mod normalise;
mod webhook;

pub use dispatch::{Dispatch, dispatch};
pub use webhook::PLATFORM;
