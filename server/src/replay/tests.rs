//! Pages, parts, marks, and what a letter becomes.

use bytes::Bytes;
use kiro_ports::{RECORD_ID, Record, header};
use kiro_schemas::{Micros, TopicPartition};
use sha2::{Digest as _, Sha256};

use super::{Cursor, Letter, TOGETHER, TOGETHER_BYTES, compact, parts, ranges};

fn letter(partition: i32, offset: i64, bytes: &[u8]) -> Letter {
    Letter {
        at: TopicPartition::new("events", partition),
        offset,
        digest: hex::encode(Sha256::digest(bytes)),
        size: bytes.len() as u64,
        recorded_at: Micros(5_000_000),
        headers: vec![("kiro-format".to_owned(), Bytes::from_static(b"github"))],
    }
}

#[test]
fn a_place_is_read_back_and_nothing_else_is_one() {
    let last = letter(3, 77, b"");
    let text = Cursor::text(Micros(9), &last);
    assert_eq!(Cursor::read(&text), Some(Cursor { until: Micros(9), behind: Some((last.at, 77)) }));
    for wrong in ["", "9", "9/events/3", "9/events/3/77/1", "x/events/3/77", "9/events/x/77", "9/events/3/-x", "9/events/99999999999/1"] {
        assert_eq!(Cursor::read(wrong), None, "{wrong}");
    }
}

#[test]
fn marks_are_ranges_of_offsets() {
    let offsets = [1, 2, 3, 5, 8, 9];
    assert_eq!(compact(&offsets), [(1, 3), (5, 5), (8, 9)]);
    let detail = serde_json::json!({ "offsets": compact(&offsets) }).to_string();
    assert_eq!(ranges(&detail), Some(vec![(1, 3), (5, 5), (8, 9)]));
    assert!(["", "{}", "{\"offsets\":1}", "{\"offsets\":[[1]]}"].iter().all(|text| ranges(text).is_none()));
}

#[test]
fn parts_are_of_one_partition_and_bounded() {
    let sized = |partition, offset, size| Letter { size, ..letter(partition, offset, b"") };
    let many: Vec<Letter> = (0..1_200).map(|offset| sized(0, offset, 1)).chain((0..3).map(|offset| sized(1, offset, 1))).collect();
    let counts: Vec<usize> = parts(&many).iter().map(|part| part.len()).collect();
    assert_eq!(counts, [TOGETHER, TOGETHER, 200, 3]);
    let large: Vec<Letter> = (0..5).map(|offset| sized(0, offset, TOGETHER_BYTES / 2)).collect();
    assert_eq!(parts(&large).iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(parts(&[]).is_empty());
}

#[test]
fn a_letter_comes_from_the_log_else_from_quarantine() {
    let dir = tempfile::tempdir().expect("a folder");
    let poison = letter(0, 7, b"poison");
    let record = |value: Option<&'static [u8]>| Record {
        offset: 7,
        recorded_at: Micros(5_000_000),
        key: Some(Bytes::from_static(b"k")),
        value: value.map(Bytes::from_static),
        headers: vec![("x".to_owned(), Bytes::from_static(b"y")), (RECORD_ID.to_owned(), Bytes::from_static(b"1-a"))],
    };
    let again = poison.record(Some(record(Some(b"poison"))), dir.path(), "acme").expect("a record");
    assert_eq!((again.key.as_deref(), again.value.as_ref(), header(&again.headers, "x")), (Some(&b"k"[..]), &b"poison"[..], Some("y")));
    let id = header(&again.headers, RECORD_ID).expect("an id").to_owned();
    assert_eq!((id.as_str(), again.headers.len()), ("5000008-replay-events-0-7", 2), "it is no repeat of what it was");
    let others = [None, Some(record(None)), Some(record(Some(b"of a topic that was made anew")))];
    for found in others.clone() {
        assert!(poison.record(found, dir.path(), "acme").is_none(), "its bytes are nowhere");
    }
    std::fs::write(dir.path().join(&poison.digest), b"poison").expect("quarantine");
    for found in others.clone() {
        let again = poison.record(found, dir.path(), "acme").expect("a record");
        assert_eq!((again.key, again.value.as_ref(), header(&again.headers, RECORD_ID)), (None, &b"poison"[..], Some(id.as_str())));
        assert_eq!((header(&again.headers, "kiro-format"), header(&again.headers, "kiro-tenant")), (Some("github"), Some("acme")));
    }
    for damaged in [&b"pois0n"[..], b"poi", b"poison and more"] {
        std::fs::write(dir.path().join(&poison.digest), damaged).expect("quarantine");
        assert!(others.iter().all(|found| poison.record(found.clone(), dir.path(), "acme").is_none()));
    }
}
