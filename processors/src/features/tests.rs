//! Features against an oracle that is written from their definitions and knows no state.

use std::sync::Arc;

use proptest::prelude::*;

use super::history::{Began, Ended, History, Name};

#[derive(Debug, Clone, Copy)]
struct Fact {
    start: i64,
    known_at: i64,
    label: Option<bool>,
    kind: bool,
}

const SECOND: i64 = 1_000_000;

fn log1p(micros: i64) -> f64 {
    (micros as f64 / 1e6).max(0.0).ln_1p()
}

/// The 19 history features (hour and weekday left out) of a run that begins at `at`.
fn oracle(all: &[Fact], at: i64, kind: bool) -> Vec<f64> {
    let mut known: Vec<_> = all.iter().enumerate().filter(|(_, f)| f.start < at && f.known_at <= at).collect();
    known.sort_by_key(|(i, f)| (f.start, *i));
    let ended = known.len();
    let known: Vec<_> = known.into_iter().filter_map(|(_, f)| f.label.map(|y| (f, f64::from(u8::from(y))))).collect();
    let labels: Vec<f64> = known.iter().map(|(_, y)| *y).collect();
    let n = labels.len();
    let back = |i: usize| if n >= i { labels[n - i] } else { 0.0 };
    let mut row = vec![back(1), back(2)];
    for window in [3, 5, 10, 20, 50, 100, 300] {
        let newest: Vec<_> = labels.iter().rev().take(window).collect();
        row.push(if newest.is_empty() { 0.0 } else { newest.iter().copied().sum::<f64>() / newest.len() as f64 });
    }
    let decay = |weight: f64, labels: &mut dyn Iterator<Item = f64>| labels.fold(0.3, |e, y| e + weight * (y - e));
    for half_life in [2.0, 8.0, 40.0] {
        row.push(decay(1.0 - 0.5_f64.powf(1.0 / half_life), &mut labels.iter().copied()));
    }
    let same: Vec<f64> = known.iter().filter(|(f, _)| f.kind == kind).map(|(_, y)| *y).collect();
    row.push(same.last().copied().unwrap_or(0.0));
    row.push(decay(0.2, &mut same.iter().copied()));
    let earlier: Vec<_> = all.iter().map(|f| f.start).filter(|s| *s < at).collect();
    let first = earlier.iter().min().copied().unwrap_or(at);
    row.push(log1p(at - earlier.iter().max().copied().unwrap_or(at)));
    row.push(log1p(at - known.last().map_or(first, |(f, _)| f.start)));
    row.push(((earlier.len() - ended) as f64).ln_1p());
    let length = labels.iter().rev().take_while(|y| Some(*y) == labels.last()).count() as f64;
    row.push(if labels.last() == Some(&1.0) { length.ln_1p() } else { -length.ln_1p() });
    row.push(log1p(at - known.iter().rev().find(|(_, y)| *y > 0.5).map_or(first, |(f, _)| f.start)));
    row
}

fn put(history: &mut History, key: usize, fact: &Fact) {
    let name = Arc::new(Name { id: format!("{key:04}").into(), attempt: 1 });
    let key = key as u128;
    let began = Began { start: fact.start, key, name: Arc::clone(&name), is_pull_request: fact.kind, declared: vec![] };
    let ended = Ended { known_at: fact.known_at, start: fact.start, key, name, is_failure: fact.label, is_pull_request: fact.kind };
    history.replace(key, (None, None), (Some(began), Some(ended)));
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let fact = (0_i64..5000, 1_i64..300, prop::option::weighted(0.9, any::<bool>()), any::<bool>());
    prop::collection::vec(fact, 0..60).prop_map(|facts| {
        facts.into_iter().map(|(s, d, label, kind)| Fact { start: s * SECOND, known_at: (s + d) * SECOND, label, kind }).collect()
    })
}

proptest! {
    #[test]
    fn agree_with_the_oracle_at_moments_in_any_order(facts in facts(), moments in prop::collection::vec((0_i64..6000, any::<bool>()), 1..8), split in 0_usize..60) {
        let mut history = History::default();
        for (i, fact) in facts.iter().enumerate() {
            if i == split {
                history.at(2500 * SECOND, false);
            }
            put(&mut history, i, fact);
        }
        for (second, kind) in moments {
            let (row, _) = history.at(second * SECOND, kind);
            for (found, expected) in row.iter().zip(oracle(&facts, second * SECOND, kind)) {
                prop_assert!((found - expected).abs() < 1e-9, "{:?} {:?}", row, oracle(&facts, second * SECOND, kind));
            }
        }
    }

    #[test]
    fn know_nothing_of_later_runs(facts in facts(), second in 0_i64..6000) {
        let (mut whole, mut cut) = (History::default(), History::default());
        for (i, fact) in facts.iter().enumerate() {
            put(&mut whole, i, fact);
            if fact.start < second * SECOND {
                // What is known later may be anything.
                let label = if fact.known_at > second * SECOND { fact.label.map(|y| !y) } else { fact.label };
                put(&mut cut, i, &Fact { label, ..*fact });
            }
        }
        prop_assert_eq!(whole.at(second * SECOND, true), cut.at(second * SECOND, true));
    }
}

#[test]
fn twins_are_ordered_by_name_not_by_digest() {
    let rows = [[0, 1], [1, 0]].map(|keys| {
        let mut history = History::default();
        for (key, (name, is_failure)) in keys.into_iter().zip([("a", true), ("b", false)]) {
            let name = Arc::new(Name { id: name.into(), attempt: 1 });
            let began = Began { start: 0, key, name: Arc::clone(&name), is_pull_request: false, declared: vec![] };
            let ended = Ended { known_at: SECOND, start: 0, key, name, is_failure: Some(is_failure), is_pull_request: false };
            history.replace(key, (None, None), (Some(began), Some(ended)));
        }
        history.at(100 * SECOND, false).0
    });
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[0][..2], [0.0, 1.0], "b came last, a before it");
}

#[test]
fn times_count_in_seconds() {
    let mut history = History::default();
    put(&mut history, 0, &Fact { start: 0, known_at: 10 * SECOND, label: Some(true), kind: false });
    let (row, known) = history.at(100 * SECOND, false);
    assert_eq!((known, row.len()), (1, kiro_tables::feature_names().len()));
    assert!((row[14] - 101_f64.ln()).abs() < 1e-12, "gap of 100 seconds");
}
