//! The simple rules that a model has to beat: last known outcome, size of change, base rate.

use kiro_ports::FeatureRow;
use kiro_tables::feature_names;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::model::MOST;
use crate::solver::{Problem, sigmoid, solve};
use crate::{Error, Example, Result, TrainConfig};

/// Failure rates after a failure and after a success.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LastOutcome {
    /// After a run that succeeded.
    pub after_success: f64,
    /// After a run that failed.
    pub after_failure: f64,
}

/// One-feature logistic regression on `ln(1 + size)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChangeSize {
    /// Per unit of the standardised size.
    pub coefficient: f64,
    /// At the mean size.
    pub intercept: f64,
    /// Mean of `ln(1 + size)`.
    pub mean: f64,
    /// Standard deviation of `ln(1 + size)`.
    pub deviation: f64,
}

/// All simple rules, learned from the same examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Share of failures, newer runs weighing more; 0.5 when nothing is known.
    pub base_rate: f64,
    /// By the last known outcome.
    pub last_outcome: LastOutcome,
    /// By the size of the change; `None` when no change declares one.
    pub change_size: Option<ChangeSize>,
}

/// Whether a declared attribute is a size of the change.
pub(crate) fn is_size(name: &str) -> bool {
    const SIZES: [&str; 5] = ["lines_added", "lines_deleted", "lines_changed", "additions", "deletions"];
    name.contains("churn") || SIZES.iter().any(|s| name.ends_with(s))
}

/// Size of the change: the sum of its declared churn and lines; `None` when it declares none.
pub(crate) fn size_of(row: &FeatureRow) -> Option<f64> {
    let mut sizes = row.declared.iter().filter(|(name, value)| is_size(name) && value.is_finite()).map(|(_, v)| v.max(0.0));
    sizes.next().map(|first| first + sizes.sum::<f64>())
}

/// Outcome of the last known run; `None` when no run is known.
pub(crate) fn last_of(row: &FeatureRow) -> Option<bool> {
    let at = feature_names().iter().position(|n| *n == "last")?;
    row.history.get(at).filter(|_| row.known_runs > 0).map(|v| *v > 0.5)
}

/// A failure rate with half a failure in one run as prior (Jeffreys).
#[derive(Default)]
struct Rate {
    failed: f64,
    all: f64,
}

impl Rate {
    fn add(&mut self, failed: bool, weight: f64) {
        self.failed += weight * f64::from(failed);
        self.all += weight;
    }

    fn value(&self) -> f64 {
        (self.failed + 0.5) / (self.all + 1.0)
    }
}

impl Rules {
    /// Whether a stored file says rules.
    pub(crate) fn check(&self) -> Result<()> {
        let rates = [self.base_rate, self.last_outcome.after_success, self.last_outcome.after_failure];
        if !rates.iter().all(|rate| (0.0..=1.0).contains(rate)) {
            return Err(Error::Odd("a rate is not in 0 to 1"));
        }
        let is_usable = |rule: &ChangeSize| rule.deviation > 0.0 && rule.intercept.abs() <= MOST && rule.coefficient.abs() <= MOST;
        if self.change_size.as_ref().is_some_and(|rule| !is_usable(rule)) {
            return Err(Error::Odd("the rule of the change's size has a parameter that is out of range"));
        }
        Ok(())
    }

    /// Learns the rules; newer examples weigh more, as in training.
    #[must_use]
    pub fn learn(examples: &[&Example], config: &TrainConfig) -> Self {
        let examples = &examples[examples.len().saturating_sub(config.max_examples)..];
        let weights = config.weights(examples.len());
        let (mut all, mut after_success, mut after_failure) = (Rate::default(), Rate::default(), Rate::default());
        for (example, weight) in examples.iter().zip(&weights) {
            all.add(example.failed, *weight);
            match last_of(&example.features) {
                Some(true) => after_failure.add(example.failed, *weight),
                Some(false) => after_success.add(example.failed, *weight),
                None => {}
            }
        }
        let last_outcome = LastOutcome { after_success: after_success.value(), after_failure: after_failure.value() };
        Self { base_rate: all.value(), last_outcome, change_size: ChangeSize::learn(examples, &weights) }
    }

    /// What the last known outcome says; the base rate when none is known.
    #[must_use]
    pub fn by_last_outcome(&self, row: &FeatureRow) -> f64 {
        match last_of(row) {
            Some(true) => self.last_outcome.after_failure,
            Some(false) => self.last_outcome.after_success,
            None => self.base_rate,
        }
    }

    /// What the size of the change says; the base rate when it is not declared.
    #[must_use]
    pub fn by_change_size(&self, row: &FeatureRow) -> f64 {
        self.change_size.zip(size_of(row)).map_or(self.base_rate, |(rule, size)| rule.predict(size))
    }
}

impl ChangeSize {
    fn learn(examples: &[&Example], weights: &[f64]) -> Option<Self> {
        let known: Vec<(f64, bool, f64)> =
            (examples.iter().zip(weights)).filter_map(|(e, w)| size_of(&e.features).map(|size| (size.ln_1p(), e.failed, *w))).collect();
        if known.len() < 2 {
            return None;
        }
        let count = known.len() as f64;
        let mean = known.iter().map(|(x, ..)| x).sum::<f64>() / count;
        let deviation = (known.iter().map(|(x, ..)| (x - mean).powi(2)).sum::<f64>() / count).sqrt().max(1e-9);
        let rows = Array2::from_shape_fn((known.len(), 1), |(i, _)| (known[i].0 - mean) / deviation);
        let labels: Vec<bool> = known.iter().map(|k| k.1).collect();
        let weights: Vec<f64> = known.iter().map(|k| k.2).collect();
        let fit = solve(&Problem { rows: &rows, labels: &labels, weights: &weights, alpha: 1.0 });
        Some(Self { coefficient: *fit.coefficients.first()?, intercept: fit.intercept, mean, deviation })
    }

    /// Probability of failure of a change of that size.
    #[must_use]
    pub fn predict(&self, size: f64) -> f64 {
        let x = ((size.max(0.0).ln_1p() - self.mean) / self.deviation).clamp(-4.0, 4.0);
        sigmoid(self.intercept + self.coefficient * x)
    }
}
