use std::collections::BTreeMap;

use kiro_schemas::gate::{GateDecision, Status, Verdict};
use kiro_schemas::risk::{Baselines, Confidence, RiskAssessment};
use kiro_schemas::{Micros, OffsetVector, Tenant};
use serde_json::{Value, json};

use super::condition::{Condition, ConditionError};
use super::decide::decide;
use super::file::{Gate, GateFile};
use super::plan::{GateRequest, Measured, Measurement, Need, plan};

const FULL: &str = r#"
version: 1
gates:
  - name: deploy
    type: pre-deploy
    on_warning: failed
    total_score: {pass: 80%, warning: 50%}
    on_decision: [{target: pager, when: failed}, bot]
    criteria:
      - name: failure ratio
        weight: 2
        key: true
        pipeline_health: {metric: failure_ratio, branch: main, days: 14}
        pass: ["<= 0.2"]
        warning: ["<= 0.4"]
        min_samples: 10
      - name: odds
        risk: true
        pass: ["< 0.3"]
      - name: incidents
        sql: "select count(*) as open, count(*) as n from incidents where service = $1 and note <> '$9' -- $8"
        parameters: [service]
        pass: [["= 0"], [">= 100", "<= 101"]]
"#;

fn request(parameters: &[(&str, &str)]) -> GateRequest {
    GateRequest {
        decision_id: "d1".to_owned(),
        tenant: Tenant::default(),
        parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        at: Micros::parse("2026-11-23T09:40:00Z").expect("a time"),
        dry_run: false,
    }
}

/// A gate of SQL criteria: name, weight, key, dry run; all pass at `<= 10`, warn at `<= 20`.
fn gate(criteria: &[(&str, f64, bool, bool)]) -> Gate {
    let mut lines = vec!["version: 1\ngates:\n- name: g\n  type: pre_merge\n  criteria:".to_owned()];
    for (name, weight, key, dry_run) in criteria {
        let rest = "sql: select 1, pass: ['<= 10'], warning: ['<= 20']";
        lines.push(format!("  - {{name: {name}, weight: {weight}, key: {key}, dry_run: {dry_run}, {rest}}}"));
    }
    GateFile::parse(&lines.join("\n")).expect("a gate").gates.remove(0)
}

fn value(criterion: &str, value: Value) -> Measurement {
    let measured = Measured::Rows { columns: vec!["value".to_owned()], rows: vec![vec![value]] };
    Measurement { criterion: criterion.to_owned(), measured }
}

fn decided(gate: &Gate, measurements: &[Measurement]) -> GateDecision {
    decide(gate, &request(&[]), measurements, Micros(7), OffsetVector::default())
}

fn risk(score: f64) -> RiskAssessment {
    RiskAssessment {
        deployment_id: "x".to_owned(),
        overall_risk_score: score,
        interval: [0.0, 1.0],
        confidence_level: Confidence::Low,
        base_score: score,
        risk_factors: Vec::new(),
        mitigation_strategies: Vec::new(),
        assessment_timestamp: Micros(0),
        model_version: "m1".to_owned(),
        served_by: "base_rate".to_owned(),
        baselines: Baselines { base_rate: score, last_outcome: None, change_size: None },
        offsets: OffsetVector::default(),
    }
}

#[test]
fn reads_a_full_file_and_plans_it() {
    let file = GateFile::parse(FULL).expect("no problems");
    let gate = file.find("pre_deploy").expect("by type");
    assert_eq!(file.find("deploy").expect("by name"), gate);
    assert!(file.find("post_deploy").is_err());
    let needs = plan(gate, &request(&[("pipeline", "ci"), ("service", "shop'; drop table x"), ("source", "https://a/b")]));
    let expected = "SELECT SUM(failures) * 1.0 / NULLIF(SUM(failures) + SUM(successes), 0) AS value, SUM(failures) + SUM(successes) AS n \
                    FROM pipeline_health WHERE day >= '2026-11-10T00:00:00Z' AND pipeline = $1 AND branch = $2 AND source = $3";
    let Need::Sql { sql, parameters, .. } = &needs[0] else { panic!("{needs:?}") };
    assert_eq!(sql, expected);
    assert_eq!(parameters, &[Some("ci".to_owned()), Some("main".to_owned()), Some("https://a/b".to_owned())]);
    assert_eq!(needs[1], Need::Risk { criterion: "odds".to_owned() });
    let Need::Sql { sql, parameters, .. } = &needs[2] else { panic!("{needs:?}") };
    assert!(!sql.contains("drop"), "a value is bound, never pasted");
    assert_eq!(parameters, &[Some("shop'; drop table x".to_owned())]);
    assert_eq!(plan(gate, &request(&[])), vec![Need::Risk { criterion: "odds".to_owned() }], "what cannot be bound is not asked");
}

#[test]
fn tells_all_problems_with_their_lines() {
    let yaml = "version: 2
gates:
- name: a
  type: sometimes
  colour: red
  on_warning: maybe
  total_score: {pass: 10%, warning: 120%}
  criteria:
  - name: x
    weight: .nan
    sql: select {{service}}, $2
    parameters: [service]
    pass: ['<= 10%', '? 3', '<= NaN', '<= +5']
  - name: x
    sql: select 1
    risk: true
    warning: ['< 1']
  - name: y
    pipeline_health: {metric: speed, days: 0}
    pass: []
- name: a
  type: pre_merge
";
    let problems: Vec<String> = GateFile::parse(yaml).expect_err("problems").iter().map(ToString::to_string).collect();
    let all = problems.join("\n");
    if problems.len() > 1 {
        for part in [
            "version: must be 1",
            "gates[0].type: `sometimes`",
            "line 5: gates[0]: unknown field `colour`",
            "gates[0].on_warning: `maybe`",
            "gates[0].total_score.warning: must be a percentage",
            "gates[0].criteria[0].weight: must be a finite number",
            "line 11: gates[0].criteria[0].sql: texts are not pasted",
            "$2 has no entry",
            "parameter `service` is not used",
            "criteria[0].pass[0]: `<= 10%`",
            "criteria[0].pass[1]: `? 3`",
            "criteria[0].pass[2]: `<= NaN`",
            "criteria[0].pass[3]: `<= +5`",
            "the name `x` is taken",
            "exactly one of",
            "has `warning` without `pass`",
            "criteria[2].pipeline_health.metric: `speed`",
            "pipeline_health.days: must be a whole number",
            "criteria[2].pass: has no condition",
            "the name `a` is taken",
            "gates[1]: has no `criteria`",
        ] {
            assert!(all.contains(part), "{part:?} is missing in\n{all}");
        }
    } else {
        // A number that is not finite may be refused by the reader of YAML itself.
        assert!(all.contains("finite") || all.to_lowercase().contains("nan"), "{all}");
    }
    let without_nan = GateFile::parse(&yaml.replace(".nan", "-1")).expect_err("problems");
    assert!(without_nan.len() >= 20, "{without_nan:#?}");
    assert!(without_nan.iter().any(|p| p.line == Some(5) && p.text.contains("colour")), "{without_nan:#?}");
}

#[test]
fn refuses_what_is_no_yaml_or_too_much_of_it() {
    let bomb = format!("a: &a [x]\n{}", (0..2000).map(|n| format!("b{n}: [*a, *a]")).collect::<Vec<_>>().join("\n"));
    let deep = format!("gates: {}{}", "[".repeat(200), "]".repeat(200));
    let large = format!("version: 1\n# {}", "x".repeat(2 << 20));
    for yaml in ["", "gates: [", "version: 1\nversion: 1\ngates: []", "- 1", &bomb, &deep, &large, "version: 1"] {
        assert!(GateFile::parse(yaml).is_err(), "{}", yaml.chars().take(40).collect::<String>());
    }
}

#[test]
fn conditions() {
    for (text, value, holds) in [
        ("<= 0.2", 0.2, true),
        ("<0.2", 0.2, false),
        ("=3", 3.0, true),
        ("== 3", 3.1, false),
        ("!= 3", 3.1, true),
        (">= -5", -5.0, true),
        ("> 1e3", 1000.5, true),
    ] {
        assert_eq!(Condition::parse(text).map(|c| c.holds(value)), Ok(holds), "{text} of {value}");
    }
    for (text, error) in [
        ("0.2", ConditionError::NoOperator),
        ("", ConditionError::NoOperator),
        ("<= inf", ConditionError::NoNumber),
        ("<= 1e999", ConditionError::NoNumber),
        ("<=", ConditionError::NoNumber),
        ("<= 1 2", ConditionError::NoNumber),
        ("<= 10%", ConditionError::Baseline),
        (">+10", ConditionError::Baseline),
    ] {
        assert_eq!(Condition::parse(text), Err(error), "{text}");
    }
}

#[test]
fn scores_and_keys() {
    use Verdict::{Failed, Inconclusive, Passed, Warning};
    /// Weights and keys, values (null is no data), verdict, score.
    type Case<'c> = (&'c [(f64, bool)], &'c [Value], Verdict, f64);
    let cases: &[Case<'_>] = &[
        (&[(1.0, false)], &[json!(10)], Passed, 1.0),
        (&[(1.0, false)], &[json!(15)], Failed, 0.5),
        (&[(1.0, false)], &[json!(21)], Failed, 0.0),
        (&[(9.0, false), (1.0, false)], &[json!(1), json!(99)], Passed, 0.9),
        (&[(1.0, false), (1.0, false)], &[json!(1), json!(15)], Warning, 0.75),
        (&[(9.0, false), (1.0, true)], &[json!(1), json!(99)], Failed, 0.9),
        (&[(9.0, false), (1.0, true)], &[json!(1), json!(15)], Passed, 0.95),
        (&[(1.0, false), (1.0, false)], &[json!(1), Value::Null], Inconclusive, 0.5),
        (&[(9.0, false), (1.0, false)], &[json!(1), Value::Null], Passed, 0.9),
        (&[(9.0, false), (1.0, true)], &[json!(1), Value::Null], Inconclusive, 0.9),
        (&[(9.0, false), (1.0, false)], &[json!(99), Value::Null], Failed, 0.0),
        (&[(1.0, true), (1.0, true)], &[json!(99), Value::Null], Failed, 0.0),
        (&[(0.0, false)], &[json!(1)], Inconclusive, 0.0),
        (&[(0.1, false), (0.2, false), (0.7, false)], &[json!(1), json!(1), json!(1)], Passed, 1.0),
    ];
    for (criteria, values, verdict, score) in cases {
        let named: Vec<_> = criteria.iter().zip(["a", "b", "c"]).map(|((weight, key), name)| (name, *weight, *key, false)).collect();
        let gate = gate(&named);
        let measurements: Vec<_> = named.iter().zip(*values).map(|((name, ..), v)| value(name, v.clone())).collect();
        let decision = decided(&gate, &measurements);
        assert_eq!(decision.verdict, *verdict, "{criteria:?} {values:?}: {}", decision.message);
        assert!((decision.score - score).abs() < 1e-9, "{criteria:?} {values:?}: {}", decision.score);
        let status = if matches!(verdict, Passed | Warning) { Status::Passed } else { Status::Failed };
        assert_eq!(decision.status, status, "{criteria:?} {values:?}");
    }
}

#[test]
fn no_answer_is_inconclusive_and_says_why() {
    let gate = gate(&[("a", 1.0, false, false)]);
    let rows =
        |columns: &[&str], rows: Vec<Vec<Value>>| Measured::Rows { columns: columns.iter().map(|c| (*c).to_owned()).collect(), rows };
    for (measured, reason) in [
        (None, "was not measured"),
        (Some(rows(&["v"], vec![])), "answered no row"),
        (Some(rows(&[], vec![vec![]])), "answered no column"),
        (Some(rows(&["v"], vec![vec![Value::Null]])), "is null"),
        (Some(rows(&["v"], vec![vec![json!("NaN")]])), "the value is NaN"),
        (Some(rows(&["v"], vec![vec![json!("inf")]])), "the value is inf"),
        (Some(rows(&["v"], vec![vec![json!("red")]])), "no number"),
        (Some(rows(&["v"], vec![vec![json!([1])]])), "no number"),
        (Some(rows(&["v"], vec![vec![json!(1)]; 30])), "answered 30 rows"),
        (Some(rows(&["v", "n"], vec![vec![json!(1), json!(0)]])), "no rows behind"),
        (Some(rows(&["v", "n"], vec![vec![json!(1), Value::Null]])), "no rows behind"),
        (Some(Measured::Error { reason: "syntax".to_owned() }), "failed: syntax"),
        (Some(Measured::Unavailable { reason: "timed out".to_owned() }), "unavailable: timed out"),
    ] {
        let measurements: Vec<_> = measured.into_iter().map(|measured| Measurement { criterion: "a".to_owned(), measured }).collect();
        let decision = decided(&gate, &measurements);
        assert_eq!((decision.verdict, decision.status), (Verdict::Inconclusive, Status::Failed), "{reason}");
        assert!(decision.criteria[0].reason.contains(reason), "{:?} has no {reason:?}", decision.criteria[0].reason);
        assert!(decision.message.contains(reason), "{}", decision.message);
        assert!(decision.criteria[0].rows.len() <= 20);
    }
}

#[test]
fn reasons_show_figures_that_agree_with_the_verdict() {
    let gate = gate(&[("a", 1.0, false, false)]);
    for (found, reason) in [
        (json!(3.830_000_000_1), "3.83 is <= 10"),
        (json!(0.1 + 0.2), "0.3 is <= 10"),
        (json!(10.000_000_000_1), "10.0000000001 is not <= 10 but <= 20"),
        (json!(20.333_333_333), "20.3333 is not <= 10"),
        (json!(1_234_567.891), "1234568 is not <= 10"),
    ] {
        assert_eq!(decided(&gate, &[value("a", found)]).criteria[0].reason, reason);
    }
    let decision = decided(&gate, &[value("a", json!(15))]);
    assert_eq!(decision.message, "gate `g`: failed, score 50 %, 90 % needed; `a` warning: 15 is not <= 10 but <= 20");
}

#[test]
fn dry_runs_show_and_do_not_count() {
    let gate = gate(&[("a", 1.0, false, false), ("b", 9.0, true, true)]);
    let decision = decided(&gate, &[value("a", json!(1)), value("b", json!(99))]);
    assert_eq!((decision.verdict, decision.score), (Verdict::Passed, 1.0));
    assert_eq!((decision.criteria[1].verdict, decision.criteria[1].is_key), (Verdict::Failed, false));
    assert!(decision.criteria[1].reason.starts_with("dry run"), "{}", decision.criteria[1].reason);
    let mut whole = gate.clone();
    whole.dry_run = true;
    let decision = decided(&whole, &[value("a", json!(99))]);
    assert_eq!((decision.verdict, decision.status), (Verdict::Failed, Status::Passed));
    assert!(decision.message.contains("dry run"));
}

#[test]
fn samples_risk_evidence_and_targets() {
    let gate = GateFile::parse(FULL).expect("no problems").gates.remove(0);
    let asked = request(&[("pipeline", "ci"), ("service", "shop")]);
    let with = |ratio: f64, n: u64, open: u64, score: f64| {
        let health = Measured::Rows { columns: vec!["value".to_owned(), "n".to_owned()], rows: vec![vec![json!(ratio), json!(n)]] };
        let sql = Measured::Rows { columns: vec!["open".to_owned(), "n".to_owned()], rows: vec![vec![json!(open), json!(5)]] };
        let measurements = vec![
            Measurement { criterion: "failure ratio".to_owned(), measured: health },
            Measurement { criterion: "odds".to_owned(), measured: Measured::Risk(Box::new(risk(score))) },
            Measurement { criterion: "incidents".to_owned(), measured: sql },
        ];
        decide(&gate, &asked, &measurements, Micros(7), OffsetVector::default())
    };
    let good = with(0.1, 10, 0, 0.1);
    assert_eq!((good.verdict, good.status), (Verdict::Passed, Status::Passed));
    assert_eq!(gate.targets(&good).collect::<Vec<_>>(), ["bot"]);
    assert_eq!(good.criteria[0].sample_size, Some(10));
    assert_eq!(good.criteria[2].threshold, "= 0 or >= 100 and <= 101");
    assert_eq!(good.criteria[2].rows, [json!({"open": 0, "n": 5})]);
    assert!(good.criteria[1].evidence.contains("m1"));
    let few = with(0.1, 9, 0, 0.1);
    assert_eq!((few.verdict, few.criteria[0].verdict), (Verdict::Inconclusive, Verdict::Inconclusive));
    assert_eq!(few.criteria[0].value, Some(0.1), "the value is shown all the same");
    let warned = with(0.3, 10, 100, 0.5);
    assert_eq!((warned.verdict, warned.status), (Verdict::Warning, Status::Failed), "on_warning: failed");
    assert_eq!(gate.targets(&warned).collect::<Vec<_>>(), ["pager", "bot"]);
    assert_eq!(with(0.5, 10, 0, 0.1).verdict, Verdict::Failed, "a key");
    assert_eq!(with(0.1, 10, 0, f64::NAN).criteria[1].verdict, Verdict::Inconclusive);
    let missing = decide(&gate, &request(&[]), &[], Micros(7), OffsetVector::default());
    assert!(missing.criteria[2].reason.contains("no `service`"), "{}", missing.criteria[2].reason);
}
