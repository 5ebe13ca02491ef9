//! What a gate answers.

use serde::{Deserialize, Serialize};

use crate::{Micros, OffsetVector};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Passed,
    /// Worth a look.
    Warning,
    /// There is too little to tell.
    Inconclusive,
    /// It is not well.
    Failed,
}

impl Verdict {
    /// The word in answers and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warning => "warning",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
        }
    }
}

/// What it means for the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Go on.
    Passed,
    /// Stop.
    Failed,
}

impl Status {
    /// The word in answers and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// One criterion with all that led to its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CriterionResult {
    /// Its name in the gate's file.
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
    /// The value that was compared; absent when there is none.
    pub value: Option<f64>,
    /// What it was compared with, as written: `<= 0.2`.
    pub threshold: String,
    /// Its weight in the score.
    pub weight: f64,
    /// Whether its failure fails the gate whatever the score.
    pub is_key: bool,
    /// How many rows the value was taken from.
    pub sample_size: Option<u64>,
    /// Why, in a sentence.
    pub reason: String,
    /// The query or source of the value.
    pub evidence: String,
    /// The rows that the query answered, at most 20.
    pub rows: Vec<serde_json::Value>,
}

/// The decision of a gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateDecision {
    /// Its id.
    pub decision_id: String,
    /// The gate.
    pub gate: String,
    /// Its type.
    #[serde(rename = "type")]
    pub gate_type: String,
    /// What it means for the pipeline.
    pub status: Status,
    /// What was found.
    pub verdict: Verdict,
    /// Share of the weights that was reached, 0 to 1.
    pub score: f64,
    /// One sentence for a log.
    pub message: String,
    /// Each criterion.
    pub criteria: Vec<CriterionResult>,
    /// When it was decided.
    pub decided_at: Micros,
    /// Which part of the log the answer includes.
    pub offsets: OffsetVector,
}
