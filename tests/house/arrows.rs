//! A library depends on what is said, stored and needed, never on a sibling.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What everyone may see.
const BASE: &[&str] = &["kiro-schemas", "kiro-tables", "kiro-ports"];
/// Listed exceptions: who may see whom besides.
const EXCEPTIONS: &[(&str, &str)] = &[("kiro-query", "kiro-lake"), ("kiro-ingest", "kiro-log")];
/// Only these see everything.
const COMPOSERS: &[&str] = &["kiro-server", "kiro-tests", "kiro-benches"];
/// Heavy crates, and who alone may see them.
const HEAVY: &[(&str, &[&str])] = &[
    ("datafusion", &["kiro-query", "kiro-lake"]),
    ("deltalake", &["kiro-query", "kiro-lake"]),
    ("rdkafka", &["kiro-log"]),
    ("redb", &["kiro-log"]),
    ("sqlx", &["kiro-store"]),
    ("linfa", &["kiro-models"]),
    ("axum", &["kiro-api", "kiro-server", "kiro-tests"]),
    (
        "tokio",
        &[
            "kiro-ingest",
            "kiro-log",
            "kiro-query",
            "kiro-lake",
            "kiro-store",
            "kiro-integrations",
            "kiro-api",
            "kiro-server",
            "kiro-cli",
            "kiro-tests",
        ],
    ),
];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(kiro_tests::root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|d| d["kind"].is_null()).filter_map(|d| d["name"].as_str().map(str::to_owned)).collect()
    };
    metadata["packages"].as_array().into_iter().flatten().map(|p| (p["name"].as_str().unwrap_or("").to_owned(), normal(p))).collect()
}

fn allowed(from: &str, to: &str) -> bool {
    match from {
        "kiro-schemas" => false,
        "kiro-tables" | "kiro-analyzers" => to == "kiro-schemas",
        "kiro-ports" => matches!(to, "kiro-schemas" | "kiro-tables"),
        _ => BASE.contains(&to) || EXCEPTIONS.contains(&(from, to)) || COMPOSERS.contains(&from),
    }
}

#[test]
fn no_arrow_that_is_not_drawn() {
    for (from, dependencies) in dependencies() {
        for to in dependencies.iter().filter(|d| d.starts_with("kiro-")) {
            assert!(allowed(&from, to), "{from} must not depend on {to}");
        }
    }
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    for (from, dependencies) in dependencies() {
        for (heavy, rooms) in HEAVY {
            if dependencies.iter().any(|d| d == heavy) {
                assert!(rooms.contains(&from.as_str()) || COMPOSERS.contains(&from.as_str()), "{from} must not depend on {heavy}");
            }
        }
    }
}

/// The features of every package, with the tests' dependencies or without.
fn features(edges: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--prefix=none", "--format={p} {f}", "--edges", edges])
        .current_dir(kiro_tests::root())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|l| l.trim_end_matches(" (*)")).filter(|l| !l.starts_with("kiro-"));
    lines.map(str::to_owned).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

#[test]
fn programs_and_tests_are_built_with_the_same_features() {
    let (programs, all) = (features("normal,build"), features("normal,build,dev"));
    let differ: Vec<_> = all.iter().filter(|line| !programs.contains(line)).collect();
    assert!(differ.is_empty(), "name these in tests/Cargo.toml, else everything is built twice: {differ:#?}");
    // What only macros and build scripts need is built another way when a test links it too.
    let (linked, linked_by_tests) = (features("normal,no-proc-macro"), features("normal,dev,no-proc-macro"));
    let differ: Vec<_> = linked_by_tests.iter().filter(|line| programs.contains(line) && !linked.contains(line)).collect();
    assert!(differ.is_empty(), "no test may link these, else every macro is built twice: {differ:#?}");
}
