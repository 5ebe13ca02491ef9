//! Parsers that no other crate sees: their files are compiled here once more.

#[expect(dead_code, reason = "of the file, only its parser is called")]
#[path = "../../ingest/log/src/embedded/codec.rs"]
mod codec;

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
