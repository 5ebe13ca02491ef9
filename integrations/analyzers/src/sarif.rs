//! SARIF 2.1.0: how many results there are, by level, rule and tool.
//!
//! # Source
//! OASIS SARIF 2.1.0, sections 3.27.9 `kind`, 3.27.10 `level` (of the rule, then `warning`), 3.27.23 `suppressions`, 3.27.24
//! `baselineState`, 3.35 `suppression`.

use std::collections::BTreeMap;
use std::io::BufRead;

use kiro_schemas::names::OTHER;
use serde::Deserializer as _;
use serde_json::error::Category;

use crate::emit::{Emitter, Metric};
use crate::error::{Error, Place, Result};
use crate::{Limits, Stopped};

mod guard;
mod run;
mod tool;

use guard::Guard;
use run::Top;

/// How bad a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warning,
    Note,
    None,
}

impl Level {
    const ALL: [Self; 4] = [Self::Error, Self::Warning, Self::Note, Self::None];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::None => "none",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// What results are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) rule: String,
    pub(crate) level: Level,
    /// Against an earlier scan: `new`, `unchanged`, `updated` or `absent`; empty when it is not told.
    pub(crate) baseline: &'static str,
    pub(crate) is_suppressed: bool,
}

/// What a report says, tool by tool.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) tools: BTreeMap<String, BTreeMap<Group, u64>>,
    groups: usize,
}

impl Scan {
    /// Counts results; beyond so many groups under the rule `other`.
    pub(crate) fn add(&mut self, tool: &str, group: Group, count: u64, most: usize) {
        let tool = if self.tools.contains_key(tool) || self.tools.len() < most { tool } else { OTHER };
        let groups = self.tools.entry(tool.to_owned()).or_default();
        let group = if groups.contains_key(&group) || self.groups < most { group } else { Group { rule: OTHER.to_owned(), ..group } };
        let known = groups.len();
        *groups.entry(group).or_default() += count;
        self.groups += groups.len() - known;
    }

    /// Tells how many results each tool has: at each level, also when there are none, then rule by rule.
    pub(crate) fn tell(&self, emitter: &mut Emitter<'_, '_>) -> Result<(), Stopped> {
        for (tool, groups) in &self.tools {
            for level in Level::ALL {
                let sum = |takes: &dyn Fn(&Group) -> bool| -> u64 {
                    groups.iter().filter(|(group, _)| group.level == level && takes(group)).map(|(_, count)| count).sum()
                };
                let stands = |group: &Group| !group.is_suppressed && group.baseline != "absent";
                let values = [
                    ("scan.results", sum(&stands), true),
                    ("scan.new_results", sum(&|group| stands(group) && group.baseline == "new"), has_baseline(groups)),
                    ("scan.suppressed_results", sum(&|group| group.is_suppressed && group.baseline != "absent"), true),
                ];
                for (name, count, _) in values.into_iter().filter(|(_, _, is_told)| *is_told) {
                    let labels = [("tool", tool.as_str()), ("level", level.as_str())];
                    emitter.measure(&Metric { name, value: count as f64, unit: "{result}", labels: &labels })?;
                }
            }
            for (group, count) in groups {
                let suppressed = if group.is_suppressed { "true" } else { "false" };
                let labels = [
                    ("tool", tool.as_str()),
                    ("level", group.level.as_str()),
                    ("rule", group.rule.as_str()),
                    ("suppressed", suppressed),
                    ("baseline_state", group.baseline),
                ];
                let labels = if group.baseline.is_empty() { &labels[..4] } else { &labels[..] };
                emitter.measure(&Metric { name: "scan.rule_results", value: *count as f64, unit: "{result}", labels })?;
            }
        }
        Ok(())
    }
}

fn has_baseline(groups: &BTreeMap<Group, u64>) -> bool {
    groups.keys().any(|group| !group.baseline.is_empty())
}

/// Reads a report.
pub(crate) fn read(input: &mut dyn BufRead, limits: Limits) -> Result<Scan> {
    let mut guard = Guard::new(input, limits);
    let mut scan = Scan::default();
    let told = {
        let mut json = serde_json::Deserializer::from_reader(&mut guard);
        json.deserialize_map(Top { scan: &mut scan, limits }).and_then(|()| json.end())
    };
    let Err(error) = told else { return Ok(scan) };
    if let Some(error) = guard.failed.take() {
        return Err(error);
    }
    let place = Place { line: error.line() as u64, offset: guard.read };
    match error.classify() {
        Category::Eof => Err(Error::Broken { place, what: "the JSON ends too early".to_owned() }),
        _ => Err(Error::Broken { place, what: error.to_string() }),
    }
}
