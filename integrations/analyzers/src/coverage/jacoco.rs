//! `JaCoCo` XML.
//!
//! # Source
//! `report.dtd`, version 1.1: a counter stands directly in what it counts. Those of packages and of the whole are read; classes
//! and source files repeat them.

use super::{Counts, Coverage};
use crate::Limits;
use crate::error::Fail;
use crate::text::{decode, local};
use crate::xml::{Attributes, Handler};

/// Hears of elements and reads counters.
pub(crate) struct Jacoco {
    pub(crate) coverage: Coverage,
    package: String,
    counts: Counts,
    whole: Counts,
    /// The depth of the package that is open.
    open: Option<usize>,
}

impl Jacoco {
    pub(crate) fn new(limits: Limits) -> Self {
        let (package, counts) = (String::new(), Counts::default());
        Self { coverage: Coverage::new(limits), package, counts, whole: counts, open: None }
    }

    fn counter(counts: &mut Counts, attributes: Attributes<'_>) -> Result<(), Fail> {
        let (mut kind, mut missed, mut covered) = (&b""[..], 0_u64, 0_u64);
        for attribute in attributes {
            let (name, value) = attribute?;
            let number = || {
                let text = decode(value);
                text.trim().parse().map_err(|_no| Fail::broken(format!("a counter has no number in {}", String::from_utf8_lossy(name))))
            };
            match name {
                b"type" => kind = value,
                b"missed" => missed = number()?,
                b"covered" => covered = number()?,
                _ => {}
            }
        }
        match kind {
            b"LINE" => counts.lines.add(covered, covered.saturating_add(missed)),
            b"BRANCH" => counts.branches.add(covered, covered.saturating_add(missed)),
            _ => {}
        }
        Ok(())
    }
}

impl Handler for Jacoco {
    fn open(&mut self, name: &[u8], attributes: Attributes<'_>, depth: usize) -> Result<(), Fail> {
        match local(name) {
            b"report" if depth == 0 => {}
            _ if depth == 0 => return Err(Fail::broken("the root is not <report>: this is no JaCoCo report")),
            b"package" if self.open.is_none() => {
                self.open = Some(depth);
                self.counts = Counts::default();
                self.package.clear();
                for attribute in attributes {
                    if let (b"name", value) = attribute? {
                        self.package.push_str(&decode(value));
                    }
                }
            }
            b"counter" if depth == 1 => return Self::counter(&mut self.whole, attributes),
            b"counter" if self.open.is_some_and(|package| depth == package + 1) => return Self::counter(&mut self.counts, attributes),
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, _: &[u8], _: bool) {}

    fn close(&mut self, _: &[u8], depth: usize) -> Result<(), Fail> {
        if self.open == Some(depth) {
            self.open = None;
            self.coverage.add(&self.package, self.counts);
        }
        if depth == 0 {
            self.coverage.whole = (self.whole != Counts::default()).then_some(self.whole);
        }
        Ok(())
    }
}
