//! What is counted is exported, bounded, and from zero on.

use kiro_schemas::gate::{GateDecision, Status, Verdict};
use kiro_schemas::names::MOST_NAMES;
use kiro_schemas::{Micros, OffsetVector, Tenant};
use prometheus::{Registry, TextEncoder};

use super::Telemetry;

fn decision(gate: &str) -> GateDecision {
    GateDecision {
        decision_id: String::new(),
        gate: gate.to_owned(),
        gate_type: "pre_deploy".to_owned(),
        status: Status::Passed,
        verdict: Verdict::Warning,
        score: 1.0,
        message: String::new(),
        criteria: Vec::new(),
        decided_at: Micros(0),
        offsets: OffsetVector::default(),
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)).and_then(|rest| rest.trim().parse().ok())
}

fn exported(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).expect("text")
}

#[test]
fn gates_are_bounded_and_there_from_zero_on() {
    let registry = Registry::new();
    let telemetry = Telemetry::register(&registry, None).expect("registered");
    let names: Vec<String> = (0..2 * MOST_NAMES).map(|at| format!("gate{at:03}")).collect();
    telemetry.gates(names.iter().map(String::as_str));
    assert_eq!(value(&exported(&registry), "kiro_gate_decisions_total{gate=\"gate000\",status=\"failed\",verdict=\"failed\"}"), Some(0.0));
    for name in &names {
        telemetry.decided(&Ok(decision(name)), 0.01);
    }
    let text = exported(&registry);
    let counted = |gate: &str| value(&text, &format!("kiro_gate_decisions_total{{gate=\"{gate}\",status=\"passed\",verdict=\"warning\"}}"));
    assert_eq!((counted("gate049"), counted("gate050"), counted("other")), (Some(1.0), None, Some(MOST_NAMES as f64)));
    assert!(Telemetry::register(&registry, None).is_err());
}

#[test]
fn the_process_is_measured() {
    let registry = Registry::new();
    let _telemetry = Telemetry::register(&registry, None).expect("registered");
    let text = exported(&registry);
    assert!(value(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6), "{text}");
    assert!(value(&text, "process_open_fds").is_some_and(|files| files >= 3.0));
    assert!(value(&text, "process_threads").is_some_and(|threads| threads >= 1.0));
    let now = kiro_ports::Clock::now(&kiro_ports::SystemClock).0 as f64 / 1e6;
    assert!(value(&text, "process_start_time_seconds").is_some_and(|start| (now - start).abs() < 3_600.0));
    assert_eq!(value(&text, "kiro_outbox_deliveries_total{outcome=\"failed\"}"), Some(0.0));
}

#[test]
fn a_served_model_is_told_once() {
    let registry = Registry::new();
    let telemetry = Telemetry::register(&registry, None).expect("registered");
    let model = kiro_models::RiskModel::fit(&[], &kiro_models::EvaluationConfig::default()).expect("a model");
    for tenant in ["a", "a", "b"] {
        telemetry.served(&Tenant::new(tenant), &model);
    }
    let text = exported(&registry);
    assert_eq!(text.lines().filter(|l| l.starts_with("kiro_model_info{")).count(), 2);
    assert!(text.contains("predictor=\"base_rate\""), "{text}");
}

#[test]
fn several_registries_are_exported_as_one() {
    let shard = |number: &str| {
        let labels = std::collections::HashMap::from([("shard".to_owned(), number.to_owned())]);
        let registry = Registry::new_custom(None, Some(labels)).expect("a registry");
        let counter = prometheus::IntCounter::new("a_total", "A.").expect("a counter");
        registry.register(Box::new(counter)).expect("registered");
        registry
    };
    let families = super::merged([shard("0"), shard("1")].iter().flat_map(Registry::gather));
    let text = TextEncoder::new().encode_to_string(&families).expect("text");
    assert_eq!(text, "# HELP a_total A.\n# TYPE a_total counter\na_total{shard=\"0\"} 0\na_total{shard=\"1\"} 0\n");
}
