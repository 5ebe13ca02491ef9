//! What the tests of the whole product share.
//!
//! Must not know: how any crate works inside.

use std::path::PathBuf;

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // Without `tests/..`: rules about paths look for `/tests/`.
    tests.parent().map_or(tests.clone(), PathBuf::from)
}
