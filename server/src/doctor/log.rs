//! The event log against the tables: what one has and the other has not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiro_log::{EmbeddedLog, Error, KafkaLog};
use kiro_ports::{EventLog, Watermarks};
use kiro_schemas::{FaultKind, TopicPartition};

use super::tables::Stands;
use super::{Patient, Sheet, checks};
use crate::base;

type Marks = BTreeMap<TopicPartition, Watermarks>;

/// Brokers that are well answer in far less.
const PATIENCE: Duration = Duration::from_secs(15);

/// Compares; whether it is certain that no server runs on the directory.
pub(super) async fn examine(patient: &Patient, stands: &Stands, sheet: &mut Sheet) -> bool {
    let config = &patient.config;
    let topics = base::all_topics(config);
    // A topic that is not read any more may stay as it is.
    for (at, expected, reason) in stands.gaps.iter().filter(|(at, ..)| topics.iter().any(|topic| **topic == *at.topic)) {
        if stands.partitions.get(at).is_some_and(|(least, _)| least == expected) {
            sheet.find(&checks::LOG_STOPPED, at.to_string(), format!("at offset {expected}: {reason}"));
        }
    }
    if let Some(brokers) = &config.raw.log.kafka {
        match KafkaLog::connect(base::kafka(config, brokers), Arc::clone(&patient.clock)) {
            Ok(log) => ask(&log, &topics, stands, sheet).await,
            Err(error) => sheet.find(&checks::LOG_UNREACHABLE, "log.kafka", error.to_string()),
        }
        return false;
    }
    let dir = config.data_dir.join("log");
    if !dir.join("FORMAT").is_file() {
        if stands.partitions.values().any(|(_, most)| *most > 0) {
            sheet.find(&checks::LOG_LOST, dir.display().to_string(), "the tables have offsets of it, and it is not there");
        }
        return true;
    }
    match EmbeddedLog::look(&dir) {
        Ok(marks) => {
            compare(&marks.into_iter().collect(), &topics, stands, sheet);
            true
        }
        Err(error) => {
            let check = match &error {
                Error::InUse { .. } => &checks::LOG_IN_USE,
                Error::Format { .. } => &checks::LOG_NEWER,
                _ => &checks::LOG_DAMAGED,
            };
            sheet.find(check, dir.display().to_string(), error.to_string());
            false
        }
    }
}

/// Asks the brokers.
async fn ask(log: &dyn EventLog, topics: &[String], stands: &Stands, sheet: &mut Sheet) {
    let (mut marks, mut answered) = (Marks::new(), Vec::new());
    for topic in topics {
        let failed = match tokio::time::timeout(PATIENCE, log.watermarks(topic)).await {
            Ok(Ok(found)) => {
                marks.extend(found);
                None
            }
            Ok(Err(error)) if error.kind == FaultKind::NotFound => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        match failed {
            Some(what) => sheet.find(&checks::LOG_UNREACHABLE, topic, what),
            None => answered.push(topic.clone()),
        }
    }
    compare(&marks, &answered, stands, sheet);
}

fn compare(marks: &Marks, topics: &[String], stands: &Stands, sheet: &mut Sheet) {
    sheet.looked_at("partitions of the log", marks.len());
    for topic in topics {
        let is_known = stands.partitions.iter().any(|(at, (_, most))| *at.topic == **topic && *most > 0);
        if is_known && !marks.keys().any(|at| *at.topic == **topic) {
            sheet.find(&checks::LOG_TOPIC, topic, "the tables have offsets of it, and it is not there");
        }
    }
    let is_stopped = |at: &TopicPartition, least: i64| stands.gaps.iter().any(|(gap, expected, _)| gap == at && *expected == least);
    for (at, mark) in marks {
        let Some((least, most)) = stands.partitions.get(at).copied().filter(|(least, _)| !is_stopped(at, *least)) else { continue };
        if most > mark.high {
            sheet.find(&checks::LOG_SHORT, at.to_string(), format!("the log ends at {}, tables stand at {most}", mark.high));
        } else if least < mark.low {
            sheet.find(&checks::LOG_GAP, at.to_string(), format!("the log begins at {}, a table stands at {least}", mark.low));
        }
    }
}
