//! The metrics of decisions, models, deliveries, upkeep and the process itself; no other file of this crate names one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use kiro_log::SpillLog;
use kiro_models::RiskModel;
use kiro_ports::PortError;
use kiro_schemas::gate::{GateDecision, Status, Verdict};
use kiro_schemas::names::{MOST_NAMES, OTHER, top};
use kiro_schemas::risk::RiskAssessment;
use kiro_schemas::{Micros, Tenant};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tracing::{debug, info, warn};

mod certificates;
mod models;
mod process;
mod spill;
mod upkeep;
mod watched;

#[cfg(test)]
mod tests;

pub(crate) use upkeep::Trash;
pub(crate) use watched::Watched;

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const SCORES: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
const VERDICTS: [Verdict; 4] = [Verdict::Passed, Verdict::Warning, Verdict::Inconclusive, Verdict::Failed];

/// The metrics of a process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry(Arc<Metrics>);

#[derive(Debug)]
struct Metrics {
    assessments: IntCounterVec,
    scores: Histogram,
    assess_seconds: Histogram,
    assess_errors: IntCounter,
    decisions: IntCounterVec,
    decide_seconds: HistogramVec,
    decide_errors: IntCounter,
    deliveries: IntCounterVec,
    pending: IntGauge,
    webhooks: IntCounterVec,
    backfill: IntCounterVec,
    models: models::Gauges,
    upkeep: upkeep::Metrics,
    certificates: certificates::Gauges,
    /// The gates with series of their own.
    gates: OnceLock<BTreeSet<String>>,
}

/// The families of several registries as those of one: each name once.
pub(crate) fn merged(families: impl IntoIterator<Item = MetricFamily>) -> Vec<MetricFamily> {
    let mut by_name: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in families {
        match by_name.entry(family.name().to_owned()) {
            Entry::Vacant(place) => drop(place.insert(family)),
            Entry::Occupied(mut known) => known.get_mut().mut_metric().extend(family.take_metric()),
        }
    }
    by_name.into_values().collect()
}

/// How a try to deliver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivered {
    Arrived,
    Retried,
    Failed,
}

impl Delivered {
    const ALL: [Self; 3] = [Self::Arrived, Self::Retried, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Arrived => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
        }
    }
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Webhook<'a> {
    /// It was taken; its event type is read.
    Read(&'a str),
    /// It was taken; its event type gives nothing.
    Unread(&'a str),
    /// It was taken before.
    Known,
    /// It proved nothing; why.
    Refused(&'a str),
}

impl Webhook<'_> {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Unread(_) => "unread",
            Self::Known => "known",
            Self::Refused(_) => "refused",
        }
    }
}

/// How an event of the past was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// By an import.
    Imported,
    /// By looking for what webhooks missed: they had told it.
    Known,
    /// The same: they had not.
    Missed,
}

impl Found {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Known => "known",
            Self::Missed => "missed",
        }
    }
}

impl Telemetry {
    /// Makes the metrics and registers them.
    pub(crate) fn register(registry: &Registry, spill: Option<Arc<SpillLog>>) -> Result<Self> {
        let metrics = Metrics::new()?;
        let all: [Box<dyn Collector>; 13] = [
            Box::new(metrics.assessments.clone()),
            Box::new(metrics.scores.clone()),
            Box::new(metrics.assess_seconds.clone()),
            Box::new(metrics.assess_errors.clone()),
            Box::new(metrics.decisions.clone()),
            Box::new(metrics.decide_seconds.clone()),
            Box::new(metrics.decide_errors.clone()),
            Box::new(metrics.deliveries.clone()),
            Box::new(metrics.pending.clone()),
            Box::new(metrics.webhooks.clone()),
            Box::new(metrics.backfill.clone()),
            Box::new(process::ProcessMetrics::new()?),
            Box::new(spill::SpillMetrics::new(spill)?),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))?;
        metrics.models.register(registry)?;
        metrics.upkeep.register(registry)?;
        metrics.certificates.register(registry)?;
        Ok(Self(Arc::new(metrics)))
    }

    /// The gates that there are: the first of them have series of their own, from zero on.
    pub(crate) fn gates<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let first = names.into_iter().zip((0..u64::MAX).rev()).map(|(name, weight)| (name.to_owned(), weight));
        for gate in self.0.gates.get_or_init(|| top(first, MOST_NAMES)) {
            for verdict in VERDICTS {
                for status in [Status::Passed, Status::Failed] {
                    self.0.decisions.with_label_values(&[gate.as_str(), verdict.as_str(), status.as_str()]);
                }
            }
        }
    }

    fn gate<'a>(&self, name: &'a str) -> &'a str {
        if self.0.gates.get().is_some_and(|gates| gates.contains(name)) { name } else { OTHER }
    }

    /// A risk was assessed, or could not be.
    fn assessed(&self, answer: &Result<RiskAssessment, PortError>, seconds: f64) {
        match answer {
            Ok(risk) => {
                let served = risk.served_by.split(':').next().and_then(|word| models::PREDICTORS.iter().find(|(_, name)| *name == word));
                let confidence = models::confidence(risk.confidence_level);
                self.0.assessments.with_label_values(&[confidence, served.map_or(OTHER, |(_, name)| name)]).inc();
                self.0.scores.observe(risk.overall_risk_score);
                self.0.assess_seconds.observe(seconds);
                debug!(score = risk.overall_risk_score, confidence, seconds, "risk assessed");
            }
            Err(error) => {
                self.0.assess_errors.inc();
                debug!(%error, "no risk was assessed");
            }
        }
    }

    /// A gate was decided, or could not be.
    fn decided(&self, answer: &Result<GateDecision, PortError>, seconds: f64) {
        match answer {
            Ok(decision) => {
                let (gate, verdict, status) = (self.gate(&decision.gate), decision.verdict.as_str(), decision.status.as_str());
                self.0.decisions.with_label_values(&[gate, verdict, status]).inc();
                self.0.decide_seconds.with_label_values(&[gate]).observe(seconds);
                debug!(gate = decision.gate, verdict, status, seconds, "gate decided");
            }
            Err(error) => {
                self.0.decide_errors.inc();
                debug!(%error, "no gate was decided");
            }
        }
    }

    /// A model is served from now on.
    pub(crate) fn served(&self, tenant: &Tenant, model: &RiskModel) {
        self.0.models.served(tenant, model);
        info!(%tenant, version = model.version(), served = ?model.served(), "model served");
    }

    /// A door shows a certificate from now on.
    pub(crate) fn certificate(&self, door: &str, expires_at: Micros) {
        self.0.certificates.served(door, expires_at);
    }

    /// The files of a door hold what it does not show.
    pub(crate) fn certificate_refused(&self, door: &str) {
        self.0.certificates.refused(door);
    }

    /// A webhook came.
    pub(crate) fn webhook(&self, platform: &'static str, source: &str, came: Webhook<'_>) {
        self.0.webhooks.with_label_values(&[platform, came.as_str()]).inc();
        debug!(platform, from = source, came = came.as_str(), "webhook");
    }

    /// Events were found in a platform's past; those that were looked for beside its webhooks are told or missed by them.
    pub(crate) fn backfilled(&self, platform: &'static str, found: Found, events: usize) {
        self.0.backfill.with_label_values(&[platform, found.as_str()]).inc_by(events as u64);
    }

    /// Deliveries that wait.
    pub(crate) fn pending(&self, deliveries: u64) {
        self.0.pending.set(i64::try_from(deliveries).unwrap_or(i64::MAX));
    }

    fn count(&self, outcome: Delivered) {
        self.0.deliveries.with_label_values(&[outcome.as_str()]).inc();
    }

    /// A delivery arrived.
    pub(crate) fn delivered(&self, target: &str, key: &str) {
        self.count(Delivered::Arrived);
        info!(target_name = target, key, "delivered");
    }

    /// A delivery did not arrive; it is tried again.
    pub(crate) fn retried(&self, target: &str, key: &str, reason: &str) {
        self.count(Delivered::Retried);
        warn!(target_name = target, key, reason, "delivery failed, will be tried again");
    }

    /// A delivery is given up.
    pub(crate) fn given_up(&self, target: &str, key: &str, reason: &str) {
        self.count(Delivered::Failed);
        warn!(target_name = target, key, reason, "delivery given up");
    }
}

impl Metrics {
    fn new() -> Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let scores = HistogramOpts::new("kiro_risk_score_ratio", "Probabilities of failure that were answered.").buckets(SCORES.to_vec());
        let metrics = Self {
            assessments: counters(
                "kiro_risk_assessments_total",
                "Risks that were assessed, by confidence and by what was served.",
                &["confidence", "served"],
            )?,
            scores: Histogram::with_opts(scores)?,
            assess_seconds: Histogram::with_opts(seconds("kiro_risk_assess_seconds", "Time of an assessment, until it is in the log."))?,
            assess_errors: IntCounter::new("kiro_risk_errors_total", "Assessments that failed.")?,
            decisions: counters("kiro_gate_decisions_total", "Decisions, by gate, verdict and status.", &["gate", "verdict", "status"])?,
            decide_seconds: HistogramVec::new(
                seconds("kiro_gate_decide_seconds", "Time of a decision, until it is in the log."),
                &["gate"],
            )?,
            decide_errors: IntCounter::new("kiro_gate_errors_total", "Questions to gates that gave no decision.")?,
            deliveries: counters(
                "kiro_outbox_deliveries_total",
                "Tries to deliver what decisions start, by how they ended.",
                &["outcome"],
            )?,
            pending: IntGauge::new("kiro_outbox_pending", "Deliveries that wait.")?,
            webhooks: counters(
                "kiro_webhooks_total",
                "Webhooks, by platform and outcome: of an event type that is read or unread, known before, refused.",
                &["platform", "outcome"],
            )?,
            backfill: counters(
                "kiro_backfill_events_total",
                "Events that were found in the past of a platform: imported, or by reconciliation known or missed by webhooks.",
                &["platform", "found"],
            )?,
            models: models::Gauges::new()?,
            upkeep: upkeep::Metrics::new()?,
            certificates: certificates::Gauges::new()?,
            gates: OnceLock::new(),
        };
        for outcome in Delivered::ALL {
            metrics.deliveries.with_label_values(&[outcome.as_str()]);
        }
        Ok(metrics)
    }
}
