//! CloudEvents 1.0 in records of the log.
//!
//! # Source
//! CloudEvents 1.0.2, JSON event format and Kafka protocol binding. Batch mode does not exist in records.

use std::borrow::Cow;

use base64::Engine as _;
use kiro_ports::Headers;
use kiro_schemas::{Event, Micros, Subject, Transition, Value};

use super::json::Json;
use super::{DecodeError, cdevents};

pub(super) fn is_structured(content_type: &str) -> bool {
    starts_with(content_type, "application/cloudevents")
}

pub(super) fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn attribute_name(header: &str) -> Option<&str> {
    header.strip_prefix("ce_").or_else(|| header.strip_prefix("ce-"))
}

/// Whether a header is an attribute of an event.
pub(super) fn is_attribute(header: &str) -> bool {
    attribute_name(header).is_some()
}

pub(super) fn is_binary(headers: &Headers) -> bool {
    headers.iter().any(|(name, _)| attribute_name(name) == Some("specversion"))
}

#[derive(Default)]
struct Envelope<'a> {
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    specversion: Option<Cow<'a, str>>,
    extensions: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Envelope<'a> {
    fn set(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        match name.as_ref() {
            "id" => self.id = Some(value),
            "source" => self.source = Some(value),
            "type" => self.kind = Some(value),
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "specversion" => self.specversion = Some(value),
            "datacontenttype" | "dataschema" => {}
            _ => self.extensions.push((name, value)),
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        for (name, value) in [("specversion", &self.specversion), ("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.as_deref().is_none_or(str::is_empty) {
                return Err(DecodeError::shape(name, "is missing or empty"));
            }
        }
        if self.specversion.as_deref() != Some("1.0") {
            return Err(DecodeError::shape("specversion", "is not 1.0"));
        }
        Ok(())
    }

    /// The event of an envelope with its data: a `CDEvent` by its type, else an event of no table.
    fn event(self, data: Option<Json<'a>>) -> Result<Event<'a>, DecodeError> {
        self.check()?;
        let kind = self.kind.unwrap_or_default();
        if kind.starts_with("dev.cdevents") {
            let Some(data) = data else { return Err(DecodeError::shape("data", "is missing in a CDEvent")) };
            return cdevents::event_of(data);
        }
        let Some(time) = self.time.as_deref().and_then(Micros::parse).filter(|time| time.is_storable()) else {
            return Err(DecodeError::shape("time", "is missing or not an RFC 3339 time between 1970 and 9999"));
        };
        let id = self.id.unwrap_or_default();
        let subject_id = self.subject.filter(|subject| !subject.is_empty()).unwrap_or_else(|| id.clone());
        let mut event = Event::new(Subject::Other, Transition::Recorded, self.source.unwrap_or_default(), subject_id, time);
        event.id = id;
        event.set("type", Value::Text(kind));
        event.attributes = self.extensions;
        if let Some(data) = data {
            let prefix = if matches!(data, Json::Object(_)) { "" } else { "data" };
            data.flatten(prefix, &mut event.attributes)?;
        }
        Ok(event)
    }
}

/// An event in structured mode.
pub(super) fn structured(bytes: &[u8], depth: usize) -> Result<Event<'_>, DecodeError> {
    let document = Json::parse(bytes, depth)?;
    let Json::Object(pairs) = document else {
        return Err(DecodeError::shape("", format!("expected an object, found {}", document.kind())));
    };
    let (mut envelope, mut data, mut encoded) = (Envelope::default(), None, None);
    for (name, value) in pairs {
        match name.as_ref() {
            "data" => data = Some(value),
            "data_base64" => encoded = Some(value),
            _ => match value {
                Json::Null => {}
                Json::Text(_) | Json::Bool(_) | Json::Int(_) => envelope.set(name, value.scalar().unwrap_or_default()),
                other => return Err(DecodeError::shape(name, format!("expected a text, found {}", other.kind()))),
            },
        }
    }
    if data.is_some() && encoded.is_some() {
        return Err(DecodeError::shape("data_base64", "stands beside data"));
    }
    if let Some(encoded) = encoded {
        let text = encoded.as_text().unwrap_or_default();
        let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) else {
            return Err(DecodeError::shape("data_base64", "is not base64"));
        };
        let data = Json::parse(&bytes, depth)?;
        return Ok(envelope.event(Some(data))?.into_owned());
    }
    envelope.event(data)
}

/// An event in binary mode: attributes in headers, the data in the value.
pub(super) fn binary<'a>(headers: &Headers, bytes: &'a [u8], depth: usize) -> Result<Event<'a>, DecodeError> {
    let mut envelope = Envelope::default();
    for (header, value) in headers {
        let Some(name) = attribute_name(header) else { continue };
        let Ok(text) = std::str::from_utf8(value) else {
            return Err(DecodeError::Header { name: super::error::clip(header), problem: "is not UTF-8" });
        };
        envelope.set(Cow::Owned(name.to_owned()), Cow::Owned(text.to_owned()));
    }
    let data = if bytes.is_empty() { None } else { Some(Json::parse(bytes, depth)?) };
    envelope.event(data)
}
