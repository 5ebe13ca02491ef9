//! What a risk assessment answers.

use serde::{Deserialize, Serialize};

use crate::{Micros, OffsetVector};

/// How far a probability can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Little or no history, or the base rate.
    Low,
    /// A served baseline, or a model with a short history of this pipeline.
    Medium,
    /// A served model with a long history of this pipeline.
    High,
}

/// One reason for the score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RiskFactor {
    /// The feature.
    pub name: String,
    /// Its value; `None` when it was not given or is not known.
    pub value: Option<f64>,
    /// How much of the score it explains; the contributions and the base add up to the score.
    pub contribution: f64,
    /// In a sentence.
    pub explanation: String,
}

/// Probabilities that simple rules would have given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baselines {
    /// Share of failures in the history.
    pub base_rate: f64,
    /// From the last known outcome alone.
    pub last_outcome: Option<f64>,
    /// From the size of the change alone.
    pub change_size: Option<f64>,
}

/// The answer to "how likely does this fail?".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RiskAssessment {
    /// What was assessed.
    pub deployment_id: String,
    /// Calibrated probability of failure, 0 to 1.
    pub overall_risk_score: f64,
    /// 95 % interval of the probability.
    pub interval: [f64; 2],
    /// How far it can be trusted.
    pub confidence_level: Confidence,
    /// The score with all features at their usual values; the contributions are added to it.
    pub base_score: f64,
    /// The reasons, largest first.
    pub risk_factors: Vec<RiskFactor>,
    /// What can be done.
    pub mitigation_strategies: Vec<String>,
    /// When it was assessed.
    pub assessment_timestamp: Micros,
    /// The model that was asked.
    pub model_version: String,
    /// What served: `logistic`, `last_outcome`, `change_size` or `base_rate`, and why.
    pub served_by: String,
    /// What simple rules would have said.
    pub baselines: Baselines,
    /// Which part of the log the answer includes.
    pub offsets: OffsetVector,
}
