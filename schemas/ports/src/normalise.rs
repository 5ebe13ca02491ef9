//! Payloads of platforms to events.

use bytes::Bytes;
use kiro_schemas::Event;

/// A header: name in lower case, value.
pub type Header = (String, Bytes);
/// Names and values beside a record's bytes.
pub type Headers = Vec<Header>;

/// The value of a header as text.
#[must_use]
pub fn header<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| std::str::from_utf8(v).ok())
}

/// Why a payload gives no events.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct NormaliseError {
    /// What is wrong, with its place.
    pub reason: String,
}

/// Turns one platform's payloads into events. Pure; the signature was verified at the door.
pub trait Normaliser: Send + Sync + std::fmt::Debug {
    /// The value of the `kiro-format` header that it serves: `github`.
    fn format(&self) -> &'static str;
    /// The headers by which it reads a payload: no others are kept of one that cannot be read.
    fn headers_read(&self, headers: &Headers) -> Headers;
    /// The events of a payload; none for an event type that is not known, which is no error.
    ///
    /// # Errors
    /// The payload is of a known type and not of its shape.
    fn normalise<'a>(&self, headers: &Headers, payload: &'a [u8]) -> Result<Vec<Event<'a>>, NormaliseError>;
}
