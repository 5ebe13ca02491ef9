//! Documents never run ahead of the code: paths and commands that they name are there.

use std::collections::BTreeSet;

use crate::files;

/// Words in backticks that look like a path of this repository.
fn paths(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|w| w.contains('/') && !w.contains([' ', '{', '<', '*', '…', ':', '$', '=', '(']) && !w.starts_with(['/', '-', '~']))
        .collect()
}

fn folders() -> Vec<String> {
    let root = kiro_tests::root();
    let entries = std::fs::read_dir(root).expect("a readable root").flatten();
    entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn named_paths_exist() {
    let root = kiro_tests::root();
    let folders = folders();
    let mut missing = Vec::new();
    for document in files(&root, "md") {
        let text = std::fs::read_to_string(&document).expect("a readable document");
        for path in paths(&text) {
            let first = path.split('/').next().unwrap_or(path);
            if folders.iter().any(|f| f == first) && !root.join(path).exists() {
                missing.push(format!("{}: `{path}`", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "documents name what is not there:\n{}", missing.join("\n"));
}

#[test]
fn named_make_targets_exist() {
    let root = kiro_tests::root();
    let makefile = std::fs::read_to_string(root.join("Makefile")).expect("a Makefile");
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name).collect();
    for document in files(&root, "md") {
        let text = std::fs::read_to_string(&document).expect("a readable document");
        for words in text.split('`').skip(1).step_by(2).filter_map(|w| w.strip_prefix("make ")) {
            let target = words.split_whitespace().next().unwrap_or(words);
            assert!(targets.contains(target), "{}: `make {target}` is not there", document.display());
        }
    }
}

/// The runbook tells of everything that asks for a person: each finding of the doctor and each alert has a heading of its own.
#[test]
fn the_runbook_knows_every_finding_and_alert() {
    let root = kiro_tests::root();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("a readable file");
    let runbook = read("docs/operations.md");
    let headings: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let is_check = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_');
    let checks = read("server/src/doctor/checks.rs");
    let mut named: BTreeSet<&str> = checks.split('"').skip(1).step_by(2).filter(is_check).collect();
    let rules = read("deploy/prometheus/kirolinter.rules.yml");
    named.extend(rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")));
    assert!(named.len() > 30, "only {} were found", named.len());
    let missing: Vec<_> = named.difference(&headings).collect();
    assert!(missing.is_empty(), "docs/operations.md has no heading for {missing:?}");
    let stale: Vec<_> = headings.difference(&named).collect();
    assert!(stale.is_empty(), "docs/operations.md tells of what is not there: {stale:?}");
}
