//! From measurements to a decision.
//!
//! # Source
//! Scores as in Keptn 1.4.5 lighthouse: pass = weight, warning = half of it, failed = 0, a failed key fails the gate. Its
//! edges that pass without data are `inconclusive` here.

use kiro_schemas::gate::{CriterionResult, GateDecision, Status, Verdict};
use kiro_schemas::{Micros, OffsetVector, figure};
use serde_json::{Map, Value};

use super::file::{Criterion, Gate};
use super::plan::{GateRequest, Measured, Measurement, Need, missing_parameter, need_of};

/// Rows that are kept as evidence.
const MAX_ROWS: usize = 20;
/// Criteria that a message explains.
const MAX_REASONS: usize = 3;

/// Decides. A criterion without a measurement is inconclusive; the decision says why for each.
#[must_use]
pub fn decide(gate: &Gate, request: &GateRequest, measurements: &[Measurement], now: Micros, offsets: OffsetVector) -> GateDecision {
    let criteria: Vec<CriterionResult> = gate
        .criteria
        .iter()
        .map(|criterion| {
            let measured = measurements.iter().find(|m| m.criterion == criterion.name).map(|m| &m.measured);
            judge(criterion, request, measured)
        })
        .collect();
    let tally = Tally::of(gate, &criteria);
    let verdict = tally.verdict(gate);
    let is_dry_run = gate.dry_run || request.dry_run;
    let status = if is_dry_run { Status::Passed } else { gate.status_of(verdict) };
    let mut message = tally.message(gate, verdict, &criteria);
    if is_dry_run {
        message.push_str(" (dry run: the pipeline goes on)");
    }
    GateDecision {
        decision_id: request.decision_id.clone(),
        gate: gate.name.clone(),
        gate_type: gate.gate_type.as_str().to_owned(),
        status,
        verdict,
        score: tally.low,
        message,
        criteria,
        decided_at: now,
        offsets,
    }
}

/// The score, with what is not known taken for failed, and for passed.
struct Tally {
    low: f64,
    high: f64,
    maximum: f64,
    failed_key: bool,
    unknown_key: bool,
}

impl Tally {
    fn of(gate: &Gate, results: &[CriterionResult]) -> Self {
        let (mut low, mut high, mut maximum) = (0.0, 0.0, 0.0);
        let (mut failed_key, mut unknown_key) = (false, false);
        for (criterion, result) in gate.criteria.iter().zip(results).filter(|(criterion, _)| criterion.is_counted()) {
            let (at_least, at_most) = match result.verdict {
                Verdict::Passed => (1.0, 1.0),
                Verdict::Warning => (0.5, 0.5),
                Verdict::Failed => (0.0, 0.0),
                Verdict::Inconclusive => (0.0, 1.0),
            };
            low += criterion.weight * at_least;
            high += criterion.weight * at_most;
            maximum += criterion.weight;
            failed_key |= criterion.is_key && result.verdict == Verdict::Failed;
            unknown_key |= criterion.is_key && result.verdict == Verdict::Inconclusive;
        }
        let share = |points: f64| if maximum > 0.0 { points / maximum } else { 0.0 };
        Self { low: share(low), high: share(high), maximum, failed_key, unknown_key }
    }

    /// The verdict that holds whatever the inconclusive criteria would have said; inconclusive when it depends on them.
    fn verdict(&self, gate: &Gate) -> Verdict {
        if self.failed_key {
            return Verdict::Failed;
        }
        if self.maximum <= 0.0 {
            return Verdict::Inconclusive;
        }
        let (worst, best) = (gate.total_score.verdict(self.low), gate.total_score.verdict(self.high));
        if best == Verdict::Failed {
            Verdict::Failed
        } else if worst == best && !self.unknown_key {
            worst
        } else {
            Verdict::Inconclusive
        }
    }

    fn message(&self, gate: &Gate, verdict: Verdict, results: &[CriterionResult]) -> String {
        let percent = |share: f64| format!("{} %", (share * 1000.0).round() / 10.0);
        let score = if self.maximum <= 0.0 {
            "no criterion counts".to_owned()
        } else {
            format!("score {}, {} needed", percent(self.low), percent(gate.total_score.pass))
        };
        let mut parts = vec![format!("gate `{}`: {}, {score}", gate.name, verdict.as_str())];
        let why: Vec<String> = gate
            .criteria
            .iter()
            .zip(results)
            .filter(|(criterion, result)| criterion.is_counted() && result.verdict != Verdict::Passed)
            .map(|(_, result)| {
                let key = if result.is_key { "key " } else { "" };
                format!("{key}`{}` {}: {}", result.name, result.verdict.as_str(), result.reason)
            })
            .collect();
        let more = why.len().saturating_sub(MAX_REASONS);
        parts.extend(why.into_iter().take(MAX_REASONS));
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        parts.join("; ")
    }
}

/// A value, or why there is none.
struct Reading {
    value: Result<f64, String>,
    sample_size: Option<u64>,
    rows: Vec<Value>,
}

impl Reading {
    fn none(reason: impl Into<String>) -> Self {
        Self { value: Err(reason.into()), sample_size: None, rows: Vec::new() }
    }
}

fn judge(criterion: &Criterion, request: &GateRequest, measured: Option<&Measured>) -> CriterionResult {
    let reading = match (missing_parameter(criterion, request), measured) {
        (Some(name), _) => Reading::none(format!("the request has no `{name}`")),
        (None, None) => Reading::none("it was not measured"),
        (None, Some(measured)) => read(measured),
    };
    let value = reading.value.as_ref().ok().copied();
    let enough = reading.value.clone().and_then(|value| enough(criterion, value, reading.sample_size));
    let (verdict, mut reason) = match enough {
        Err(reason) => (Verdict::Inconclusive, reason),
        Ok(value) => compare(criterion, value),
    };
    if criterion.dry_run {
        reason.insert_str(0, "dry run, not counted: ");
    }
    let evidence = match need_of(criterion, request) {
        Need::Sql { sql, .. } => sql,
        Need::Risk { .. } => match measured {
            Some(Measured::Risk(risk)) => format!("risk by model {}: {}", risk.model_version, risk.served_by),
            _ => "risk".to_owned(),
        },
    };
    CriterionResult {
        name: criterion.name.clone(),
        verdict,
        value,
        threshold: criterion.pass.to_string(),
        weight: if criterion.is_counted() { criterion.weight } else { 0.0 },
        is_key: criterion.is_key && criterion.is_counted(),
        sample_size: reading.sample_size,
        reason,
        evidence,
        rows: reading.rows,
    }
}

fn enough(criterion: &Criterion, value: f64, sample_size: Option<u64>) -> Result<f64, String> {
    match (sample_size, criterion.min_samples) {
        (Some(0), _) => Err("there are no rows behind the value".to_owned()),
        (Some(n), Some(least)) if n < least => Err(format!("{n} rows are too few, {least} are needed")),
        (None, Some(least)) => Err(format!("the query has no column `n`, and {least} rows are needed")),
        _ => Ok(value),
    }
}

fn compare(criterion: &Criterion, value: f64) -> (Verdict, String) {
    if criterion.pass.is_empty() {
        (Verdict::Passed, format!("{}, shown only", figure(value)))
    } else if criterion.pass.hold(value) {
        (Verdict::Passed, format!("{} is {}", told(criterion, value), criterion.pass))
    } else if criterion.warning.hold(value) {
        (Verdict::Warning, format!("{} is not {} but {}", told(criterion, value), criterion.pass, criterion.warning))
    } else {
        (Verdict::Failed, format!("{} is not {}", told(criterion, value), criterion.pass))
    }
}

/// The value as people read it; as it is where that would contradict the verdict.
fn told(criterion: &Criterion, value: f64) -> f64 {
    let near = figure(value);
    let agree = [&criterion.pass, &criterion.warning].iter().all(|thresholds| thresholds.hold(near) == thresholds.hold(value));
    if agree { near } else { value }
}

fn read(measured: &Measured) -> Reading {
    match measured {
        Measured::Error { reason } => Reading::none(format!("the measurement failed: {reason}")),
        Measured::Unavailable { reason } => Reading::none(format!("unavailable: {reason}")),
        Measured::Risk(risk) => {
            let score = risk.overall_risk_score;
            let value = if (0.0..=1.0).contains(&score) { Ok(score) } else { Err(format!("the risk is {score}, not from 0 to 1")) };
            Reading { value, sample_size: None, rows: serde_json::to_value(risk).into_iter().collect() }
        }
        Measured::Rows { columns, rows } => read_rows(columns, rows),
    }
}

fn read_rows(columns: &[String], rows: &[Vec<Value>]) -> Reading {
    let shown = rows.iter().take(MAX_ROWS).map(|row| {
        let pairs = columns.iter().cloned().zip(row.iter().cloned());
        Value::Object(pairs.collect::<Map<String, Value>>())
    });
    let shown: Vec<Value> = shown.collect();
    let value = match rows {
        [] => Err("no data: the query answered no row".to_owned()),
        [row] => row.first().map_or_else(|| Err("no data: the query answered no column".to_owned()), scalar),
        more => Err(format!("the query answered {} rows, one is needed", more.len())),
    };
    let n = columns.iter().position(|name| name == "n");
    let sample_size = match (rows, n) {
        ([row], Some(at)) => match row.get(at) {
            Some(Value::Null) => Some(0),
            Some(value) => scalar(value).ok().filter(|n| *n >= 0.0 && *n < 9e15).and_then(|n| format!("{n:.0}").parse().ok()),
            None => None,
        },
        _ => None,
    };
    Reading { value, sample_size, rows: shown }
}

/// A finite number; true is 1. Decimals may come as text.
fn scalar(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Null => return Err("no data: the value is null".to_owned()),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(_) | Value::Object(_) => None,
    };
    match number {
        None => Err(format!("the first column is no number: {}", value.to_string().chars().take(80).collect::<String>())),
        Some(number) if number.is_finite() => Ok(number),
        Some(number) => Err(format!("the value is {number}")),
    }
}
