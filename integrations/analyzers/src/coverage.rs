//! Coverage: how many lines and branches were run, of all and of each package.

use std::collections::BTreeMap;

use kiro_schemas::names::OTHER;

use crate::emit::{Emitter, Metric};
use crate::text::clip;
use crate::{Limits, Stopped};

mod cobertura;
mod jacoco;
mod lcov;

pub(crate) use cobertura::Cobertura;
pub(crate) use jacoco::Jacoco;
pub(crate) use lcov::read as lcov;

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) covered: u64,
    pub(crate) total: u64,
}

impl Share {
    pub(crate) fn add(&mut self, covered: u64, total: u64) {
        self.covered = self.covered.saturating_add(covered.min(total));
        self.total = self.total.saturating_add(total);
    }

    fn ratio(self) -> f64 {
        self.covered as f64 / self.total as f64
    }
}

/// Lines and branches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lines: Share,
    pub(crate) branches: Share,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.lines.add(other.lines.covered, other.lines.total);
        self.branches.add(other.branches.covered, other.branches.total);
    }
}

/// What a report of coverage says.
#[derive(Debug)]
pub(crate) struct Coverage {
    /// What it says of the whole, where the packages do not tell.
    pub(crate) whole: Option<Counts>,
    /// The ratio of lines of the whole, where nothing is counted.
    pub(crate) line_ratio: Option<f64>,
    packages: BTreeMap<String, Counts>,
    limits: Limits,
}

impl Coverage {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { whole: None, line_ratio: None, packages: BTreeMap::new(), limits }
    }

    /// Adds to a package; beyond so many packages to `other`.
    pub(crate) fn add(&mut self, package: &str, counts: Counts) {
        let package = clip(package, self.limits.name_bytes);
        let name = if self.packages.contains_key(package) || self.packages.len() < self.limits.groups { package } else { OTHER };
        self.packages.entry(name.to_owned()).or_default().add(counts);
    }

    /// Tells the values: of the whole, then of each package.
    pub(crate) fn tell(&self, emitter: &mut Emitter<'_, '_>) -> Result<(), Stopped> {
        let mut sum = Counts::default();
        self.packages.values().for_each(|counts| sum.add(*counts));
        let whole = self.whole.unwrap_or(sum);
        tell(emitter, &WHOLE, whole, &[])?;
        if let (0, Some(value)) = (whole.lines.total, self.line_ratio.filter(|ratio| (0.0..=1.0).contains(ratio))) {
            emitter.measure(&Metric { name: WHOLE[0], value, unit: "1", labels: &[] })?;
        }
        for (package, counts) in &self.packages {
            tell(emitter, &PACKAGE, *counts, &[("package", package)])?;
        }
        Ok(())
    }
}

const WHOLE: [&str; 6] = [
    "coverage.line_ratio",
    "coverage.lines_covered",
    "coverage.lines_total",
    "coverage.branch_ratio",
    "coverage.branches_covered",
    "coverage.branches_total",
];
const PACKAGE: [&str; 6] = [
    "coverage.package.line_ratio",
    "coverage.package.lines_covered",
    "coverage.package.lines_total",
    "coverage.package.branch_ratio",
    "coverage.package.branches_covered",
    "coverage.package.branches_total",
];

/// Ratio and counts of lines, then of branches; of nothing there is nothing to tell.
fn tell(emitter: &mut Emitter<'_, '_>, names: &[&'static str; 6], counts: Counts, labels: &[(&'static str, &str)]) -> Result<(), Stopped> {
    let of = |share: Share, unit| [(share.ratio(), "1"), (share.covered as f64, unit), (share.total as f64, unit)];
    let values = of(counts.lines, "{line}").into_iter().chain(of(counts.branches, "{branch}"));
    let totals = [counts.lines.total; 3].into_iter().chain([counts.branches.total; 3]);
    for ((name, (value, unit)), total) in names.iter().zip(values).zip(totals) {
        if total > 0 {
            emitter.measure(&Metric { name, value, unit, labels })?;
        }
    }
    Ok(())
}
