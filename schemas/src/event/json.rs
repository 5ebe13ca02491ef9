//! The native JSON form of an event: one object a line.
//!
//! ```json
//! {"subject":"pipeline_run","transition":"finished","source":"https://ci/acme/shop","subject_id":"42",
//!  "time":"2026-11-23T09:40:00Z","fields":{"pipeline":"ci","outcome":"success"},"attributes":{"team":"a"}}
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};

use super::{Event, Value};
use crate::subject::{self, Kind};
use crate::{Micros, Outcome, Subject, Transition};

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    /// Not JSON, or not of the right shape.
    #[error("{0}")]
    Json(String),
    /// A word that is not known.
    #[error("unknown {what} {word:?}")]
    Unknown {
        /// What the word should have named.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// The subject does not know this transition.
    #[error("a {subject} cannot be {transition:?}")]
    Transition {
        /// The subject.
        subject: Subject,
        /// The word.
        transition: String,
    },
    /// A field that is empty, out of range or of another type.
    #[error("field {field:?}: {problem}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The native JSON form, borrowed from its bytes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Native<'a> {
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    transition: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    subject_id: Cow<'a, str>,
    #[serde(default)]
    attempt: Option<i64>,
    time: Micros,
    #[serde(default)]
    known_at: Option<Micros>,
    #[serde(borrow, default)]
    fields: BTreeMap<Cow<'a, str>, Scalar<'a>>,
    #[serde(borrow, default)]
    attributes: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Null(()),
    Bool(bool),
    Int(i64),
    Float(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl<'a> Event<'a> {
    /// Reads the native JSON form.
    ///
    /// # Errors
    /// [`EventError`] names the field or the place.
    pub fn from_json(bytes: &'a [u8]) -> Result<Self, EventError> {
        let native: Native<'a> = serde_json::from_slice(bytes).map_err(|e| EventError::Json(e.to_string()))?;
        native.into_event()
    }
}

impl<'a> Native<'a> {
    fn into_event(self) -> Result<Event<'a>, EventError> {
        let Some(subject) = Subject::parse(&self.subject) else {
            return Err(EventError::Unknown { what: "subject", word: self.subject.into_owned() });
        };
        let known = Transition::parse(&self.transition).filter(|t| subject::spec(subject).transition(*t).is_some());
        let Some(transition) = known else {
            return Err(EventError::Transition { subject, transition: self.transition.into_owned() });
        };
        let attempt = self.attempt.unwrap_or(1);
        check(attempt >= 1, "attempt", "must be at least 1")?;
        check(!self.source.is_empty(), "source", "must not be empty")?;
        check(!self.subject_id.is_empty(), "subject_id", "must not be empty")?;
        check(self.time.is_storable(), "time", "must lie between 1970 and 9999")?;
        check(self.known_at.is_none_or(Micros::is_storable), "known_at", "must lie between 1970 and 9999")?;
        let mut event = Event::new(subject, transition, self.source, self.subject_id, self.time);
        event.attempt = attempt;
        event.known_at = self.known_at;
        match self.id {
            Some(id) if id.is_empty() => return Err(field("id", "must not be empty")),
            Some(id) => event.id = id,
            None => event.derive_id(),
        }
        for (name, scalar) in self.fields {
            let Some(at) = event.spec().field(&name) else {
                return Err(EventError::Unknown { what: "field", word: name.into_owned() });
            };
            event.fields[at] = scalar.into_value(&name, event.spec().columns[at].kind)?;
        }
        event.attributes = self.attributes.into_iter().collect();
        Ok(event)
    }
}

fn field(name: &str, problem: impl Into<String>) -> EventError {
    EventError::Field { field: name.to_owned(), problem: problem.into() }
}

fn check(holds: bool, name: &str, problem: &str) -> Result<(), EventError> {
    if holds { Ok(()) } else { Err(field(name, problem)) }
}

impl<'a> Scalar<'a> {
    fn into_value(self, name: &str, kind: Kind) -> Result<Value<'a>, EventError> {
        Ok(match (kind, self) {
            (_, Self::Null(())) => Value::Null,
            (Kind::Text, Self::Text(text)) if name == "outcome" && Outcome::parse(&text).is_none() => {
                return Err(field(name, format!("{text:?} is not success, failure, cancel, error or skip")));
            }
            (Kind::Text, Self::Text(text)) => Value::Text(text),
            (Kind::Int, Self::Int(value)) => Value::Int(value),
            (Kind::Float, Self::Float(value)) if value.is_finite() => Value::Float(value),
            (Kind::Float, Self::Int(value)) => Value::Float(value as f64),
            (Kind::Bool, Self::Bool(value)) => Value::Bool(value),
            (Kind::Time, Self::Text(text)) => match Micros::parse(&text).filter(|t| t.is_storable()) {
                Some(time) => Value::Time(time),
                None => return Err(field(name, format!("not an RFC 3339 time: {text:?}"))),
            },
            (kind, other) => return Err(field(name, format!("expected {kind:?}, found {}", other.name()))),
        })
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Null(()) => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a text",
        }
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Event", 10)?;
        out.serialize_field("subject", self.subject.as_str())?;
        out.serialize_field("transition", self.transition.as_str())?;
        out.serialize_field("id", &self.id)?;
        out.serialize_field("source", &self.source)?;
        out.serialize_field("subject_id", &self.subject_id)?;
        out.serialize_field("attempt", &self.attempt)?;
        out.serialize_field("time", &self.time)?;
        if let Some(known_at) = self.known_at {
            out.serialize_field("known_at", &known_at)?;
        }
        out.serialize_field("fields", &Fields(self))?;
        if !self.attributes.is_empty() {
            out.serialize_field("attributes", &Pairs(&self.attributes))?;
        }
        out.end()
    }
}

struct Fields<'e, 'a>(&'e Event<'a>);

impl Serialize for Fields<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, value) in self.0.spec().columns.iter().zip(&self.0.fields) {
            if !value.is_null() {
                map.serialize_entry(column.name, value)?;
            }
        }
        map.end()
    }
}

struct Pairs<'e, 'a>(&'e [(Cow<'a, str>, Cow<'a, str>)]);

impl Serialize for Pairs<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Time(time) => time.serialize(serializer),
            Self::Map(pairs) => Pairs(pairs).serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Event;

    const EVENT: &str = r#"{"subject":"pipeline_run","transition":"finished","source":"https://ci/a","subject_id":"42","time":"2026-11-23T09:40:00Z","fields":{"pipeline":"ci","outcome":"success","duration_ms":1500},"attributes":{"team":"a"}}"#;

    #[test]
    fn reads_what_it_writes() {
        let event = Event::from_json(EVENT.as_bytes()).expect("an event");
        assert_eq!(event.id, "pipeline_run/42/1/finished/2026-11-23T09:40:00Z");
        let json = serde_json::to_string(&event).expect("json");
        assert_eq!(Event::from_json(json.as_bytes()), Ok(event));
    }

    #[test]
    fn errors_name_the_place() {
        for (from, to, expected) in [
            ("pipeline_run", "pipe", r#"unknown subject "pipe""#),
            ("finished", "merged", r#"a pipeline_run cannot be "merged""#),
            ("\"duration_ms\":1500", "\"duration_ms\":\"x\"", r#"field "duration_ms": expected Int, found a text"#),
            ("\"success\"", "\"ok\"", r#"field "outcome": "ok" is not success, failure, cancel, error or skip"#),
            ("\"pipeline\"", "\"pipelin\"", r#"unknown field "pipelin""#),
            ("\"42\"", "\"\"", r#"field "subject_id": must not be empty"#),
        ] {
            let error = Event::from_json(EVENT.replace(from, to).as_bytes()).expect_err(to).to_string();
            assert_eq!(error, expected);
        }
    }
}
