//! The figures of a period.

use kiro_schemas::delivery::{Definitions, Median};
use kiro_schemas::{Span, Zone};

use super::assess::Outcome;
use super::evidence;
use super::state::{Unit, since};
use crate::quantile::quantile;

/// What a period comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) deployments: usize,
    pub(super) deployment_days: usize,
    pub(super) failed_attempts: usize,
    pub(super) changes: usize,
    pub(super) lead_p50_ms: Option<f64>,
    pub(super) lead_p90_ms: Option<f64>,
    pub(super) deploy_p50_ms: Option<f64>,
    pub(super) failures: usize,
    pub(super) recoveries: usize,
    pub(super) recovery_p50_ms: Option<f64>,
    pub(super) reworks: usize,
    pub(super) evidence: String,
}

impl Figures {
    /// Of a period in which nothing was deployed.
    pub(super) fn none() -> Self {
        Self {
            deployments: 0,
            deployment_days: 0,
            failed_attempts: 0,
            changes: 0,
            lead_p50_ms: None,
            lead_p90_ms: None,
            deploy_p50_ms: None,
            failures: 0,
            recoveries: 0,
            recovery_p50_ms: None,
            reworks: 0,
            evidence: "{}".to_owned(),
        }
    }

    /// Whether nothing was deployed, nor tried.
    pub(super) const fn is_none(&self) -> bool {
        self.deployments == 0 && self.failed_attempts == 0
    }
}

/// The figures of a period, of outcomes that cover it, in their order.
pub(super) fn of(unit: &Unit, outcomes: &[Outcome<'_>], span: Span, zone: Zone, definitions: Definitions) -> Figures {
    let lies = outcomes.partition_point(|o| o.at.0 < span.start.0)..outcomes.partition_point(|o| o.at.0 < span.end.0);
    let outcomes = outcomes.get(lies).unwrap_or_default();
    let attempts = unit.deployments.range(since(span.start.0)..since(span.end.0));
    let failed_attempts = attempts.filter(|(_, (deployment, _))| !deployment.is_success).count();
    if outcomes.is_empty() && failed_attempts == 0 {
        return Figures::none();
    }
    let mut days: Vec<_> = outcomes.iter().map(|o| zone.day(kiro_schemas::Micros(o.at.0))).collect();
    days.dedup();
    let brought = || outcomes.iter().flat_map(|o| &o.brought);
    let leads = sorted(brought().map(|b| b.lead_ms));
    let deploys = sorted(brought().filter_map(|b| b.deploy_ms));
    let recoveries = sorted(outcomes.iter().flat_map(|o| o.recoveries.iter().copied()));
    Figures {
        deployments: outcomes.len(),
        deployment_days: days.len(),
        failed_attempts,
        changes: leads.len(),
        lead_p50_ms: median(&leads, definitions.median),
        lead_p90_ms: quantile(&leads, 0.9),
        deploy_p50_ms: median(&deploys, definitions.median),
        failures: outcomes.iter().filter(|o| !o.blames.is_empty()).count(),
        recoveries: recoveries.len(),
        recovery_p50_ms: median(&recoveries, definitions.median),
        reworks: outcomes.iter().filter(|o| o.is_rework).count(),
        evidence: evidence::of(unit, outcomes, span),
    }
}

fn sorted(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values
}

/// # Source
/// DevLake's dashboards take the greatest value whose `percent_rank` is at most 0.5: the lower of the two in the middle.
fn median(sorted: &[i64], median: Median) -> Option<f64> {
    match median {
        Median::Interpolated => quantile(sorted, 0.5),
        Median::Lower => sorted.get(sorted.len().checked_sub(1)? / 2).map(|value| *value as f64),
    }
}
