//! A JSON document borrowed from its bytes, with a limit of depth: texts without escapes are not copied.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::DecodeError;

/// Most pairs that flattening gives.
const MOST_PAIRS: usize = 1_024;
/// Longest name that it gives, in bytes.
const MOST_NAME: usize = 1_024;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object, in the order of the document; of equal keys the last one counts.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads one document, at most `depth` levels deep.
    ///
    /// # Errors
    /// [`DecodeError::Json`] with line and column, [`DecodeError::TooDeep`].
    pub fn parse(bytes: &'a [u8], depth: usize) -> Result<Self, DecodeError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let too_deep = Cell::new(false);
        let seed = Seed { left: depth, too_deep: &too_deep };
        let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        parsed.map_err(|error| if too_deep.get() { DecodeError::TooDeep { limit: depth } } else { DecodeError::json(&error) })
    }

    /// The value under a key of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(pairs) => pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Takes the value under a key out of an object.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Object(pairs) => {
                let value = pairs.iter_mut().rev().find(|(name, _)| name == key).map(|(_, value)| std::mem::replace(value, Self::Null));
                value.filter(|value| *value != Self::Null)
            }
            _ => None,
        }
    }

    /// Takes a text out of an object.
    pub fn take_text(&mut self, key: &str) -> Option<Cow<'a, str>> {
        match self.take(key) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// A scalar as text; `None` for null, arrays and objects.
    #[must_use]
    pub fn scalar(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bool(true) => Some(Cow::Borrowed("true")),
            Self::Bool(false) => Some(Cow::Borrowed("false")),
            Self::Int(value) => Some(Cow::Owned(value.to_string())),
            Self::Float(value) => Some(Cow::Owned(value.to_string())),
            Self::Null | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// Flattens into `prefix.key` pairs of scalars; arrays count their elements from 0.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`]: a name is repeated for each value below it, so that a small document could fill the memory.
    pub fn flatten(self, prefix: &str, out: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Result<(), DecodeError> {
        match self {
            Self::Object(pairs) => pairs.into_iter().try_for_each(|(key, value)| value.flatten(&join(prefix, &key)?, out)),
            Self::Array(values) => {
                values.into_iter().enumerate().try_for_each(|(at, value)| value.flatten(&join(prefix, &at.to_string())?, out))
            }
            scalar => {
                let Some(text) = scalar.scalar() else { return Ok(()) };
                at_most("number of attributes", out.len() + 1, MOST_PAIRS)?;
                out.push((Cow::Owned(prefix.to_owned()), text));
                Ok(())
            }
        }
    }
}

/// `prefix.key`, unless it is too long.
pub(crate) fn join(prefix: &str, key: &str) -> Result<String, DecodeError> {
    at_most("attribute name", prefix.len() + 1 + key.len(), MOST_NAME)?;
    Ok(if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") })
}

pub(crate) fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), DecodeError> {
    if size > limit { Err(DecodeError::TooLarge { what, size, limit }) } else { Ok(()) }
}

#[derive(Clone, Copy)]
struct Seed<'c> {
    left: usize,
    too_deep: &'c Cell<bool>,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let Some(left) = self.left.checked_sub(1) else {
            self.too_deep.set(true);
            return Err(E::custom("too deep"));
        };
        Ok(Self { left, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json<'de>, E> {
        if value.is_finite() { Ok(Json::Float(value)) } else { Err(E::custom("number out of range")) }
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let seed = self.deeper::<A::Error>()?;
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(seed)? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let seed = self.deeper::<A::Error>()?;
        let mut pairs = Vec::new();
        while let Some(key) = access.next_key_seed(Key)? {
            pairs.push((key, access.next_value_seed(seed)?));
        }
        Ok(Json::Object(pairs))
    }
}
