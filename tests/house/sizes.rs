//! Files stay small: 500 lines of product code at most.

use crate::files;

const MOST_LINES: usize = 500;
/// Files that hold data alone.
const TABLES: &[&str] = &["schemas/src/subject/specs.rs", "ingest/src/decode/cdevents/spec.rs"];

fn is_product(path: &str) -> bool {
    !path.contains("/tests/")
        && !path.ends_with("/tests.rs")
        && !path.contains("/benches/")
        && !TABLES.iter().any(|table| path.ends_with(table))
}

#[test]
fn no_file_is_long() {
    let long: Vec<String> = files(&kiro_tests::root(), "rs")
        .into_iter()
        .filter(|path| is_product(&path.to_string_lossy()))
        .filter_map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")).count();
            (lines > MOST_LINES).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    let seen = files(&kiro_tests::root(), "rs").iter().filter(|path| is_product(&path.to_string_lossy())).count();
    assert!(seen > 50, "only {seen} files were looked at");
    assert!(long.is_empty(), "split along an idea:\n{}", long.join("\n"));
}
