//! The rules of the house, each able to fail: arrows between crates, sizes of files, names in documents.

#![expect(clippy::expect_used, reason = "a rule that cannot be read is broken")]

mod arrows;
mod documents;
mod generated;
mod sizes;

use std::path::{Path, PathBuf};

/// All files below a folder with an extension, without what was built.
fn files(below: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                let is_ours = !matches!(name.to_str(), Some("target" | ".git" | "data" | "node_modules" | ".venv"));
                folders.extend(is_ours.then_some(path));
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
