//! Evaluation as it would have been: block by block in time, each predicted from what was known before it.

use serde::{Deserialize, Serialize};

use crate::baseline::{Rules, size_of};
use crate::bootstrap::{Pair, gains};
use crate::metrics::{auc, brier, ece, lift, pr_auc, spearman};
use crate::model::train_on;
use crate::{Example, Result, TrainConfig};

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvaluationConfig {
    /// How often the model is trained anew.
    pub blocks: usize,
    /// Share of the examples before the first block.
    pub first_ratio: f64,
    /// Draws of the bootstrap.
    pub draws: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// How each block's model is trained.
    pub train: TrainConfig,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { blocks: 10, first_ratio: 0.3, draws: 1_000, seed: 7, train: TrainConfig::default() }
    }
}

/// Who predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predictor {
    /// The model.
    Logistic,
    /// The last known outcome.
    LastOutcome,
    /// The size of the change.
    ChangeSize,
    /// The share of failures.
    BaseRate,
}

/// How good the predictions of one predictor are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Chance that a failure scores above a success.
    pub auc: Option<f64>,
    /// Mean squared error.
    pub brier: f64,
    /// Calibration error over 10 bins.
    pub calibration_error: f64,
    /// Average precision.
    pub pr_auc: Option<f64>,
    /// Failure rate among the riskiest 5 %, 10 % and 50 % over that of all.
    pub lift: [Option<f64>; 3],
    /// Rank correlation with the size of the change.
    pub size_correlation: Option<f64>,
}

/// A difference with its 95 % interval; positive when the model is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// As measured.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// All predictions of an evaluation, in time order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions {
    /// Which example the first prediction is of.
    pub start: usize,
    /// By the model.
    pub logistic: Vec<f64>,
    /// By the last known outcome.
    pub last_outcome: Vec<f64>,
    /// By the size of the change.
    pub change_size: Vec<f64>,
    /// By the share of failures.
    pub base_rate: Vec<f64>,
    /// What happened.
    pub labels: Vec<bool>,
    /// Sizes of the changes; 0 where none is declared.
    pub sizes: Vec<f64>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Labelled runs that there were.
    pub examples: usize,
    /// Those that were predicted.
    pub predicted: usize,
    /// The newest of them, on which the judgement rests.
    pub window: usize,
    /// Over all predicted runs.
    pub overall: Vec<(Predictor, Scores)>,
    /// Over the window.
    pub recent: Vec<(Predictor, Scores)>,
    /// Gains of the model over each rule in the window: AUC, then Brier score.
    pub gains: Vec<(Predictor, Gain, Gain)>,
    /// For each of ten bins of the model's probability: runs and failures among them.
    pub bins: Vec<(u64, u64)>,
}

/// Evaluates a way of training on examples in time order.
///
/// Each block is predicted by what is trained on labels known before its first run began. Of the labelled runs, the last
/// `max(200, 20 %)` are the window that is compared by bootstrap.
///
/// # Errors
/// As [`train`](crate::train), but for a missing label: then the share of failures stands in.
pub fn evaluate(examples: &[Example], config: &EvaluationConfig) -> Result<Evaluation> {
    let predictions = Predictions::make(examples, config)?;
    Ok(predictions.evaluate(examples.len(), config))
}

/// The length of the window: a fifth of the runs, at least 200, at most all.
pub(crate) fn window_of(examples: usize) -> usize {
    examples.div_ceil(5).max(200).min(examples)
}

impl Predictions {
    /// Predicts block by block.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn make(examples: &[Example], config: &EvaluationConfig) -> Result<Self> {
        let count = examples.len();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
        let first = (count as f64 * config.first_ratio.clamp(0.0, 1.0)) as usize;
        let start = first.min(count - window_of(count));
        let blocks = config.blocks.max(1);
        let mut made = Self { start, ..Self::default() };
        for block in 0..blocks {
            let bound = |b: usize| start + (count - start) * b / blocks;
            made.predict_block(examples, bound(block)..bound(block + 1), &config.train)?;
        }
        Ok(made)
    }

    fn predict_block(&mut self, examples: &[Example], block: std::ops::Range<usize>, config: &TrainConfig) -> Result<()> {
        let Some(first) = examples.get(block.clone()).and_then(<[_]>::first) else { return Ok(()) };
        let known: Vec<&Example> = examples[..block.start].iter().filter(|e| e.known_at < first.as_of).collect();
        let rules = Rules::learn(&known, config);
        let asked: Vec<&Example> = examples[block].iter().collect();
        match train_on(&known, config) {
            Ok(model) => self.logistic.extend(model.predict_all(&asked)),
            Err(crate::Error::OneClass { .. }) => self.logistic.extend(asked.iter().map(|_| rules.base_rate)),
            Err(other) => return Err(other),
        }
        for example in asked {
            self.last_outcome.push(rules.by_last_outcome(&example.features));
            self.change_size.push(rules.by_change_size(&example.features));
            self.base_rate.push(rules.base_rate);
            self.labels.push(example.failed);
            self.sizes.push(size_of(&example.features).unwrap_or(0.0));
        }
        Ok(())
    }

    /// All predictors with what they predicted.
    #[must_use]
    pub fn all(&self) -> [(Predictor, &[f64]); 4] {
        [
            (Predictor::Logistic, &self.logistic),
            (Predictor::LastOutcome, &self.last_outcome),
            (Predictor::ChangeSize, &self.change_size),
            (Predictor::BaseRate, &self.base_rate),
        ]
    }

    fn scores(&self, from: usize) -> Vec<(Predictor, Scores)> {
        let (labels, sizes) = (&self.labels[from..], &self.sizes[from..]);
        let score = |p: &[f64]| Scores {
            auc: auc(p, labels),
            brier: brier(p, labels),
            calibration_error: ece(p, labels, 10),
            pr_auc: pr_auc(p, labels),
            lift: [0.05, 0.10, 0.50].map(|share| lift(p, labels, share)),
            size_correlation: spearman(p, sizes),
        };
        self.all().into_iter().map(|(who, p)| (who, score(&p[from..]))).collect()
    }

    /// Measures the predictions; `examples` is how many labelled runs there were.
    #[must_use]
    pub fn evaluate(&self, examples: usize, config: &EvaluationConfig) -> Evaluation {
        let predicted = self.labels.len();
        let window = window_of(examples).min(predicted);
        let from = predicted - window;
        let against = |who: Predictor, rule: &[f64]| {
            let pair = Pair { model: &self.logistic[from..], rule: &rule[from..], labels: &self.labels[from..] };
            let (by_auc, by_brier) = gains(pair, config.draws, config.seed);
            (who, by_auc, by_brier)
        };
        let mut bins = vec![(0, 0); 10];
        for (p, failed) in self.logistic.iter().zip(&self.labels) {
            let bin: &mut (u64, u64) = &mut bins[crate::metrics::bin_of(*p, 10)];
            bin.0 += 1;
            bin.1 += u64::from(*failed);
        }
        Evaluation {
            examples,
            predicted,
            window,
            overall: self.scores(0),
            recent: self.scores(from),
            gains: vec![against(Predictor::LastOutcome, &self.last_outcome), against(Predictor::ChangeSize, &self.change_size)],
            bins,
        }
    }
}

impl Evaluation {
    /// The scores of a predictor over all predicted runs.
    #[must_use]
    pub fn of(&self, who: Predictor) -> Option<&Scores> {
        self.overall.iter().find(|(p, _)| *p == who).map(|(_, s)| s)
    }

    /// The scores of a predictor over the window.
    #[must_use]
    pub fn recent_of(&self, who: Predictor) -> Option<&Scores> {
        self.recent.iter().find(|(p, _)| *p == who).map(|(_, s)| s)
    }
}
