//! Which predictor is served.

use serde::{Deserialize, Serialize};

use crate::evaluate::{Evaluation, Gain, Predictor};

/// Under this many labelled runs nothing but the base rate is served.
const MIN_LABELS: usize = 200;

/// What is served.
pub type Served = Predictor;

/// What is served, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What is served.
    pub served: Served,
    /// Why, in a sentence.
    pub reason: String,
    /// What it rests on.
    pub evaluation: Evaluation,
}

/// Judges: the model is served only if its AUC and its Brier score beat both rules with the lower ends of the 95 %
/// intervals above 0; else the better rule, by Brier score; under 200 labelled runs the base rate.
#[must_use]
pub fn judge(evaluation: Evaluation, has_sizes: bool) -> Judgement {
    let (served, reason) = decide(&evaluation, has_sizes);
    Judgement { served, reason, evaluation }
}

fn decide(evaluation: &Evaluation, has_sizes: bool) -> (Served, String) {
    if evaluation.examples < MIN_LABELS {
        return (Predictor::BaseRate, format!("there are {} labelled runs, a model needs {MIN_LABELS}", evaluation.examples));
    }
    let lost = evaluation.gains.iter().find_map(|(rule, by_auc, by_brier)| {
        let lost = |what: &str, gain: &Gain| {
            let line = format!("the model's {what} does not beat {} over the last {} runs", word(*rule), evaluation.window);
            (gain.low <= 0.0).then(|| format!("{line} (gain {:.4}, 95 % from {:.4} to {:.4})", gain.value, gain.low, gain.high))
        };
        lost("AUC", by_auc).or_else(|| lost("Brier score", by_brier))
    });
    match lost {
        None => (Predictor::Logistic, format!("it beats both rules over the last {} runs", evaluation.window)),
        Some(reason) => (better_rule(evaluation, has_sizes), reason),
    }
}

fn better_rule(evaluation: &Evaluation, has_sizes: bool) -> Predictor {
    let brier = |who| evaluation.recent_of(who).map_or(f64::INFINITY, |s| s.brier);
    if brier(Predictor::LastOutcome) <= brier(Predictor::ChangeSize) {
        Predictor::LastOutcome
    } else if has_sizes {
        Predictor::ChangeSize
    } else {
        Predictor::BaseRate
    }
}

/// The word for a predictor in answers.
pub(crate) const fn word(who: Predictor) -> &'static str {
    match who {
        Predictor::Logistic => "logistic",
        Predictor::LastOutcome => "last_outcome",
        Predictor::ChangeSize => "change_size",
        Predictor::BaseRate => "base_rate",
    }
}
