//! What must be measured before a gate can decide.

use std::collections::BTreeMap;

use kiro_schemas::risk::RiskAssessment;
use kiro_schemas::{Micros, Tenant};
use serde_json::Value;

use super::file::{Criterion, Gate, HealthMetric, Measure, PipelineHealth};

const DAY: i64 = 86_400_000_000;

/// A gate is asked.
#[derive(Debug, Clone)]
pub struct GateRequest {
    /// The id that the decision gets.
    pub decision_id: String,
    /// Whose rows are looked at.
    pub tenant: Tenant,
    /// What it is about, by name: `source`, `pipeline`, `branch`, `service`, `environment`, ….
    pub parameters: BTreeMap<String, String>,
    /// The moment that windows of days end at.
    pub at: Micros,
    /// Only tries out: the status is `passed` whatever is found.
    pub dry_run: bool,
}

/// A question that has to be answered for a criterion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The rows of a statement.
    Sql {
        /// The criterion.
        criterion: String,
        /// One read-only statement.
        sql: String,
        /// The values of `$1`, `$2`, ….
        parameters: Vec<Option<String>>,
    },
    /// The risk of what the request is about.
    Risk {
        /// The criterion.
        criterion: String,
    },
}

/// The answer to a [`Need`].
#[derive(Debug, Clone)]
pub struct Measurement {
    /// The criterion.
    pub criterion: String,
    /// What came back.
    pub measured: Measured,
}

/// What came back.
#[derive(Debug, Clone)]
pub enum Measured {
    /// The rows of a statement.
    Rows {
        /// The names of its columns, in order.
        columns: Vec<String>,
        /// Its rows, each with a value per column.
        rows: Vec<Vec<Value>>,
    },
    /// A risk.
    Risk(Box<RiskAssessment>),
    /// It was refused or broke.
    Error {
        /// Why, in a sentence.
        reason: String,
    },
    /// It could not be asked, or did not answer in time.
    Unavailable {
        /// Why, in a sentence.
        reason: String,
    },
}

/// The parameter that a criterion needs and the request does not have.
pub(crate) fn missing_parameter<'c>(criterion: &'c Criterion, request: &GateRequest) -> Option<&'c str> {
    match &criterion.measure {
        Measure::Sql { parameters, .. } => parameters.iter().map(String::as_str).find(|name| !request.parameters.contains_key(*name)),
        Measure::PipelineHealth(PipelineHealth { pipeline: None, .. }) => {
            (!request.parameters.contains_key("pipeline")).then_some("pipeline")
        }
        Measure::PipelineHealth(_) | Measure::Risk => None,
    }
}

/// What must be asked. Criteria whose parameters are missing are not asked; they will be inconclusive.
#[must_use]
pub fn plan(gate: &Gate, request: &GateRequest) -> Vec<Need> {
    gate.criteria.iter().filter(|criterion| missing_parameter(criterion, request).is_none()).map(|c| need_of(c, request)).collect()
}

pub(crate) fn need_of(criterion: &Criterion, request: &GateRequest) -> Need {
    let name = criterion.name.clone();
    match &criterion.measure {
        Measure::Risk => Need::Risk { criterion: name },
        Measure::Sql { sql, parameters } => {
            let parameters = parameters.iter().map(|name| request.parameters.get(name).cloned()).collect();
            Need::Sql { criterion: name, sql: sql.clone(), parameters }
        }
        Measure::PipelineHealth(health) => {
            let (sql, parameters) = health_sql(health, request);
            Need::Sql { criterion: name, sql, parameters }
        }
    }
}

/// Durations and queues are means of the daily figures, weighted by runs: days do not keep single runs.
fn health_sql(health: &PipelineHealth, request: &GateRequest) -> (String, Vec<Option<String>>) {
    let weighted = |column: &str| {
        format!(
            "SUM({column} * runs) / NULLIF(SUM(CASE WHEN {column} IS NULL THEN 0 ELSE runs END), 0) AS value, \
             SUM(CASE WHEN {column} IS NULL THEN 0 ELSE runs END) AS n"
        )
    };
    let columns = match health.metric {
        HealthMetric::FailureRatio => "SUM(failures) * 1.0 / NULLIF(SUM(failures) + SUM(successes), 0) AS value, \
             SUM(failures) + SUM(successes) AS n"
            .to_owned(),
        HealthMetric::Runs => "SUM(runs) AS value, SUM(runs) AS n".to_owned(),
        HealthMetric::DurationP50Ms => weighted("duration_p50_ms"),
        HealthMetric::DurationP95Ms => weighted("duration_p95_ms"),
        HealthMetric::QueueP50Ms => weighted("queue_p50_ms"),
    };
    let midnight = Micros(request.at.0 - request.at.0.rem_euclid(DAY));
    let first = midnight.plus(-DAY * i64::from(health.days - 1));
    let mut sql = vec![format!("SELECT {columns} FROM pipeline_health WHERE day >= '{first}' AND pipeline = $1")];
    let mut parameters = vec![health.pipeline.clone().or_else(|| request.parameters.get("pipeline").cloned())];
    let filters = [("branch", health.branch.as_ref()), ("source", request.parameters.get("source"))];
    for (column, value) in filters {
        if let Some(value) = value {
            parameters.push(Some(value.clone()));
            sql.push(format!("{column} = ${}", parameters.len()));
        }
    }
    (sql.join(" AND "), parameters)
}
