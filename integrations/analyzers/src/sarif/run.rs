//! The parts of a SARIF document that are read; all others are passed over. Results are counted as they go by.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::tool::{Budget, Component, Part, Tool};
use super::{Group, Level, Scan};
use crate::Limits;
use crate::text::clip;

/// What a run may hold of its rules.
const MOST_RULE_BYTES: usize = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultRow {
    #[serde(default)]
    rule_id: Option<String>,
    #[serde(default)]
    rule_index: Option<i64>,
    #[serde(default)]
    rule: Option<Reference>,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    baseline_state: Option<String>,
    #[serde(default, deserialize_with = "suppressions")]
    suppressions: Suppressions,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    index: Option<i64>,
    #[serde(default)]
    tool_component: Option<ComponentReference>,
}

#[derive(Debug, Deserialize)]
struct ComponentReference {
    #[serde(default)]
    index: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Suppression {
    #[serde(default)]
    status: Option<String>,
}

/// Whether there are suppressions, and any that does not hold; the list itself is not kept.
#[derive(Debug, Default)]
struct Suppressions {
    is_there: bool,
    is_open: bool,
}

fn suppressions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Suppressions, D::Error> {
    deserializer.deserialize_any(Suppressions::default())
}

impl<'de> Visitor<'de> for Suppressions {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(Suppression { status }) = list.next_element()? {
            self.is_there = true;
            self.is_open |= matches!(status.as_deref(), Some("underReview" | "rejected"));
        }
        Ok(self)
    }
}

/// Results alike, before it is known what their rule says; the rules may follow.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    rule_id: Option<String>,
    component: Option<usize>,
    index: Option<usize>,
    level: Option<Level>,
    baseline: &'static str,
    is_suppressed: bool,
}

impl ResultRow {
    fn alike(self, limits: Limits) -> Result<Alike, String> {
        let is_failure = matches!(self.kind.as_deref(), None | Some("fail"));
        let level = match self.level.as_deref() {
            Some(word) => Some(Level::parse(word).ok_or_else(|| format!("{:?} is no level", clip(word, 40)))?),
            None if is_failure => None,
            None => Some(Level::None),
        };
        let baseline = match self.baseline_state.as_deref() {
            None => "",
            Some(word) => *["new", "unchanged", "updated", "absent"]
                .iter()
                .find(|known| **known == word)
                .ok_or_else(|| format!("{:?} is no baselineState", clip(word, 40)))?,
        };
        let is_suppressed = self.suppressions.is_there && !self.suppressions.is_open;
        let at = |index: Option<i64>| index.and_then(|index| usize::try_from(index).ok());
        let (id, index, component) = match self.rule {
            Some(rule) => (rule.id, at(rule.index), rule.tool_component.and_then(|c| at(c.index))),
            None => (None, None, None),
        };
        let rule_id = self.rule_id.or(id).map(|id| clip(&id, limits.name_bytes).to_owned());
        Ok(Alike { rule_id, component, index: at(self.rule_index).or(index), level, baseline, is_suppressed })
    }
}

impl Tool {
    fn component(&self, at: Option<usize>) -> Option<&Component> {
        at.map_or(Some(&self.driver), |at| self.extensions.get(at))
    }

    /// The group of results: their rule and level are looked up.
    fn group(&self, alike: Alike, levels: &BTreeMap<&str, Option<Level>>) -> Group {
        let rule = alike.index.and_then(|index| self.component(alike.component)?.rules.get(index));
        let id: Cow<'_, str> = match (alike.rule_id, rule.and_then(|rule| rule.id.as_deref())) {
            (Some(id), _) => Cow::Owned(id),
            (None, Some(id)) => Cow::Borrowed(id),
            (None, None) => Cow::Borrowed("(no rule)"),
        };
        // `CA1000/1` is a part of the rule `CA1000`.
        let by_id = || levels.get(&*id).or_else(|| levels.get(id.rsplit_once('/')?.0)).copied().flatten();
        let level = alike.level.or_else(|| rule.and_then(|rule| rule.level)).or_else(by_id).unwrap_or(Level::Warning);
        Group { rule: id.into_owned(), level, baseline: alike.baseline, is_suppressed: alike.is_suppressed }
    }
}

/// The document.
pub(super) struct Top<'s> {
    pub(super) scan: &'s mut Scan,
    pub(super) limits: Limits,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SARIF document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut version, mut has_runs) = (None::<String>, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = map.next_value()?,
                "runs" => {
                    has_runs = true;
                    map.next_value_seed(Runs { scan: &mut *self.scan, limits: self.limits })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match version.as_deref() {
            Some(version) if version.starts_with("2.1.") && has_runs => Ok(()),
            Some(version) if version.starts_with("2.1.") => Err(A::Error::custom("it has no runs")),
            Some(version) => Err(A::Error::custom(format_args!("it is of version {:?}; 2.1.0 is read", clip(version, 40)))),
            None => Err(A::Error::custom("it has no version: this is no SARIF")),
        }
    }
}

struct Runs<'s> {
    scan: &'s mut Scan,
    limits: Limits,
}

impl<'de> DeserializeSeed<'de> for Runs<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Runs<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of runs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Run { scan: &mut *self.scan, limits: self.limits })?.is_some() {}
        Ok(())
    }
}

struct Run<'s> {
    scan: &'s mut Scan,
    limits: Limits,
}

impl<'de> DeserializeSeed<'de> for Run<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Run<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a run")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut tool, mut results) = (Tool::default(), BTreeMap::new());
        let mut budget = Budget { left: MOST_RULE_BYTES, name_bytes: self.limits.name_bytes };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "tool" => map.next_value_seed(Part { budget: &mut budget, into: &mut tool })?,
                "results" => map.next_value_seed(Results { counts: &mut results, limits: self.limits })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if tool.driver.name.is_empty() {
            return Err(A::Error::custom("a run names no tool (tool.driver.name)"));
        }
        let (name, most) = (tool.driver.name.as_str(), self.limits.groups);
        self.scan.tools.entry(name.to_owned()).or_default();
        let rules = std::iter::once(&tool.driver).chain(&tool.extensions).flat_map(|component| &component.rules);
        let levels = rules.filter_map(|rule| Some((rule.id.as_deref()?, rule.level))).collect();
        for (alike, count) in results {
            self.scan.add(name, tool.group(alike, &levels), count, most);
        }
        Ok(())
    }
}

struct Results<'s> {
    counts: &'s mut BTreeMap<Alike, u64>,
    limits: Limits,
}

impl<'de> DeserializeSeed<'de> for Results<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Results<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of results")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(row) = list.next_element::<ResultRow>()? {
            let mut alike = row.alike(self.limits).map_err(A::Error::custom)?;
            if !self.counts.contains_key(&alike) && self.counts.len() >= self.limits.groups {
                (alike.rule_id, alike.index) = (Some(kiro_schemas::names::OTHER.to_owned()), None);
            }
            *self.counts.entry(alike).or_default() += 1;
        }
        Ok(())
    }
}
