//! Dead letters that come twice: the log took a record, could not say so, and it was appended again under the same id.
//!
//! An id begins with when the door took the record, in microseconds, once for each; the lake keeps that as the letter's
//! `known_at`, so that a repeat is known after a restart by the same bytes, taken at the same moment.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use kiro_ports::{Headers, RECORD_ID, Record, header};
use kiro_schemas::{Micros, TopicPartition, Value};

use super::window::Key;
use super::worker::Worker;

/// Letters of the lake that are remembered; a record and its repeat lie far closer to each other.
const MOST: usize = 10_000;
/// Headers of a letter that are kept, and bytes of each.
const MOST_HEADERS: usize = 64;
const MOST_VALUE: usize = 4 << 10;

/// A record's id, and when a door took it.
pub(super) fn id(record: &Record) -> Option<(&str, Micros)> {
    let id = header(&record.headers, RECORD_ID)?;
    let taken_at = Micros(id.split_once('-')?.0.parse().ok()?);
    taken_at.is_storable().then_some((id, taken_at))
}

/// The headers by which the record was read, for the row of a letter; a value that is no text or is long is left out.
pub(super) fn headers(read: &Headers) -> Value<'static> {
    let mut kept = BTreeMap::<&str, &str>::new();
    for (name, value) in read.iter().filter(|(_, value)| value.len() <= MOST_VALUE).take(MOST_HEADERS) {
        if let Ok(value) = std::str::from_utf8(value) {
            kept.entry(name.as_str()).or_insert(value);
        }
    }
    if kept.is_empty() {
        return Value::Null;
    }
    Value::Map(kept.into_iter().map(|(name, value)| (name.to_owned().into(), value.to_owned().into())).collect())
}

/// Where the newest dead letters of the lake stand, by the digest of their bytes and when they were known.
#[derive(Debug, Default)]
pub(super) struct Letters(HashMap<(String, i64), (TopicPartition, i64)>);

impl Letters {
    /// The letters of a table.
    pub(super) fn of(batches: &[RecordBatch]) -> Self {
        let mut newest: Vec<Letter<'_>> = batches.iter().filter_map(rows).flatten().collect();
        newest.sort_unstable_by(|a, b| (b.recorded_at, &b.at, b.offset).cmp(&(a.recorded_at, &a.at, a.offset)));
        newest.truncate(MOST);
        Self(newest.into_iter().map(|letter| ((letter.digest.to_owned(), letter.known_at), (letter.at, letter.offset))).collect())
    }

    /// Whether these bytes, taken at that moment, are a letter of another place.
    fn has_other(&self, digest: &str, taken_at: Micros, place: (&TopicPartition, i64)) -> bool {
        self.0.get(&(digest.to_owned(), taken_at.0)).is_some_and(|(at, offset)| (at, *offset) != place)
    }
}

struct Letter<'b> {
    recorded_at: i64,
    known_at: i64,
    digest: &'b str,
    at: TopicPartition,
    offset: i64,
}

fn rows(batch: &RecordBatch) -> Option<impl Iterator<Item = Letter<'_>>> {
    let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_view_opt());
    let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let time = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let (recorded_at, known_at, digest) = (time("recorded_at")?, time("known_at")?, text("sha256")?);
    let (topic, partition, offset) = (text("_topic")?, int("_partition")?, int("_offset")?);
    Some((0..batch.num_rows()).map(move |row| Letter {
        recorded_at: recorded_at.value(row),
        known_at: known_at.value(row),
        digest: digest.value(row),
        at: TopicPartition::new(topic.value(row), i32::try_from(partition.value(row)).unwrap_or(-1)),
        offset: offset.value(row),
    }))
}

impl Worker {
    /// Whether a record that cannot be decoded is a dead letter already, from another place in the log.
    pub(super) fn is_known_letter(&mut self, at: &TopicPartition, record: &Record, digest: &str) -> bool {
        let Some((id, taken_at)) = id(record) else { return false };
        let place = self.window.place(at, record.offset, None);
        self.window.is_repeat(Key::of(RECORD_ID, RECORD_ID, id), place) || self.letters.has_other(digest, taken_at, (at, record.offset))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiro_ports::{RECORD_ID, Record};
    use kiro_schemas::{Micros, TopicPartition, Value};
    use kiro_tables::{Rows, Table};

    use super::{Letters, MOST, headers, id};

    fn record(id: &str) -> Record {
        let headers = vec![(RECORD_ID.to_owned(), Bytes::copy_from_slice(id.as_bytes()))];
        Record { offset: 0, recorded_at: Micros(0), key: None, value: None, headers }
    }

    #[test]
    fn an_id_begins_with_a_moment() {
        assert_eq!(id(&record("1700000000000001-a")), Some(("1700000000000001-a", Micros(1_700_000_000_000_001))));
        for strange in ["", "a", "1700000000000001", "-1-a", "99999999999999999999-a", "9223372036854775807-a"] {
            assert_eq!(id(&record(strange)), None, "{strange:?}");
        }
        assert_eq!(id(&Record { headers: Vec::new(), ..record("") }), None);
    }

    #[test]
    fn a_row_has_what_it_takes_to_read_the_bytes() {
        let header = |name: &str, value: &[u8]| (name.to_owned(), Bytes::copy_from_slice(value));
        assert_eq!(headers(&Vec::new()), Value::Null);
        let long = vec![b'x'; 5_000];
        let all = [header("b", b"1"), header("a", b"2"), header("a", b"3"), header("c", b"\xff"), header("d", &long)];
        let text = |text: &'static str| text.into();
        assert_eq!(headers(&all.to_vec()), Value::Map(vec![(text("a"), text("2")), (text("b"), text("1"))]));
    }

    #[test]
    fn a_repeat_has_the_same_bytes_and_moment_and_stands_elsewhere() {
        let mut rows = Rows::new(Table::find("dead_letters").expect("a table"));
        let mut letter = |digest: &str, known_at: i64, offset: i64| {
            let row = [
                Value::text("default"),
                Value::text("bad"),
                Value::Int(1),
                Value::text(digest.to_owned()),
                Value::Null,
                Value::Time(Micros(known_at)),
                Value::Time(Micros(1_000_000 + offset)),
                Value::text("t"),
                Value::Int(0),
                Value::Int(offset),
            ];
            rows.push(&row).expect("a row");
        };
        letter("forgotten", 5, 0);
        letter("same", 6, 1);
        letter("same", 7, 2);
        for offset in 3..=i64::try_from(MOST).expect("small") {
            letter("other", offset, offset);
        }
        let letters = Letters::of(&[rows.finish().expect("rows")]);
        let at = TopicPartition::new("t", 0);
        let has = |digest, taken_at, offset| letters.has_other(digest, Micros(taken_at), (&at, offset));
        assert!(has("same", 6, 9) && has("same", 7, 1));
        assert!(!has("same", 6, 1), "the very same record");
        assert!(!has("same", 8, 9) && !has("forgotten", 5, 9) && !has("none", 6, 9));
    }
}
