//! One answer: the probability with its reasons.

use std::collections::BTreeMap;

use kiro_ports::FeatureRow;
use kiro_schemas::risk::{Baselines, Confidence, RiskAssessment, RiskFactor};
use kiro_schemas::{Micros, OffsetVector, invariant};
use kiro_tables::feature_names;

use crate::baseline::{last_of, size_of};
use crate::evaluate::Predictor;
use crate::factor::Group;
use crate::judge::word;
use crate::metrics::{bin_of, wilson};
use crate::model::Model;
use crate::risk::RiskModel;
use crate::solver::sigmoid;

/// Known runs of a pipeline from which its history counts as long.
const LONG_HISTORY: u64 = 100;
/// Known runs below which a history is too short for more than low confidence.
const SHORT_HISTORY: u64 = 20;
/// Runs that the base rate is worth for a pipeline that nobody knows.
const UNKNOWN_RUNS: f64 = 4.0;
/// Contributions below this need no advice.
const WORTH_ADVICE: f64 = 0.01;
/// Contributions below this are told together: they would read as 0.0 points.
const WORTH_TELLING: f64 = 0.000_5;

/// What to assess.
#[derive(Debug, Clone)]
pub struct AssessRequest {
    /// What is assessed.
    pub deployment_id: String,
    /// What is known of it.
    pub row: FeatureRow,
    /// The time.
    pub now: Micros,
    /// Which part of the log `row` includes.
    pub offsets: OffsetVector,
}

struct Score {
    value: f64,
    base: f64,
    served: Predictor,
    reason: String,
    factors: Vec<(Group, RiskFactor)>,
}

impl RiskModel {
    /// Assesses one run or deployment. A pipeline that nobody knows gets the base rate with low confidence.
    #[must_use]
    pub fn assess(&self, request: AssessRequest) -> RiskAssessment {
        let row = &request.row;
        let mut score = self.score(row);
        score.factors.sort_by(|(_, a), (_, b)| b.contribution.abs().total_cmp(&a.contribution.abs()));
        let sum: f64 = score.base + score.factors.iter().map(|(_, f)| f.contribution).sum::<f64>();
        invariant!(ContributionsAddUp, (sum - score.value).abs() < 1e-9);
        let advice = score.factors.iter().filter(|(_, f)| f.contribution >= WORTH_ADVICE);
        let mitigation_strategies = advice.filter_map(|(group, factor)| group.mitigation(factor.value).map(str::to_owned)).collect();
        let rules = &self.body.rules;
        RiskAssessment {
            deployment_id: request.deployment_id,
            overall_risk_score: score.value,
            interval: self.interval(&score, row),
            confidence_level: confidence(score.served, row.known_runs),
            base_score: score.base,
            risk_factors: condensed(score.factors),
            mitigation_strategies,
            assessment_timestamp: request.now,
            model_version: self.version().to_owned(),
            served_by: format!("{}: {}", word(score.served), score.reason),
            baselines: Baselines {
                base_rate: rules.base_rate,
                last_outcome: last_of(row).map(|_| rules.by_last_outcome(row)),
                change_size: rules.change_size.zip(size_of(row)).map(|(rule, size)| rule.predict(size)),
            },
            offsets: request.offsets,
        }
    }

    fn score(&self, row: &FeatureRow) -> Score {
        let (rules, judgement) = (&self.body.rules, &self.body.judgement);
        let base = rules.base_rate;
        let plain = |reason: String| Score { value: base, base, served: Predictor::BaseRate, reason, factors: Vec::new() };
        if row.known_runs == 0 {
            return plain("no run of the pipeline is known yet".to_owned());
        }
        let reason = judgement.reason.clone();
        let rule = |value: f64, shown: Option<f64>, group: Group, reason: String| {
            let factor = factor(&group, shown, value - base);
            Score { value, base, served: judgement.served, reason, factors: vec![(group, factor)] }
        };
        match (judgement.served, &self.body.model) {
            (Predictor::Logistic, Some(model)) => {
                let (value, base, factors) = explain(model, row);
                Score { value, base, served: Predictor::Logistic, reason, factors }
            }
            (Predictor::LastOutcome, _) => {
                let last = last_of(row).map(f64::from);
                rule(rules.by_last_outcome(row), last, Group::LastOutcome, reason)
            }
            (Predictor::ChangeSize, _) => rule(rules.by_change_size(row), size_of(row), Group::ChangeSize, reason),
            (Predictor::BaseRate | Predictor::Logistic, _) => plain(reason),
        }
    }

    /// Wilson's interval of the failure rate that was observed in the score's bin, on no more runs than the pipeline has;
    /// widened to hold the score.
    fn interval(&self, score: &Score, row: &FeatureRow) -> [f64; 2] {
        let own = row.known_runs as f64;
        let evaluation = &self.body.judgement.evaluation;
        let (hits, count) = match score.served {
            _ if row.known_runs == 0 => (score.value * UNKNOWN_RUNS, UNKNOWN_RUNS),
            Predictor::Logistic => {
                let (runs, failures) = evaluation.bins.get(bin_of(score.value, 10)).copied().unwrap_or_default();
                let count = (runs as f64).min(own.max(UNKNOWN_RUNS));
                (failures as f64 / (runs as f64).max(1.0) * count, count)
            }
            _ => {
                let count = (evaluation.predicted as f64).min(own).max(UNKNOWN_RUNS);
                (score.value * count, count)
            }
        };
        let [low, high] = wilson(hits, count);
        [low.min(score.value), high.max(score.value)]
    }
}

fn confidence(served: Predictor, known_runs: u64) -> Confidence {
    match served {
        Predictor::BaseRate => Confidence::Low,
        _ if known_runs < SHORT_HISTORY => Confidence::Low,
        Predictor::Logistic if known_runs >= LONG_HISTORY => Confidence::High,
        Predictor::Logistic | Predictor::LastOutcome | Predictor::ChangeSize => Confidence::Medium,
    }
}

/// Probability, base and factors: the way from base to score is shared out by what each group adds to the logit.
fn explain(model: &Model, row: &FeatureRow) -> (f64, f64, Vec<(Group, RiskFactor)>) {
    let mut groups: BTreeMap<Group, f64> = BTreeMap::new();
    for (column, part) in model.parts(row) {
        *groups.entry(Group::of(column)).or_default() += part;
    }
    let (base_logit, sum) = (model.base_logit(), groups.values().sum::<f64>());
    let (base, value) = (sigmoid(base_logit), sigmoid(base_logit + sum));
    // Where the groups cancel out, the share is the slope of the curve.
    let share = if sum.abs() < 1e-6 { base * (1.0 - base) } else { (value - base) / sum };
    let value = if sum.abs() < 1e-6 { base + share * sum } else { value };
    let factors = groups.into_iter().map(|(group, part)| {
        let shown = shown(&group, row);
        let factor = factor(&group, shown, share * part);
        (group, factor)
    });
    (value, base, factors.collect())
}

fn factor(group: &Group, value: Option<f64>, contribution: f64) -> RiskFactor {
    RiskFactor { name: group.name().to_owned(), value, contribution, explanation: group.explain(value, contribution) }
}

/// The factors that tell something, then the rest as one, so that all contributions still add up to the score.
fn condensed(factors: Vec<(Group, RiskFactor)>) -> Vec<RiskFactor> {
    let is_told = |factor: &RiskFactor| factor.contribution.abs() >= WORTH_TELLING;
    if factors.len() == 1 {
        return factors.into_iter().map(|(_, factor)| factor).collect();
    }
    let (told, rest): (Vec<_>, Vec<_>) = factors.into_iter().partition(|(_, factor)| is_told(factor));
    let mut shown: Vec<RiskFactor> = told.into_iter().map(|(_, factor)| factor).collect();
    if rest.is_empty() {
        return shown;
    }
    let missing: Vec<&str> = rest.iter().filter(|(_, factor)| factor.value.is_none()).map(|(group, _)| group.plain()).collect();
    let not_given = if missing.is_empty() { String::new() } else { format!("; not given: {}", missing.join(", ")) };
    let explanation = format!("{} more, each of less than {} points{not_given}", rest.len(), WORTH_TELLING * 100.0);
    let contribution = rest.iter().map(|(_, factor)| factor.contribution).sum();
    shown.push(RiskFactor { name: "other".to_owned(), value: None, contribution, explanation });
    shown
}

/// The value that is shown for a group.
fn shown(group: &Group, row: &FeatureRow) -> Option<f64> {
    let declared = |name: &str| row.declared.get(name).copied();
    let value = match (group, group.shown()) {
        (Group::ChangeSize, _) => size_of(row),
        (Group::Declared(name), _) => declared(name),
        (_, Some((name, log))) => {
            let at = feature_names().iter().position(|n| *n == name);
            at.and_then(|at| row.history.get(at)).map(|v| if log { v.signum() * v.abs().exp_m1() } else { *v })
        }
        (_, None) => None,
    };
    value.filter(|v| v.is_finite())
}
