//! Versions over a hundred days: who asks as of what is kept gets the same answer, and the next revision is a new one.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use kiro_schemas::{Kind, Micros, Value};
use kiro_tables::{Rows, Table};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{DAY, HOUR, Level, thin};

const NOW: Micros = Micros(200 * DAY + HOUR / 2);

/// One version: key, revision, when it was recorded.
type Version = (u8, i64, i64);

fn table() -> &'static Table {
    Table::find("pipeline_health").expect("a table")
}

fn batch(versions: &[Version]) -> RecordBatch {
    let mut rows = Rows::new(table());
    for (key, rev, recorded_at) in versions {
        let value = |name: &str, kind: Kind| match (name, kind) {
            ("pipeline", _) => Value::text(key.to_string()),
            ("_rev", _) => Value::Int(*rev),
            ("recorded_at", _) => Value::Time(Micros(*recorded_at)),
            (_, Kind::Text) => Value::text("-"),
            (_, Kind::Time) => Value::Time(Micros(0)),
            (_, Kind::Float) => Value::Float(0.5),
            _ => Value::Int(0),
        };
        rows.push(&table().columns.iter().map(|c| value(c.name, c.kind)).collect::<Vec<_>>()).expect("a row");
    }
    rows.finish().expect("rows")
}

fn thinned(versions: &[Version], now: Micros) -> Vec<Version> {
    let half = versions.len() / 2;
    let batches = [batch(&versions[..half]), batch(&versions[half..])];
    let stays = thin(table(), &batches, now).expect("versions");
    versions.iter().zip(stays).filter_map(|((key, _, at), rev)| Some((*key, rev?, *at))).collect()
}

/// The current version of each key as of a time: when it was recorded.
fn as_of(versions: &[Version], at: i64) -> BTreeMap<u8, i64> {
    let mut best = BTreeMap::<u8, (i64, i64)>::new();
    for (key, rev, recorded_at) in versions.iter().filter(|(_, _, recorded_at)| *recorded_at <= at) {
        let slot = best.entry(*key).or_insert((*rev, *recorded_at));
        *slot = (*slot).max((*rev, *recorded_at));
    }
    best.into_iter().map(|(key, (_, at))| (key, at)).collect()
}

#[test]
fn a_week_stays_then_hours_then_days() {
    let at = |age: i64, more: i64| (NOW.0 - age).div_euclid(DAY) * DAY + more;
    let young = [(1, 0, at(6 * DAY, 1)), (1, 1, at(6 * DAY, 2))];
    assert_eq!(thinned(&young, NOW), young);
    let hours = [(1, 0, at(8 * DAY, 1)), (1, 1, at(8 * DAY, 2)), (1, 2, at(8 * DAY, HOUR)), (2, 0, at(8 * DAY, 3))];
    assert_eq!(thinned(&hours, NOW), [(1, 0, at(8 * DAY, 2)), (1, 1, at(8 * DAY, HOUR)), (2, 0, at(8 * DAY, 3))]);
    let days = [(1, 0, at(92 * DAY, 1)), (1, 1, at(92 * DAY, HOUR)), (1, 2, at(91 * DAY, 0))];
    assert_eq!(thinned(&days, NOW), [(1, 0, at(92 * DAY, HOUR)), (1, 1, at(91 * DAY, 0))]);
    // Where the first versions are elsewhere the others keep their numbers.
    let later = [(1, 3, at(92 * DAY, 1)), (1, 4, at(92 * DAY, 2))];
    assert_eq!(thinned(&later, NOW), [(1, 4, at(92 * DAY, 2))]);
    let sparse = [(1, 0, at(92 * DAY, 1)), (1, 5, at(92 * DAY, 2))];
    assert_eq!(thinned(&sparse, NOW), [(1, 5, at(92 * DAY, 2))]);
}

#[test]
fn as_of_what_is_kept_the_answer_is_the_same() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut versions = Vec::new();
        for key in 0..4 {
            let mut at = NOW.0 - random.gen_range(0..150) * DAY;
            for rev in 0..random.gen_range(1..30) {
                versions.push((key, rev, at));
                // The clock may go back.
                let most = if random.gen_bool(0.2) { DAY } else { HOUR };
                at += random.gen_range(-HOUR..3 * most);
            }
        }
        versions.retain(|(_, _, at)| *at <= NOW.0);
        let mut elsewhere = Vec::new();
        if random.gen_bool(0.5) {
            // A part is in files that are not at hand; the first are, or are not.
            let is_first = random.gen_bool(0.5);
            let cut = random.gen_range(1..20);
            (elsewhere, versions) = versions.into_iter().partition(|(_, rev, _)| (*rev >= cut) == is_first);
        }
        let whole = |part: &[Version]| part.iter().chain(&elsewhere).copied().collect::<Vec<_>>();
        let (before, after) = (whole(&versions), whole(&thinned(&versions, NOW)));
        let (week, quarter) = (NOW.0 - 7 * DAY, NOW.0 - 90 * DAY);
        let ends = (0..160 * 24).map(|hour| (NOW.0 / HOUR - hour) * HOUR - 1).filter(|at| *at > quarter || (at + 1) % DAY == 0);
        let moments = (0..100).map(|_| random.gen_range(week..=NOW.0)).collect::<Vec<_>>();
        for at in ends.chain(moments) {
            assert_eq!(as_of(&before, at), as_of(&after, at), "seed {seed}, as of {at}");
        }
        let distinct: std::collections::BTreeSet<_> = after.iter().map(|(key, rev, _)| (key, rev)).collect();
        assert_eq!(distinct.len(), after.len(), "seed {seed}: a revision stands twice");
        let newest = |of: &[Version]| of.iter().filter(|v| v.0 == 0).map(|v| v.1).max();
        assert!(newest(&after) <= newest(&before), "seed {seed}: revisions that nobody gave");
        assert_eq!(thinned(&thinned(&versions, NOW), NOW), thinned(&versions, NOW), "seed {seed}: twice is once");
    }
}

#[test]
fn the_name_tells_how_far_it_is_thinned() {
    for (age, level) in [(0, Level::All), (8, Level::Hourly), (92, Level::Daily)] {
        assert_eq!(Level::due(Micros(NOW.0 - age * DAY), NOW), level);
        assert_eq!(Level::of(&format!("part-0{}.zstd.parquet", level.mark())), level);
    }
}
