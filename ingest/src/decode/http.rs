//! An HTTP post to one log record for each of its events.
//!
//! # Source
//! CloudEvents 1.0.2, HTTP protocol binding; batch is tested before structured, whose prefix it shares.

use bytes::Bytes;
use kiro_ports::{Headers, header};
use serde_json::value::RawValue;

use super::DecodeError;
use super::cloudevents::starts_with;
use super::json::at_most;

const STRUCTURED: &str = "application/cloudevents+json";
/// Most events of one post: a line of two bytes would take a hundred in memory.
const MOST_EVENTS: usize = 100_000;

/// One event of a post, ready to append to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpEvent {
    /// The headers of its record.
    pub headers: Headers,
    /// The bytes of its record.
    pub bytes: Bytes,
}

/// Splits a post into its events: CloudEvents structured, batched or binary, native JSON (one or an array), NDJSON.
/// Header names are in lower case. The events are not decoded yet.
///
/// # Errors
/// [`DecodeError::At`] names the event that cannot be read; [`DecodeError::Header`] a `ce-` header.
pub fn split(content_type: &str, headers: &Headers, body: &Bytes) -> Result<Vec<HttpEvent>, DecodeError> {
    if starts_with(content_type, "application/cloudevents-batch") {
        return elements(body, "content-type", STRUCTURED);
    }
    if starts_with(content_type, "application/cloudevents") {
        return Ok(vec![record("content-type", STRUCTURED, body.clone())]);
    }
    if header(headers, "ce-specversion").is_some() {
        return Ok(vec![binary(content_type, headers, body)?]);
    }
    if starts_with(content_type, "application/x-ndjson") {
        return lines(body);
    }
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return elements(body, "kiro-format", "native");
    }
    Ok(vec![record("kiro-format", "native", body.clone())])
}

fn record(name: &str, value: &'static str, bytes: Bytes) -> HttpEvent {
    HttpEvent { headers: vec![(name.to_owned(), Bytes::from_static(value.as_bytes()))], bytes }
}

fn elements(body: &Bytes, name: &str, value: &'static str) -> Result<Vec<HttpEvent>, DecodeError> {
    let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| DecodeError::json(&error))?;
    at_most("number of events", elements.len(), MOST_EVENTS)?;
    let mut events = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        let bytes = body.slice_ref(element.get().as_bytes());
        if bytes.first() != Some(&b'{') {
            return Err(at(index, DecodeError::shape("", "expected an object")));
        }
        events.push(record(name, value, bytes));
    }
    Ok(events)
}

fn lines(body: &Bytes) -> Result<Vec<HttpEvent>, DecodeError> {
    let mut events = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if let Err(error) = serde_json::from_slice::<&RawValue>(line) {
            return Err(at(events.len(), DecodeError::json(&error)));
        }
        at_most("number of events", events.len() + 1, MOST_EVENTS)?;
        events.push(record("kiro-format", "native", body.slice_ref(line)));
    }
    Ok(events)
}

fn at(index: usize, error: DecodeError) -> DecodeError {
    DecodeError::At { index, error: Box::new(error) }
}

fn binary(content_type: &str, headers: &Headers, body: &Bytes) -> Result<HttpEvent, DecodeError> {
    let mut out: Headers = vec![("content-type".to_owned(), Bytes::copy_from_slice(content_type.as_bytes()))];
    for (header, value) in headers {
        let Some(name) = header.strip_prefix("ce-") else { continue };
        if name == "datacontenttype" {
            return Err(DecodeError::Header { name: header.clone(), problem: "belongs into content-type" });
        }
        let Some(value) = decode_header(value) else {
            return Err(DecodeError::Header { name: super::error::clip(header), problem: "is not percent-encoded UTF-8" });
        };
        out.push((format!("ce_{name}"), Bytes::from(value)));
    }
    Ok(HttpEvent { headers: out, bytes: body.clone() })
}

/// Unescapes a quoted value, then decodes percent triples once; a `%` without two hex digits, and bytes that are not
/// UTF-8 then, are refused.
fn decode_header(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        Some(quoted) => {
            let mut rest = quoted.iter();
            while let Some(byte) = rest.next() {
                bytes.push(if *byte == b'\\' { *rest.next()? } else { *byte });
            }
        }
        None => bytes.extend_from_slice(value),
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.into_iter();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            out.push((digit()? << 4) | digit()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
