//! Insights to odds: trains a failure model from the `features` table, judges it against two simple rules, serves what won.
//!
//! Must not know: the lake, the log, HTTP, how a feature is computed.
//!
//! Entry points: [`examples_from`] (tables to examples), [`train`], [`evaluate()`], [`RiskModel::fit`] (all of it),
//! [`RiskModel::assess`] (one answer with its reasons).
//!
//! ```text
//! features ─┐
//!           ├─ join ─► Example ─► train ─► Model ──────────────┐
//! runs ─────┘             └─────► evaluate ─► judge ─► Served ─┴─► RiskModel ─► RiskAssessment
//! ```

mod assess;
mod baseline;
mod bootstrap;
mod error;
mod evaluate;
mod example;
mod factor;
mod judge;
pub mod metrics;
mod model;
mod risk;
mod solver;
mod transform;

pub use assess::AssessRequest;
pub use baseline::{ChangeSize, LastOutcome, Rules};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, EvaluationConfig, Gain, Predictions, Predictor, Scores, evaluate};
pub use example::{Example, PipelineKey, examples_from};
pub use judge::{Judgement, Served, judge};
pub use model::{Model, TrainConfig, train};
pub use risk::{FORMAT_VERSION, RiskModel};
