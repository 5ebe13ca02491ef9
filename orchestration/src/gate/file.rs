//! The file of gates, `quality_gates.yaml`, as it is meant.

use kiro_schemas::Problem;
use kiro_schemas::gate::{GateDecision, Status, Verdict};

use super::condition::Thresholds;
use super::{node, read};
use crate::{Error, Result};

/// When in a delivery a gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateType {
    /// Before a commit.
    PreCommit,
    /// Before a merge.
    PreMerge,
    /// Before a deployment.
    PreDeploy,
    /// After a deployment.
    PostDeploy,
}

impl GateType {
    /// Reads the word, with hyphens or underscores.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pre_commit" | "pre-commit" => Self::PreCommit,
            "pre_merge" | "pre-merge" => Self::PreMerge,
            "pre_deploy" | "pre-deploy" => Self::PreDeploy,
            "post_deploy" | "post-deploy" => Self::PostDeploy,
            _ => return None,
        })
    }

    /// The word in answers and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreCommit => "pre_commit",
            Self::PreMerge => "pre_merge",
            Self::PreDeploy => "pre_deploy",
            Self::PostDeploy => "post_deploy",
        }
    }
}

/// The shares of the weights that make a gate pass, or warn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TotalScore {
    /// From here on it passed, 0 to 1.
    pub pass: f64,
    /// From here on it is a warning, 0 to 1.
    pub warning: f64,
}

impl TotalScore {
    /// Sums of weights differ in their last bits.
    const TOLERANCE: f64 = 1e-9;

    /// The verdict of a score alone, 0 to 1.
    #[must_use]
    pub fn verdict(&self, score: f64) -> Verdict {
        if score + Self::TOLERANCE >= self.pass {
            Verdict::Passed
        } else if score + Self::TOLERANCE >= self.warning {
            Verdict::Warning
        } else {
            Verdict::Failed
        }
    }
}

impl Default for TotalScore {
    /// 90 % and 75 %.
    fn default() -> Self {
        Self { pass: 0.9, warning: 0.75 }
    }
}

/// After which decisions a target is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When the pipeline must stop.
    Failed,
    /// When the pipeline goes on.
    Passed,
    /// After each.
    Always,
}

/// A target to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The name of the target in the configuration.
    pub target: String,
    /// After which decisions.
    pub when: When,
}

/// A figure of the `pipeline_health` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthMetric {
    /// Failures among runs that failed or succeeded.
    FailureRatio,
    /// Median duration.
    DurationP50Ms,
    /// 95th percentile of the duration.
    DurationP95Ms,
    /// Median time in the queue.
    QueueP50Ms,
    /// Final runs.
    Runs,
}

impl HealthMetric {
    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "failure_ratio" => Self::FailureRatio,
            "duration_p50_ms" => Self::DurationP50Ms,
            "duration_p95_ms" => Self::DurationP95Ms,
            "queue_p50_ms" => Self::QueueP50Ms,
            "runs" => Self::Runs,
            _ => return None,
        })
    }
}

/// A figure of a pipeline over the last days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineHealth {
    /// Which figure.
    pub metric: HealthMetric,
    /// Which pipeline; the one of the request when absent.
    pub pipeline: Option<String>,
    /// Which branch; all of them when absent.
    pub branch: Option<String>,
    /// How many days, today included.
    pub days: u32,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// One row: the value in the first column, the sample size in a column `n`.
    Sql {
        /// The statement, with `$1`, `$2`, ….
        sql: String,
        /// The names of the request's parameters that are bound to them.
        parameters: Vec<String>,
    },
    /// The probability of failure, 0 to 1.
    Risk,
    /// A figure of a pipeline.
    PipelineHealth(PipelineHealth),
}

/// One condition of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Criterion {
    /// Its name, unique in the gate.
    pub name: String,
    /// Its weight in the score, 0 or more.
    pub weight: f64,
    /// Whether its failure fails the gate whatever the score.
    pub is_key: bool,
    /// Shown, but not counted.
    pub dry_run: bool,
    /// Where its value comes from.
    pub measure: Measure,
    /// When it passed; without any it is only shown.
    pub pass: Thresholds,
    /// When it is a warning.
    pub warning: Thresholds,
    /// Fewer rows than that tell nothing.
    pub min_samples: Option<u64>,
}

impl Criterion {
    /// Whether it counts in the score.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        !self.dry_run && !self.pass.is_empty()
    }
}

/// A decision point.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Its name, unique in the file.
    pub name: String,
    /// When it is asked.
    pub gate_type: GateType,
    /// What a warning means for the pipeline.
    pub on_warning: Status,
    /// What too little data means for the pipeline.
    pub on_inconclusive: Status,
    /// The shares that pass and warn.
    pub total_score: TotalScore,
    /// It answers `passed` and shows what it found.
    pub dry_run: bool,
    /// Whom to tell.
    pub on_decision: Vec<Trigger>,
    /// Its conditions; at least one.
    pub criteria: Vec<Criterion>,
}

impl Gate {
    /// What a verdict means for the pipeline.
    #[must_use]
    pub fn status_of(&self, verdict: Verdict) -> Status {
        match verdict {
            Verdict::Passed => Status::Passed,
            Verdict::Warning => self.on_warning,
            Verdict::Inconclusive => self.on_inconclusive,
            Verdict::Failed => Status::Failed,
        }
    }

    /// The targets to tell about a decision; none for a gate that only tries itself out.
    pub fn targets<'g>(&'g self, decision: &GateDecision) -> impl Iterator<Item = &'g str> + use<'g> {
        let (status, dry_run) = (decision.status, self.dry_run);
        let told = move |when: When| match when {
            When::Always => true,
            When::Failed => status == Status::Failed,
            When::Passed => status == Status::Passed,
        };
        self.on_decision.iter().filter(move |trigger| !dry_run && told(trigger.when)).map(|trigger| trigger.target.as_str())
    }
}

/// A file of gates.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GateFile {
    /// The gates, in the order of the file.
    pub gates: Vec<Gate>,
}

impl GateFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong in it, each with its path and line.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        let root = node::read(yaml).map_err(|problem| vec![problem])?;
        read::read_file(&root)
    }

    /// The gate with this name, or else the only gate of this type.
    ///
    /// # Errors
    /// [`Error::NoGate`]: there is none, or several have the type.
    pub fn find(&self, name_or_type: &str) -> Result<&Gate> {
        if let Some(gate) = self.gates.iter().find(|gate| gate.name == name_or_type) {
            return Ok(gate);
        }
        let gate_type = GateType::parse(name_or_type);
        let mut of_type = self.gates.iter().filter(|gate| Some(gate.gate_type) == gate_type);
        match (of_type.next(), of_type.next()) {
            (Some(gate), None) => Ok(gate),
            _ => Err(Error::NoGate { gate: name_or_type.to_owned() }),
        }
    }
}
