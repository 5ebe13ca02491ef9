//! The metrics of served models: which, and how good it is beside its baselines.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use kiro_models::{Predictor, RiskModel, Scores};
use kiro_schemas::Tenant;
use kiro_schemas::names::{MOST_NAMES, top};
use kiro_schemas::risk::Confidence;
use prometheus::core::Collector;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

/// Who can be served, as labels.
pub(super) const PREDICTORS: [(Predictor, &str); 4] = [
    (Predictor::Logistic, "logistic"),
    (Predictor::LastOutcome, "last_outcome"),
    (Predictor::ChangeSize, "change_size"),
    (Predictor::BaseRate, "base_rate"),
];

pub(super) const fn confidence(level: Confidence) -> &'static str {
    match level {
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
    }
}

fn name_of(predictor: Predictor) -> &'static str {
    PREDICTORS.iter().find(|(known, _)| *known == predictor).map_or(kiro_schemas::names::OTHER, |(_, name)| name)
}

/// What is told of a model.
#[derive(Debug)]
struct Figures {
    version: String,
    estimator: &'static str,
    labels: usize,
    /// Of each predictor, and of the one that is served.
    scores: Vec<(&'static str, Scores)>,
}

/// Gauges of the served models, of the tenants with most labels.
#[derive(Debug)]
pub(super) struct Gauges {
    info: IntGaugeVec,
    labels: IntGaugeVec,
    auc: GaugeVec,
    brier: GaugeVec,
    calibration: GaugeVec,
    served: Mutex<BTreeMap<String, Figures>>,
}

impl Gauges {
    pub(super) fn new() -> Result<Self> {
        const BY: &[&str] = &["tenant", "predictor"];
        let gauges = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), BY);
        let info = Opts::new("kiro_model_info", "The served model: its version, and the predictor that earned its place. Always 1.");
        Ok(Self {
            info: IntGaugeVec::new(info, &["tenant", "version", "predictor"])?,
            labels: IntGaugeVec::new(Opts::new("kiro_model_labels", "Labelled runs that the model was judged on."), &["tenant"])?,
            auc: gauges("kiro_model_auc_ratio", "Area under the curve over the newest labelled runs, by predictor.")?,
            brier: gauges("kiro_model_brier_ratio", "Brier score over the newest labelled runs, by predictor; smaller is better.")?,
            calibration: gauges("kiro_model_calibration_error_ratio", "Calibration error over the newest labelled runs, by predictor.")?,
            served: Mutex::default(),
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<()> {
        let all: [Box<dyn Collector>; 5] = [
            Box::new(self.info.clone()),
            Box::new(self.labels.clone()),
            Box::new(self.auc.clone()),
            Box::new(self.brier.clone()),
            Box::new(self.calibration.clone()),
        ];
        Ok(all.into_iter().try_for_each(|metric| registry.register(metric))?)
    }

    pub(super) fn served(&self, tenant: &Tenant, model: &RiskModel) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.insert(tenant.as_str().to_owned(), figures(model));
        let shown = top(served.iter().map(|(tenant, of)| (tenant.clone(), of.labels as u64)), MOST_NAMES);
        [&self.info, &self.labels].into_iter().for_each(IntGaugeVec::reset);
        [&self.auc, &self.brier, &self.calibration].into_iter().for_each(GaugeVec::reset);
        for (tenant, of) in served.iter().filter(|(tenant, _)| shown.contains(*tenant)) {
            self.show(tenant, of);
        }
    }

    fn show(&self, tenant: &str, of: &Figures) {
        self.info.with_label_values(&[tenant, of.version.as_str(), of.estimator]).set(1);
        self.labels.with_label_values(&[tenant]).set(i64::try_from(of.labels).unwrap_or(i64::MAX));
        for (predictor, scores) in &of.scores {
            if let Some(auc) = scores.auc {
                self.auc.with_label_values(&[tenant, predictor]).set(auc);
            }
            self.brier.with_label_values(&[tenant, predictor]).set(scores.brier);
            self.calibration.with_label_values(&[tenant, predictor]).set(scores.calibration_error);
        }
    }
}

fn figures(model: &RiskModel) -> Figures {
    let judgement = model.judgement();
    let evaluation = &judgement.evaluation;
    let served = evaluation.recent_of(judgement.served).map(|scores| ("served", scores.clone()));
    Figures {
        version: model.version().to_owned(),
        estimator: name_of(judgement.served),
        labels: evaluation.examples,
        scores: evaluation.recent.iter().map(|(who, scores)| (name_of(*who), scores.clone())).chain(served).collect(),
    }
}
