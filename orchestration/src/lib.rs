//! Odds to decisions: gates.
//!
//! Must not know: tokio, files, sockets, SQL engines, HTTP. Everything here is a function of its arguments; who performs what
//! is asked for is elsewhere.
//!
//! Entry points: [`GateFile::parse`] (a file of gates, all its problems at once), [`plan`] (what must be measured),
//! [`decide`] (the decision that follows from the measurements).
//!
//! ```text
//! quality_gates.yaml ── parse ──► Gate ── plan ──► Need: SQL, risk ── (somebody asks) ──► Measurement
//!                                   └──────────────────────── decide ◄────────────────────────┘
//!                                                               └──► GateDecision
//! ```

mod error;
mod gate;

pub use error::{Error, Result};
pub use gate::condition::{Condition, ConditionError, Operator, Thresholds};
pub use gate::decide::decide;
pub use gate::file::{Criterion, Gate, GateFile, GateType, HealthMetric, Measure, PipelineHealth, TotalScore, Trigger, When};
pub use gate::plan::{GateRequest, Measured, Measurement, Need, plan};
