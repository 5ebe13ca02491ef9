//! Kafka's messages as records.

use bytes::Bytes;
use kiro_ports::Record;
use kiro_schemas::Micros;
use rdkafka::message::{BorrowedMessage, Headers, Message};

/// Copies a message out of the client's memory.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| (h.key.to_ascii_lowercase(), Bytes::copy_from_slice(h.value.unwrap_or_default()))).collect()
    });
    Record {
        offset: message.offset(),
        recorded_at: Micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1000)),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}

/// About how many bytes a record holds.
pub(super) fn size(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + headers + 16
}
