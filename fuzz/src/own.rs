//! Parsers that no other crate sees: their files are compiled here once more.

#[expect(dead_code, reason = "of the file, only its parser is called")]
#[path = "../../ingest/log/src/codec.rs"]
mod codec;
#[expect(dead_code, reason = "of the file, only its parser is called")]
#[path = "../../ingest/log/src/spill/frame.rs"]
mod frame;

/// A record of the embedded log: what is decoded is encoded to the same bytes.
///
/// # Panics
/// When it is not.
pub fn embedded_record(data: &[u8]) {
    if let Ok(record) = codec::decode(7, data) {
        let again = codec::encode(record.recorded_at, record.key.as_deref(), record.value.as_deref(), &record.headers);
        assert_eq!(again, data, "a record is encoded in one way only");
    }
}

/// A segment of the spill: its pieces lie one after the other and leave nothing out.
///
/// # Panics
/// When they do not.
pub fn spill_segment(data: &[u8]) {
    let mut at = 0;
    for (range, piece) in frame::pieces(b"0123456789abcdef", data) {
        assert!(range.start == at && range.end > at, "{range:?} follows {at}");
        at = range.end;
        if let frame::Piece::Record(record) = piece {
            assert!(record.value.len() < range.len(), "a record is a part of its frame");
        }
    }
    assert_eq!(at, data.len(), "bytes after the last piece");
}
