//! One immutable fact from outside.

use std::borrow::Cow;

use crate::subject::{self, SubjectSpec};
use crate::{Micros, Subject, Transition};

mod json;

pub use json::{EventError, Native};

/// A value of a column, borrowed from the bytes that it came in wherever that is possible.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value<'a> {
    /// Absent.
    #[default]
    Null,
    /// Text.
    Text(Cow<'a, str>),
    /// Integer.
    Int(i64),
    /// Finite float.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Time.
    Time(Micros),
    /// Text to text.
    Map(Vec<(Cow<'a, str>, Cow<'a, str>)>),
}

impl<'a> Value<'a> {
    /// A text value.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// Whether it is absent.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The time, if it is one.
    #[must_use]
    pub const fn as_time(&self) -> Option<Micros> {
        match self {
            Self::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// The same value, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Bool(value) => Value::Bool(value),
            Self::Time(value) => Value::Time(value),
            Self::Map(pairs) => {
                Value::Map(pairs.into_iter().map(|(k, v)| (Cow::Owned(k.into_owned()), Cow::Owned(v.into_owned()))).collect())
            }
        }
    }
}

/// One immutable fact: something happened to a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// What kind of subject it is about.
    pub subject: Subject,
    /// What happened to it.
    pub transition: Transition,
    /// The id of the event, unique within `source`.
    pub id: Cow<'a, str>,
    /// The canonical URL of the repository, project or service.
    pub source: Cow<'a, str>,
    /// The subject's id within `source`.
    pub subject_id: Cow<'a, str>,
    /// The attempt, from 1.
    pub attempt: i64,
    /// When it happened.
    pub time: Micros,
    /// When the source could tell; `None` is the arrival.
    pub known_at: Option<Micros>,
    /// One value per column of the subject's specification; ids and attempt stay `Null` here.
    pub fields: Vec<Value<'a>>,
    /// What is not modelled.
    pub attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Event<'a> {
    /// A new event without fields. Its id is derived from its content: `kind/subject id/attempt/transition/time`, so
    /// that webhook, redelivery, backfill and import of the same fact are the same event.
    pub fn new(
        subject: Subject,
        transition: Transition,
        source: impl Into<Cow<'a, str>>,
        subject_id: impl Into<Cow<'a, str>>,
        time: Micros,
    ) -> Self {
        let mut event = Self {
            subject,
            transition,
            id: Cow::Borrowed(""),
            source: source.into(),
            subject_id: subject_id.into(),
            attempt: 1,
            time,
            known_at: None,
            fields: vec![Value::Null; subject::spec(subject).columns.len()],
            attributes: Vec::new(),
        };
        event.derive_id();
        event
    }

    /// Derives the id anew, after subject id, attempt or time were changed.
    pub fn derive_id(&mut self) {
        self.id = Cow::Owned(format!("{}/{}/{}/{}/{}", self.subject, self.subject_id, self.attempt, self.transition, self.time));
    }

    /// The specification of the subject.
    #[must_use]
    pub fn spec(&self) -> &'static SubjectSpec {
        subject::spec(self.subject)
    }

    /// Sets a field by name; an unknown name is a mistake of ours and is ignored in release.
    pub fn set(&mut self, name: &str, value: Value<'a>) {
        let at = self.spec().field(name);
        debug_assert!(at.is_some(), "{} has no field {name}", self.subject);
        if let Some(at) = at {
            self.fields[at] = value;
        }
    }

    /// Sets a text field when there is a text.
    pub fn set_text(&mut self, name: &str, text: Option<impl Into<Cow<'a, str>>>) {
        if let Some(text) = text {
            self.set(name, Value::Text(text.into()));
        }
    }

    /// A field by name.
    #[must_use]
    pub fn get(&self, name: &str) -> &Value<'a> {
        self.spec().column(name).map_or(&Value::Null, |at| &self.fields[at])
    }

    /// The same event, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        Event {
            subject: self.subject,
            transition: self.transition,
            id: Cow::Owned(self.id.into_owned()),
            source: Cow::Owned(self.source.into_owned()),
            subject_id: Cow::Owned(self.subject_id.into_owned()),
            attempt: self.attempt,
            time: self.time,
            known_at: self.known_at,
            fields: self.fields.into_iter().map(Value::into_owned).collect(),
            attributes: self.attributes.into_iter().map(|(k, v)| (Cow::Owned(k.into_owned()), Cow::Owned(v.into_owned()))).collect(),
        }
    }
}
