//! Dead letters that come twice: the log took a record, could not say so, and it was appended again under the same id.

use std::collections::HashMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use kiro_ports::{RECORD_ID, Record, header};
use kiro_schemas::TopicPartition;

use super::window::Key;
use super::worker::Worker;

/// Letters of the lake that are remembered; a record and its repeat lie far closer to each other.
const MOST: usize = 10_000;
/// Letters with the same bytes that are compared.
const MOST_COMPARED: usize = 16;

/// Where the newest dead letters of the lake stand, by the digest of their bytes. Their ids stand in the log.
#[derive(Debug, Default)]
pub(super) struct Letters(HashMap<String, Vec<(TopicPartition, i64)>>);

impl Letters {
    /// The letters of a table.
    pub(super) fn of(batches: &[RecordBatch]) -> Self {
        let mut newest: Vec<(i64, &str, TopicPartition, i64)> = batches.iter().filter_map(rows).flatten().collect();
        newest.sort_unstable_by(|a, b| (b.0, &b.2, b.3).cmp(&(a.0, &a.2, a.3)));
        newest.truncate(MOST);
        let mut all = Self::default();
        for (_, digest, at, offset) in newest {
            all.0.entry(digest.to_owned()).or_default().push((at, offset));
        }
        all
    }

    /// The offsets of other letters of a partition with these bytes, newest first.
    fn others(&self, digest: &str, at: &TopicPartition, offset: i64) -> Vec<i64> {
        let places = self.0.get(digest).into_iter().flatten();
        places.filter(|(place, other)| place == at && *other != offset).map(|(_, other)| *other).take(MOST_COMPARED).collect()
    }
}

/// When, digest and place of each row.
fn rows(batch: &RecordBatch) -> Option<impl Iterator<Item = (i64, &str, TopicPartition, i64)>> {
    let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_view_opt());
    let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let recorded = batch.column_by_name("recorded_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let (digest, topic, partition, offset) = (text("sha256")?, text("_topic")?, int("_partition")?, int("_offset")?);
    Some((0..batch.num_rows()).map(move |row| {
        let at = TopicPartition::new(topic.value(row), i32::try_from(partition.value(row)).unwrap_or(-1));
        (recorded.value(row), digest.value(row), at, offset.value(row))
    }))
}

impl Worker {
    /// Whether a record that cannot be decoded is a dead letter already, from another place in the log.
    pub(super) async fn is_known_letter(&mut self, at: &TopicPartition, record: &Record, digest: &str) -> bool {
        let Some(id) = header(&record.headers, RECORD_ID) else { return false };
        let place = self.window.place(at, record.offset, None);
        if self.window.is_repeat(Key::of(RECORD_ID, RECORD_ID, id), place) {
            return true;
        }
        for other in self.letters.others(digest, at, record.offset) {
            let Some(found) = self.insist_on(at, other).await else { return false };
            if found.is_some_and(|found| header(&found.headers, RECORD_ID) == Some(id)) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use kiro_schemas::{Micros, TopicPartition, Value};
    use kiro_tables::{Rows, Table};

    use super::{Letters, MOST};

    #[test]
    fn others_are_of_the_same_bytes_and_partition_and_the_newest_are_kept() {
        let mut rows = Rows::new(Table::find("dead_letters").expect("a table"));
        let mut letter = |digest: &str, partition: i64, offset: i64| {
            let at = Value::Time(Micros(offset));
            let row = [
                Value::text("default"),
                Value::text("bad"),
                Value::Int(1),
                Value::text(digest.to_owned()),
                at.clone(),
                at,
                Value::text("t"),
                Value::Int(partition),
                Value::Int(offset),
            ];
            rows.push(&row).expect("a row");
        };
        letter("same", 0, 1);
        letter("same", 1, 2);
        for offset in 3..i64::try_from(MOST).expect("small") {
            letter("other", 0, offset);
        }
        for offset in [20_001, 20_002] {
            letter("same", 0, offset);
        }
        let letters = Letters::of(&[rows.finish().expect("rows")]);
        let at = |partition| TopicPartition::new("t", partition);
        assert_eq!(letters.others("same", &at(0), 20_001), [20_002], "itself is no other, and the first is forgotten");
        assert_eq!(letters.others("same", &at(1), 9), [2]);
        assert!(letters.others("none", &at(0), 9).is_empty());
        assert_eq!(letters.others("other", &at(0), 9).len(), 16);
    }
}
