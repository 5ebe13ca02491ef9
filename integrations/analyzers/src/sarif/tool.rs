//! The tool of a run and its rules, of which no more is held than a budget of bytes.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Level;
use crate::text::clip;

/// What a rule or an extension takes beside its name.
const ENTRY_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Tool {
    pub(super) driver: Component,
    pub(super) extensions: Vec<Component>,
}

#[derive(Debug, Default)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: Option<Box<str>>,
    pub(super) level: Option<Level>,
}

/// A rule as it stands there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    default_configuration: Option<Configuration>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    level: Option<String>,
}

/// What may still be held of a run.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) left: usize,
    pub(super) name_bytes: usize,
}

impl Budget {
    /// Takes an entry with its name, of which only the beginning is kept.
    fn take<E: serde::de::Error>(&mut self, name: &str) -> Result<Box<str>, E> {
        let name = clip(name, self.name_bytes);
        let left = self.left.checked_sub(name.len() + ENTRY_BYTES);
        self.left = left.ok_or_else(|| E::custom("the rules of a run are too many or too long"))?;
        Ok(name.into())
    }
}

/// Reads a part of a tool within the budget.
pub(super) struct Part<'b, T> {
    pub(super) budget: &'b mut Budget,
    pub(super) into: T,
}

/// A part that is an object or a list; null is an empty one.
macro_rules! part {
    ($what:ty, $expected:literal, $visit:ident<$access:ident>($self:ident, $from:ident) $body:block) => {
        impl<'de> DeserializeSeed<'de> for Part<'_, &mut $what> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for Part<'_, &mut $what> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expected)
            }

            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }

            fn $visit<A: $access<'de>>($self, mut $from: A) -> Result<(), A::Error> $body
        }
    };
}

part!(Tool, "a tool", visit_map<MapAccess>(self, map) {
    while let Some(key) = map.next_key::<String>()? {
        match key.as_str() {
            "driver" => map.next_value_seed(Part { budget: &mut *self.budget, into: &mut self.into.driver })?,
            "extensions" => map.next_value_seed(Part { budget: &mut *self.budget, into: &mut self.into.extensions })?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(())
});

part!(Vec<Component>, "a list of extensions", visit_seq<SeqAccess>(self, list) {
    loop {
        let mut component = Component::default();
        if list.next_element_seed(Part { budget: &mut *self.budget, into: &mut component })?.is_none() {
            return Ok(());
        }
        // What an extension is called is told nowhere.
        component.name = String::new();
        self.budget.take::<A::Error>("")?;
        self.into.push(component);
    }
});

part!(Component, "a component of a tool", visit_map<MapAccess>(self, map) {
    while let Some(key) = map.next_key::<String>()? {
        match key.as_str() {
            "name" => {
                let name = map.next_value::<Option<String>>()?.unwrap_or_default();
                clip(name.trim(), self.budget.name_bytes).clone_into(&mut self.into.name);
            }
            "rules" => map.next_value_seed(Part { budget: &mut *self.budget, into: &mut self.into.rules })?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(())
});

part!(Vec<Rule>, "a list of rules", visit_seq<SeqAccess>(self, list) {
    while let Some(Row { id, default_configuration }) = list.next_element()? {
        let level = default_configuration.and_then(|told| told.level).and_then(|word| Level::parse(&word));
        let kept = self.budget.take::<A::Error>(id.as_deref().unwrap_or_default())?;
        self.into.push(Rule { id: id.map(|_| kept), level });
    }
    Ok(())
});
