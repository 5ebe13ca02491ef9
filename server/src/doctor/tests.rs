//! What needs a log of a certain shape, or no disk at all. The damages of directories are in the tests of the whole product.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kiro_log::{EmbeddedLog, EmbeddedOptions};
use kiro_ports::{EventLog, NewRecord, SystemClock};
use kiro_schemas::TopicPartition;

use super::files::shortage;
use super::tables::Stands;
use super::{Patient, Sheet, log};
use crate::config::{Overrides, parse, validate};
use crate::role::Role;

#[test]
fn little_room_is_little_of_the_disk() {
    let check = |free: u64, all: u64| shortage(free << 20, all << 20).map(|check| check.id);
    assert_eq!(check(0, 24), Some("data.disk_full"));
    assert_eq!(check(1, 24), Some("data.disk_low"));
    assert_eq!(check(3, 24), None);
    assert_eq!((check(60, 1 << 20), check(1_000, 1 << 20), check(1_100, 1 << 20)), (Some("data.disk_full"), Some("data.disk_low"), None));
}

async fn told(patient: &Patient, least: i64, most: i64, gaps: &[i64]) -> Vec<(&'static str, String)> {
    let at = TopicPartition::new("kiro.events", 0);
    let gaps = gaps.iter().map(|expected| (at.clone(), *expected, "gone".to_owned())).collect();
    let stands = Stands { partitions: BTreeMap::from([(at, (least, most))]), gaps };
    let mut sheet = Sheet::default();
    assert!(log::examine(patient, &stands, &mut sheet).await, "no server has the log");
    sheet.findings.into_iter().map(|finding| (finding.check, finding.what)).collect()
}

#[tokio::test]
async fn offsets_are_compared_with_what_the_log_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = EmbeddedOptions { segment_bytes: 1, retention_bytes: Some(1), ..EmbeddedOptions::default() };
    let log = EmbeddedLog::open(&dir.path().join("log"), options, Arc::new(SystemClock)).expect("a log");
    log.ensure_topic("kiro.events", 1).await.expect("a topic");
    for _ in 0..6 {
        let record = NewRecord { topic: "kiro.events".to_owned(), value: Bytes::from_static(b"{}"), ..NewRecord::default() };
        log.append(vec![record]).await.expect("appended");
    }
    log.enforce_retention().await.expect("swept");
    let marks = log.watermarks("kiro.events").await.expect("marks")[0].1;
    assert!(marks.low > 2 && marks.high == 6, "{marks:?}");
    drop(log);
    let overrides = Overrides { data_dir: Some(dir.path().to_owned()), ..Overrides::default() };
    let config = validate(parse("").expect("a file"), Role::Up, overrides).expect("a configuration");
    let patient = Patient { config, clock: Arc::new(SystemClock), store: None, lake: None, files: None };
    assert!(told(&patient, marks.low, 6, &[]).await.is_empty());
    let gap = told(&patient, 2, 2, &[]).await;
    assert_eq!(gap, [("log.gap", format!("the log begins at {}, a table stands at 2", marks.low))]);
    assert_eq!(told(&patient, 2, 2, &[2]).await, [("log.stopped", "at offset 2: gone".to_owned())]);
    assert!(told(&patient, 6, 6, &[2]).await.is_empty(), "a gap of before");
    assert_eq!(told(&patient, 6, 7, &[]).await, [("log.short", "the log ends at 6, tables stand at 7".to_owned())]);
}
