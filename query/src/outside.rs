//! Bytes from outside: seeds of SQL texts and of the psql wire, and mutations of them. Nothing panics, everything ends.

use std::path::Path;
use std::time::Duration;

use kiro_ports::SqlRequest;

use crate::fixture::{engine, request, run};
use crate::{Door, Error};

#[expect(unreachable_pub, reason = "the file belongs to the fuzz targets")]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;

pub(crate) use mutate::Dice;
use mutate::mutate;

/// The seeds of a parser, each followed by mutations of it.
pub(crate) fn inputs(parser: &str, mutations: usize) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(parser);
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("seeds").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let (mut dice, mut all) = (Dice(2026), Vec::new());
    for path in paths {
        let seed = std::fs::read(path).expect("a seed");
        all.extend((0..mutations).map(|_| mutate(&seed, &mut dice)));
        all.push(seed);
    }
    assert!(all.len() > 2 * mutations, "{parser} has no seeds");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_answered_or_refused() {
    let memory = std::sync::Arc::new(crate::fixture::Memory::default());
    memory.tail("pipeline_runs", run("default", "1", 0, 1, "main"));
    let engine = engine(memory);
    for bytes in inputs("sql_text", 20) {
        let sql = String::from_utf8_lossy(&bytes).into_owned();
        for door in [Door::Api, Door::Psql] {
            let question = SqlRequest { timeout: Duration::from_secs(10), ..request(&sql) };
            let answer = tokio::time::timeout(Duration::from_secs(30), engine.ask(question, door)).await;
            let end = answer.unwrap_or_else(|_elapsed| panic!("{door:?}: no answer to {sql:?}"));
            // A panic of the engine loses the answer.
            let is_bad = matches!(&end, Err(Error::Lost | Error::TimedOut { .. }));
            assert!(!is_bad, "{door:?}: {:?} at {sql:?}", end.err());
        }
    }
}

/// Settings as a client sends them at its start, and as statements: read or refused.
#[test]
fn settings_and_copies_are_read_or_refused() {
    for bytes in inputs("psql_session", 200) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        crate::psql::read_all(&text);
    }
}
