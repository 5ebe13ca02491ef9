//! From examples to answers, over synthetic runs: determinism, leaks, the judgement, the file.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use kiro_models::{AssessRequest, EvaluationConfig, Example, PipelineKey, Predictions, Predictor, RiskModel};
use kiro_ports::FeatureRow;
use kiro_schemas::risk::Confidence;
use kiro_schemas::{Micros, OffsetVector, SourceUrl, Tenant};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Runs whose failure depends on `fr10` by `strength`, a minute apart.
fn examples(count: usize, strength: f64) -> Vec<Example> {
    let mut random = StdRng::seed_from_u64(11);
    let names = kiro_tables::feature_names();
    let at = names.iter().position(|n| *n == "fr10").expect("fr10");
    (0..count)
        .map(|i| {
            let mut history: Vec<f64> = names.iter().map(|_| random.gen_range(0.0..1.0)).collect();
            history[0] = history[0].round();
            let failed = random.r#gen::<f64>() < 1.0 / (1.0 + (-strength * (history[at] - 0.5)).exp());
            let declared = [("lines_added".to_owned(), random.gen_range(0.0..500.0_f64).round())].into();
            let key = PipelineKey { tenant: Tenant::default(), source: SourceUrl::new("https://ci/a"), pipeline: "p".into() };
            let as_of = Micros::from_seconds(i64::try_from(i).expect("small") * 60);
            let features = FeatureRow { history, declared, known_runs: i as u64 };
            Example { key, as_of, known_at: as_of.plus(300_000_000), features, failed }
        })
        .collect()
}

fn config() -> EvaluationConfig {
    EvaluationConfig { draws: 200, ..EvaluationConfig::default() }
}

fn request(row: FeatureRow) -> AssessRequest {
    AssessRequest { deployment_id: "d1".into(), row, now: Micros(5), offsets: OffsetVector::default() }
}

#[test]
fn the_same_examples_give_the_same_version() {
    let examples = examples(600, 4.0);
    let (a, b) = (RiskModel::fit(&examples, &config()).expect("a"), RiskModel::fit(&examples, &config()).expect("b"));
    assert_eq!(a.version(), b.version());
    let fewer = RiskModel::fit(&examples[..599], &config()).expect("c");
    assert_ne!(a.version(), fewer.version());
}

#[test]
fn a_model_earns_its_place() {
    let served = |count, strength| RiskModel::fit(&examples(count, strength), &config()).expect("a model").served();
    assert_eq!(served(1_500, 6.0), Predictor::Logistic);
    assert_ne!(served(1_500, 0.0), Predictor::Logistic);
    assert_eq!(served(199, 6.0), Predictor::BaseRate);
    assert_eq!(served(0, 0.0), Predictor::BaseRate);
}

#[test]
fn contributions_add_up_and_unknown_is_neutral() {
    let examples = examples(1_500, 6.0);
    let model = RiskModel::fit(&examples, &config()).expect("a model");
    for example in examples.iter().skip(1).take(300) {
        let answer = model.assess(request(example.features.clone()));
        let sum: f64 = answer.risk_factors.iter().map(|f| f.contribution).sum();
        assert!((answer.base_score + sum - answer.overall_risk_score).abs() < 1e-9);
        assert!(answer.interval[0] <= answer.overall_risk_score && answer.overall_risk_score <= answer.interval[1]);
    }
    let known = model.assess(request(examples[1_400].features.clone()));
    assert_eq!(known.confidence_level, Confidence::High);
    let unknown = model.assess(request(FeatureRow { known_runs: 0, ..examples[1_400].features.clone() }));
    assert_eq!(unknown.confidence_level, Confidence::Low);
    assert!((unknown.overall_risk_score - unknown.baselines.base_rate).abs() < 1e-12);
    assert!(unknown.interval[1] - unknown.interval[0] > 0.5);
    let odd = FeatureRow { history: vec![f64::NAN; 3], known_runs: 5, ..FeatureRow::default() };
    assert!((0.0..=1.0).contains(&model.assess(request(odd)).overall_risk_score));
}

#[test]
fn what_tells_nothing_is_told_together_and_what_is_missing_is_not_zero() {
    let mut examples = examples(1_500, 6.0);
    for (at, example) in examples.iter_mut().enumerate() {
        example.features.declared.insert("team_size".into(), (at % 7) as f64);
    }
    let model = RiskModel::fit(&examples, &config()).expect("a model");
    assert_eq!(model.served(), Predictor::Logistic);
    let full = examples[1_400].features.clone();
    let told = |row: FeatureRow| model.assess(request(row)).risk_factors;
    for factor in told(full.clone()) {
        assert!(factor.name == "other" || factor.contribution.abs() >= 0.000_5, "{factor:?}");
        assert!(!factor.explanation.contains("by 0.0 points"), "{factor:?}");
    }
    let bare = told(FeatureRow { declared: [].into(), ..full });
    let other = bare.last().expect("factors");
    assert!(other.name == "other" && other.value.is_none(), "{bare:?}");
    assert!(other.explanation.ends_with("not given: the size of the change, team_size"), "{}", other.explanation);
    assert!(bare.iter().all(|f| f.name != "team_size" && f.name != "change_size"), "{bare:?}");
}

#[test]
fn a_reason_is_said_once() {
    let model = RiskModel::fit(&examples(1_500, 0.0), &config()).expect("a model");
    let answer = model.assess(request(examples(30, 0.0)[29].features.clone()));
    let (word, reason) = answer.served_by.split_once(": ").expect("a word and a reason");
    assert!(["last_outcome", "change_size"].contains(&word), "{}", answer.served_by);
    assert!(reason.starts_with("the model's ") && !reason.contains("is served"), "{reason}");
}

#[test]
fn a_file_comes_back_and_a_newer_or_changed_one_is_refused() {
    let examples = examples(600, 6.0);
    let model = RiskModel::fit(&examples, &config()).expect("a model");
    let text = model.to_json().expect("json");
    let back = RiskModel::from_json(&text).expect("the same");
    assert_eq!(back.version(), model.version());
    assert_eq!(back.to_json().expect("json"), text);
    let (a, b) = (model.assess(request(examples[9].features.clone())), back.assess(request(examples[9].features.clone())));
    assert!((a.overall_risk_score - b.overall_risk_score).abs() < 1e-9);
    let newer = text.replacen("\"format_version\":1", "\"format_version\":2", 1);
    assert!(RiskModel::from_json(&newer).expect_err("newer").to_string().contains("format version 2"));
    let changed = text.replacen("\"base_rate\":0", "\"base_rate\":1", 1);
    assert!(RiskModel::from_json(&changed).is_err());
}

#[test]
fn later_runs_change_no_earlier_prediction() {
    let examples = examples(1_000, 4.0);
    let full = Predictions::make(&examples, &config()).expect("predictions");
    // Labels that were not known when the last block began, and all labels in it, are turned around.
    let start = full.start + (1_000 - full.start) * 9 / 10;
    let cut = examples[start].as_of;
    let turned: Vec<Example> = examples.iter().map(|e| Example { failed: e.failed ^ (e.known_at >= cut), ..e.clone() }).collect();
    let other = Predictions::make(&turned, &config()).expect("predictions");
    assert_eq!(full.logistic, other.logistic);
    assert_eq!(full.last_outcome, other.last_outcome);
    assert_ne!(full.labels, other.labels);
}
