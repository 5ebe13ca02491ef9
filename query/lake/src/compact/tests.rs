//! Which files are taken together.

use std::collections::HashSet;

use kiro_schemas::Micros;
use kiro_tables::Table;

use super::{DAY, MOST_ROWS, choose, count};
use crate::replay::{Content, DataFile, Files};

const NOW: Micros = Micros(100 * DAY + DAY / 2);

fn file(name: &str, day: i64, rows: u64) -> DataFile {
    let at = Micros(day * DAY + 7);
    DataFile { path: format!("part-{name}.zstd.parquet"), size: rows * 50, content: Some(Content { rows, from: at, to: at }) }
}

fn files(all: Vec<DataFile>) -> Files {
    Files { live: all.into_iter().map(|file| (file.path.clone(), file)).collect(), ..Files::default() }
}

fn chosen(table: &str, files: &Files) -> usize {
    choose(Table::find(table).expect("a table"), files, &HashSet::new(), NOW).len()
}

/// Compacts in mind until nothing is left to do: how many pieces of work that took.
fn settle(table: &str, mut files: Files, now: Micros) -> (usize, Files) {
    for round in 0.. {
        let chosen = choose(Table::find(table).expect("a table"), &files, &HashSet::new(), now);
        if chosen.is_empty() {
            return (round, files);
        }
        let rows = chosen.iter().filter_map(|file| file.content).map(|content| content.rows).sum();
        let from = chosen.iter().filter_map(|file| file.content).map(|content| content.from).min().expect("files");
        let to = chosen.iter().filter_map(|file| file.content).map(|content| content.to).max().expect("files");
        assert!(rows <= MOST_ROWS && chosen.len() > 1);
        for file in &chosen {
            files.live.remove(&file.path);
        }
        let path = format!("part-{round}-{}.zstd.parquet", to.0);
        files.live.insert(path.clone(), DataFile { path, size: rows * 50, content: Some(Content { rows, from, to }) });
    }
    unreachable!("it is bounded by the files")
}

#[test]
fn a_closed_day_becomes_one_file_and_an_open_one_waits_for_enough() {
    let day = |day: i64, count: usize| (0..count).map(move |at| file(&format!("{day}-{at}"), day, 100));
    assert_eq!(chosen("changes_events", &files(day(99, 2).collect())), 2);
    assert_eq!(chosen("changes_events", &files(day(99, 1).collect())), 0);
    assert_eq!(chosen("changes_events", &files(day(100, 7).collect())), 0);
    assert_eq!(chosen("changes_events", &files(day(100, 8).collect())), 8);
    // Two days are not mixed while there are few of them.
    assert_eq!(chosen("changes_events", &files(day(98, 1).chain(day(99, 1)).collect())), 0);
    assert_eq!(chosen("changes_events", &files((80..96).flat_map(|at| day(at, 1)).collect())), 16);
}

#[test]
fn what_waits_is_what_would_be_taken() {
    let day = |day: i64, count: usize| (0..count).map(move |at| file(&format!("{day}-{at}"), day, 100));
    let counted = |all: Vec<DataFile>| count(&files(all), &HashSet::new(), NOW);
    assert_eq!(counted(Vec::new()), (0, 0));
    assert_eq!(counted(day(99, 1).chain(day(100, 7)).collect()), (0, 1), "nothing is due");
    assert_eq!(counted(day(98, 3).chain(day(99, 2)).chain(day(100, 8)).collect()), (13, 3));
    assert_eq!(counted((80..96).flat_map(|at| day(at, 1)).collect()), (16, 1));
    assert_eq!(counted(vec![file("a", 99, MOST_ROWS / 2), file("b", 99, MOST_ROWS)]), (0, 2), "large ones are done with");
}

#[test]
fn large_files_and_those_of_others_are_left_alone() {
    let mut all = vec![file("a", 99, MOST_ROWS / 2), file("b", 99, MOST_ROWS)];
    assert_eq!(chosen("changes_events", &files(all.clone())), 0);
    all.push(file("c", 99, 5));
    all.push(DataFile::new("theirs.parquet".into(), 5, Some(r#"{"numRecords":1}"#)));
    assert_eq!(chosen("changes_events", &files(all)), 0);
}

#[test]
fn old_versions_are_due_although_their_file_is_large() {
    let all = files(vec![file("a", 50, MOST_ROWS), file("b.hourly", 50, MOST_ROWS), file("c", 96, MOST_ROWS)]);
    assert_eq!(chosen("changes_events", &all), 0, "events have no versions");
    assert_eq!(chosen("pipeline_health", &all), 1);
    let all = files(vec![file("a.hourly", 5, MOST_ROWS), file("b.daily", 5, MOST_ROWS)]);
    assert_eq!(chosen("pipeline_health", &all), 1);
}

#[test]
fn it_comes_to_an_end_with_few_files_a_day() {
    // Ten days of a commit every two seconds, looked at when they are over, and while the last one lasts.
    let all = (90..=100).flat_map(|day| (0..3_000).map(move |at| file(&format!("{day}-{at}"), day, 50))).collect();
    let (rounds, left) = settle("changes_events", files(all), NOW);
    for day in 90..100 {
        let of_day = left.live.values().filter(|file| file.content.is_some_and(|c| c.to.0.div_euclid(DAY) == day)).count();
        assert!(of_day <= 16, "{of_day} files of day {day}");
    }
    assert!(left.live.len() < 10 + 7 * 8, "{} files are left", left.live.len());
    assert!(rounds < 11 * 3_000 / 8 * 2, "{rounds} pieces of work");
    // Years of days with little.
    let all = (0..1_000).map(|day| file(&day.to_string(), day - 900, 50)).collect();
    let (_, left) = settle("changes_events", files(all), NOW);
    assert!(left.live.len() < 32, "{} files are left", left.live.len());
}
