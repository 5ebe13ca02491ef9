//! The logistic model: training, calibration, prediction.

use kiro_ports::FeatureRow;
use kiro_tables::feature_names;
use linfa::ParamGuard;
use linfa::composing::platt_scaling::{Platt as LinfaPlatt, platt_newton_method};
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use crate::solver::{Fit, Problem, sigmoid, solve};
use crate::transform::{Column, columns_of, matrix, training_matrix};
use crate::{Error, Example, Result};

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// L2 penalty; `1 / C` of scikit-learn.
    pub alpha: f64,
    /// After how many runs a run weighs half.
    pub half_life_runs: f64,
    /// The newest examples that are used; with the default half-life, older ones weigh less than a thousandth.
    pub max_examples: usize,
    /// Share of the newest examples that the calibration is learned from.
    pub calibration_ratio: f64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { alpha: 20.0, half_life_runs: 3_000.0, max_examples: 30_000, calibration_ratio: 0.2 }
    }
}

impl TrainConfig {
    fn check(&self) -> Result<()> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::Config("alpha must be a positive number"));
        }
        if self.half_life_runs.is_nan() || self.half_life_runs <= 0.0 {
            return Err(Error::Config("half_life_runs must be positive"));
        }
        if !(0.0..=0.5).contains(&self.calibration_ratio) {
            return Err(Error::Config("calibration_ratio must lie in 0 to 0.5"));
        }
        Ok(())
    }

    /// The weight of each of `count` examples, the newest last.
    pub(crate) fn weights(&self, count: usize) -> Vec<f64> {
        (0..count).map(|i| 0.5_f64.powf((count - i) as f64 / self.half_life_runs)).collect()
    }
}

/// `probability = σ(slope · logit + offset)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Platt {
    slope: f64,
    offset: f64,
}

/// Parameters are of standardised inputs: none that was learned is near this.
pub(crate) const MOST: f64 = 1e4;

const AS_IT_IS: Platt = Platt { slope: 1.0, offset: 0.0 };
/// A calibration part needs this many of each label; with fewer the logits are taken as they are.
const MIN_OF_EACH: usize = 30;

/// A trained, calibrated logistic regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    columns: Vec<Column>,
    coefficients: Vec<f64>,
    intercept: f64,
    calibration: Platt,
    examples: usize,
    config: TrainConfig,
}

/// Trains on examples in time order.
///
/// The calibration is learned on the newest part by a model of the older part, then the model is fitted anew on all.
/// The same examples give the same model, bit by bit.
///
/// # Errors
/// [`Error::OneClass`] unless there are failures and successes; [`Error::Config`].
///
/// # Source
/// Platt (1999), by Newton's method of Lin, Lin and Weng (2007), as `linfa` has it.
pub fn train(examples: &[Example], config: &TrainConfig) -> Result<Model> {
    train_on(&examples.iter().collect::<Vec<_>>(), config)
}

pub(crate) fn train_on(examples: &[&Example], config: &TrainConfig) -> Result<Model> {
    config.check()?;
    let examples = &examples[examples.len().saturating_sub(config.max_examples)..];
    let failures = examples.iter().filter(|e| e.failed).count();
    if failures == 0 || failures == examples.len() {
        return Err(Error::OneClass { examples: examples.len(), failures });
    }
    let calibration = calibrate(examples, config);
    let (columns, fit) = fit(examples, config);
    let Fit { coefficients, intercept } = fit;
    Ok(Model { columns, coefficients, intercept, calibration, examples: examples.len(), config: *config })
}

fn fit(examples: &[&Example], config: &TrainConfig) -> (Vec<Column>, Fit) {
    let columns = columns_of(examples);
    let rows = training_matrix(&columns, examples);
    let labels: Vec<bool> = examples.iter().map(|e| e.failed).collect();
    let weights = config.weights(examples.len());
    let fit = solve(&Problem { rows: &rows, labels: &labels, weights: &weights, alpha: config.alpha });
    (columns, fit)
}

fn calibrate(examples: &[&Example], config: &TrainConfig) -> Platt {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let held = (examples.len() as f64 * config.calibration_ratio) as usize;
    let (older, newer) = examples.split_at(examples.len() - held);
    // What the older part may learn from was known before the newer part began.
    let older: Vec<&Example> = newer.first().map_or(Vec::new(), |n| older.iter().filter(|e| e.known_at < n.as_of).copied().collect());
    let enough = |part: &[&Example]| {
        let failed = part.iter().filter(|e| e.failed).count();
        failed >= MIN_OF_EACH && part.len() - failed >= MIN_OF_EACH
    };
    if !enough(&older) || !enough(newer) {
        return AS_IT_IS;
    }
    let (columns, fit) = fit(&older, config);
    let logits = matrix(&columns, newer).dot(&ArrayView1::from(&fit.coefficients)) + fit.intercept;
    let labels: Vec<bool> = newer.iter().map(|e| e.failed).collect();
    platt(&logits.to_vec(), &labels).unwrap_or(AS_IT_IS)
}

fn platt(logits: &[f64], labels: &[bool]) -> Option<Platt> {
    let parameters = LinfaPlatt::<f64, ()>::params().check().ok()?;
    let (a, b) = platt_newton_method(ArrayView1::from(logits), ArrayView1::from(labels), &parameters).ok()?;
    // linfa's sign: 1 / (1 + exp(a z + b)). A slope that turns the order around is noise.
    (a < 0.0 && b.is_finite()).then_some(Platt { slope: -a, offset: -b })
}

impl Model {
    /// Whether a stored file says a model of the features that this program computes.
    pub(crate) fn check(&self) -> Result<()> {
        let history = self.columns.iter().take_while(|c| !c.declared).map(|c| c.name.as_str());
        let declared = self.columns.iter().skip_while(|c| !c.declared);
        if !history.eq(feature_names()) || declared.into_iter().any(|c| !c.declared) {
            return Err(Error::Odd("its features are not those of this program"));
        }
        if self.columns.len() != self.coefficients.len() || !self.columns.iter().all(Column::is_usable) {
            return Err(Error::Odd("a column has no coefficient, or no spread"));
        }
        let Platt { slope, offset } = self.calibration;
        let logits = self.coefficients.iter().chain([&self.intercept]).map(|c| slope * c).chain([slope, offset]);
        if logits.into_iter().any(|value| !value.is_finite() || value.abs() > MOST) {
            return Err(Error::Odd("a parameter is out of range"));
        }
        Ok(())
    }

    /// Calibrated probability of failure.
    #[must_use]
    pub fn predict(&self, row: &FeatureRow) -> f64 {
        let parts: f64 = self.parts(row).map(|(_, part)| part).sum();
        sigmoid(self.base_logit() + parts)
    }

    /// Examples that it was trained on.
    #[must_use]
    pub const fn examples(&self) -> usize {
        self.examples
    }

    /// Names of its inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|c| c.name.as_str())
    }

    pub(crate) fn predict_all(&self, examples: &[&Example]) -> Vec<f64> {
        let logits = matrix(&self.columns, examples).dot(&ArrayView1::from(&self.coefficients)) + self.intercept;
        logits.iter().map(|z| sigmoid(self.calibration.slope * z + self.calibration.offset)).collect()
    }

    /// The calibrated logit of a row with all features at their usual values.
    pub(crate) fn base_logit(&self) -> f64 {
        self.calibration.slope * self.intercept + self.calibration.offset
    }

    /// Each column with what it adds to the base logit.
    pub(crate) fn parts<'a>(&'a self, row: &'a FeatureRow) -> impl Iterator<Item = (&'a Column, f64)> {
        let slope = self.calibration.slope;
        let columns = self.columns.iter().zip(&self.coefficients).enumerate();
        columns.map(move |(at, (column, coefficient))| (column, slope * coefficient * column.standard(at, row)))
    }
}
