//! Cobertura XML.
//!
//! # Source
//! `coverage-04.dtd`. Tools disagree about what the root says and whether a method repeats the lines of its class: the lines of
//! classes are counted, and the root is asked only when there is no line. `condition-coverage="50% (1/2)"` counts branches.

use super::{Counts, Coverage, Share};
use crate::Limits;
use crate::error::Fail;
use crate::text::{decode, local};
use crate::xml::{Attributes, Handler};

/// Hears of elements and counts lines.
pub(crate) struct Cobertura {
    pub(crate) coverage: Coverage,
    package: String,
    counts: Counts,
    has_lines: bool,
    /// What the root says.
    root: Counts,
    /// Methods that are open: their lines are those of the class once more.
    methods: usize,
}

impl Cobertura {
    pub(crate) fn new(limits: Limits) -> Self {
        let counts = Counts::default();
        Self { coverage: Coverage::new(limits), package: String::new(), counts, has_lines: false, root: counts, methods: 0 }
    }

    fn open_root(&mut self, name: &[u8], attributes: Attributes<'_>) -> Result<(), Fail> {
        if local(name) != b"coverage" {
            return Err(Fail::broken("the root is not <coverage>: this is no Cobertura report"));
        }
        let mut is_clover = false;
        for attribute in attributes {
            let (name, value) = attribute?;
            let number = |value| decode(value).trim().parse::<u64>().unwrap_or(0);
            match name {
                b"line-rate" => self.coverage.line_ratio = decode(value).trim().parse().ok(),
                b"lines-covered" => self.root.lines.covered = number(value),
                b"lines-valid" => self.root.lines.total = number(value),
                b"branches-covered" => self.root.branches.covered = number(value),
                b"branches-valid" => self.root.branches.total = number(value),
                b"clover" | b"generated" => is_clover = true,
                _ => {}
            }
        }
        if is_clover { Err(Fail::broken("this is a Clover report, which is not read; Cobertura is")) } else { Ok(()) }
    }

    fn line(&mut self, attributes: Attributes<'_>) -> Result<(), Fail> {
        let (mut hits, mut branches, mut is_branch) = (false, None, false);
        for attribute in attributes {
            match attribute? {
                (b"hits", value) => hits = value.iter().any(|digit| matches!(digit, b'1'..=b'9')),
                (b"branch", value) => is_branch = value.eq_ignore_ascii_case(b"true"),
                (b"condition-coverage", value) => branches = conditions(&decode(value)),
                _ => {}
            }
        }
        self.has_lines = true;
        self.counts.lines.add(u64::from(hits), 1);
        if let Some(branches) = branches.filter(|_| is_branch) {
            self.counts.branches.add(branches.covered, branches.total);
        }
        Ok(())
    }
}

/// `50% (1/2)`.
fn conditions(text: &str) -> Option<Share> {
    let (_, counts) = text.split_once('(')?;
    let (covered, total) = counts.trim_end().strip_suffix(')')?.split_once('/')?;
    Some(Share { covered: covered.trim().parse().ok()?, total: total.trim().parse().ok()? })
}

impl Handler for Cobertura {
    fn open(&mut self, name: &[u8], attributes: Attributes<'_>, depth: usize) -> Result<(), Fail> {
        match local(name) {
            _ if depth == 0 => return self.open_root(name, attributes),
            b"package" => {
                self.counts = Counts::default();
                self.package.clear();
                for attribute in attributes {
                    if let (b"name", value) = attribute? {
                        self.package.push_str(&decode(value));
                    }
                }
            }
            b"method" => self.methods += 1,
            b"line" if self.methods == 0 => return self.line(attributes),
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, _: &[u8], _: bool) {}

    fn close(&mut self, name: &[u8], depth: usize) -> Result<(), Fail> {
        match local(name) {
            b"package" => self.coverage.add(&self.package, std::mem::take(&mut self.counts)),
            b"method" => self.methods = self.methods.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            // Lines outside of packages, as some tools write them.
            if self.counts != Counts::default() {
                self.coverage.add("", self.counts);
            }
            self.coverage.whole = (!self.has_lines && self.root != Counts::default()).then_some(self.root);
        }
        Ok(())
    }
}
