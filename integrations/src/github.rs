//! GitHub: verifies and reads its webhooks, starts its workflows.

mod dispatch;
mod normalise;
mod payload;
mod verify;

pub use dispatch::{Dispatch, dispatch};
pub use normalise::GithubNormaliser;
pub use verify::{Refusal, verify};
