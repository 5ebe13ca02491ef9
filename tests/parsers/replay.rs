//! Seeds, and what is near them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::mutate::{Dice, mutate};
use crate::parsers;

/// Mutations of each seed. The fuzz targets look longer.
const MUTATIONS: usize = 60;
/// Parsers that no other crate sees; their crates replay their seeds.
const ELSEWHERE: &[&str] = &["embedded_record", "lake_commit", "psql_bytes", "psql_session", "server_config", "spill_segment", "sql_text"];

fn corpus() -> PathBuf {
    kiro_tests::root().join("fuzz/corpus")
}

fn seeds(parser: &str) -> Vec<Vec<u8>> {
    let folder = corpus().join(parser);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

#[test]
fn every_parser_survives_its_seeds_and_what_is_near() {
    for (name, parse) in parsers::PARSERS {
        let seeds = seeds(name);
        assert!(seeds.len() > 1, "{name} has no seeds");
        let mut dice = Dice(2026);
        for seed in &seeds {
            parse(seed);
            for _ in 0..MUTATIONS {
                let bytes = mutate(seed, &mut dice);
                let told = std::panic::catch_unwind(|| parse(&bytes));
                assert!(told.is_ok(), "{name}: {}", bytes.escape_ascii());
            }
        }
    }
}

#[test]
fn every_folder_of_seeds_has_a_parser_and_a_target() {
    let folders = std::fs::read_dir(corpus()).expect("seeds").flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let known: BTreeSet<String> =
        parsers::PARSERS.iter().map(|(name, _)| *name).chain(ELSEWHERE.iter().copied()).map(str::to_owned).collect();
    assert_eq!(folders.collect::<BTreeSet<_>>(), known);
    let manifest = std::fs::read_to_string(kiro_tests::root().join("fuzz/Cargo.toml")).expect("a manifest");
    for (name, _) in parsers::PARSERS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no fuzz target");
    }
}
