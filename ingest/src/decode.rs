//! One record of the log to its events.
//!
//! How a record is read, first match: header `kiro-format` (a normaliser's, or `native`), `content-type:
//! application/cloudevents…` (structured), `ce_…` or `ce-…` headers (binary), the topic's mapping, native JSON.

use std::sync::Arc;

use kiro_ports::{Headers, Normaliser, header};
use kiro_schemas::Event;
use kiro_schemas::delivery::Settings;

use crate::mapping::Mapping;

pub mod cdevents;
mod cloudevents;
mod error;
pub mod http;
pub mod json;
#[cfg(test)]
mod tests;
mod uri;

pub use error::DecodeError;

/// What a record may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Bytes of a platform's payload.
    pub payload_bytes: usize,
    /// Levels of JSON.
    pub depth: usize,
    /// Attributes of an event.
    pub attributes: usize,
    /// Bytes of an attribute's name.
    pub key_bytes: usize,
    /// Bytes of an attribute's value, or of an id.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // GitHub sends up to 25 MB; dropping secrets may add a little.
        Self { record_bytes: 1 << 20, payload_bytes: 32 << 20, depth: 64, attributes: 256, key_bytes: 256, value_bytes: 64 << 10 }
    }
}

/// Turns records into events.
#[derive(Debug)]
pub struct Decoder {
    normalisers: Vec<Arc<dyn Normaliser>>,
    mappings: Vec<(String, Mapping)>,
    rules: Settings,
    limits: Limits,
}

impl Decoder {
    /// A decoder with the usual limits and rules. `mappings` are by topic.
    #[must_use]
    pub fn new(normalisers: Vec<Arc<dyn Normaliser>>, mappings: Vec<(String, Mapping)>) -> Self {
        Self { normalisers, mappings, rules: Settings::default(), limits: Limits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same with other rules of what is an incident.
    #[must_use]
    pub fn with_rules(self, rules: Settings) -> Self {
        Self { rules, ..self }
    }

    /// The events of a record, without the issues that no rule makes incidents; none when a platform's payload says nothing that we keep.
    ///
    /// # Errors
    /// [`DecodeError`] says why the record is no event, and where.
    pub fn decode<'a>(&self, topic: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, DecodeError> {
        let mut events = self.told(topic, headers, bytes)?;
        events.retain(|event| self.rules.takes(event));
        Ok(events)
    }

    /// All that a record tells, before the rules are asked.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn told<'a>(&self, topic: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, DecodeError> {
        let is_payload = header(headers, "kiro-format").is_some_and(|format| self.normaliser(format).is_some());
        let limit = if is_payload { self.limits.payload_bytes } else { self.limits.record_bytes };
        json::at_most("record", bytes.len(), limit)?;
        let events = self.read(topic, headers, bytes)?;
        for event in &events {
            self.check(event)?;
        }
        Ok(events)
    }

    fn read<'a>(&self, topic: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, DecodeError> {
        match header(headers, "kiro-format") {
            Some("native") => return Ok(vec![native(bytes)?]),
            Some(format) => return self.normalise(format, headers, bytes),
            None => {}
        }
        if header(headers, "content-type").is_some_and(cloudevents::is_structured) {
            return Ok(vec![cloudevents::structured(bytes, self.limits.depth)?]);
        }
        if cloudevents::is_binary(headers) {
            return Ok(vec![cloudevents::binary(headers, bytes, self.limits.depth)?]);
        }
        if let Some((_, mapping)) = self.mappings.iter().find(|(name, _)| name == topic) {
            let mut events = Vec::new();
            for row in mapping.json_with_depth(bytes, self.limits.depth)? {
                events.extend(row.map_err(|error| DecodeError::Mapping { reason: error.to_string() })?.events);
            }
            return Ok(events);
        }
        Ok(vec![native(bytes)?])
    }

    /// The headers by which a record is read: whoever has them and its bytes can read it.
    #[must_use]
    pub fn headers_read(&self, headers: &Headers) -> Headers {
        let format = header(headers, "kiro-format");
        let normaliser = self.normalisers.iter().find(|normaliser| Some(normaliser.format()) == format);
        let is_ours = |name: &str| matches!(name, "kiro-format" | "content-type") || cloudevents::is_attribute(name);
        let ours = headers.iter().filter(|(name, _)| is_ours(name)).cloned();
        ours.chain(normaliser.map(|normaliser| normaliser.headers_read(headers)).into_iter().flatten()).collect()
    }

    fn normalise<'a>(&self, format: &str, headers: &Headers, bytes: &'a [u8]) -> Result<Vec<Event<'a>>, DecodeError> {
        let Some(normaliser) = self.normaliser(format) else {
            return Err(DecodeError::UnknownFormat { format: error::clip(format) });
        };
        normaliser.normalise(headers, bytes).map_err(|error| DecodeError::Platform { format: normaliser.format(), reason: error.reason })
    }

    fn normaliser(&self, format: &str) -> Option<&dyn Normaliser> {
        self.normalisers.iter().find(|normaliser| normaliser.format() == format).map(AsRef::as_ref)
    }

    fn check(&self, event: &Event<'_>) -> Result<(), DecodeError> {
        let limits = &self.limits;
        json::at_most("number of attributes", event.attributes.len(), limits.attributes)?;
        json::at_most("event id", event.id.len(), limits.value_bytes)?;
        json::at_most("source", event.source.len(), limits.value_bytes)?;
        json::at_most("subject id", event.subject_id.len(), limits.value_bytes)?;
        for (key, value) in &event.attributes {
            json::at_most("attribute name", key.len(), limits.key_bytes)?;
            json::at_most("attribute value", value.len(), limits.value_bytes)?;
        }
        check_times(event)
    }
}

/// Whoever said it: what is stored lies in the years that are stored.
fn check_times(event: &Event<'_>) -> Result<(), DecodeError> {
    let columns = event.spec().columns.iter().zip(&event.fields).filter_map(|(column, value)| Some((column.name, value.as_time()?)));
    let named = [("time", Some(event.time)), ("known_at", event.known_at)];
    let mut times = named.into_iter().filter_map(|(name, time)| Some((name, time?))).chain(columns);
    match times.find(|(_, time)| !time.is_storable()) {
        Some((name, _)) => Err(DecodeError::shape(name, "must lie between 1970 and 9999")),
        None => Ok(()),
    }
}

/// Native JSON is at most three levels deep by its shape; deeper input is refused at its first wrong token.
fn native(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    Ok(Event::from_json(bytes)?)
}
