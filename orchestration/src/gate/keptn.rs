//! The fixed-threshold cases of Keptn's lighthouse, as its own tests state them.

use kiro_schemas::gate::Verdict;
use serde_json::Value;

use super::condition::{Condition, ConditionError, Thresholds};
use super::file::TotalScore;

const CASES: &str = include_str!("../../tests/keptn/lighthouse_evaluation_cases.json");

fn cases() -> Value {
    serde_json::from_str(CASES).expect("JSON")
}

fn list<'v>(cases: &'v Value, name: &str) -> &'v [Value] {
    let list = cases[name].as_array().unwrap_or_else(|| panic!("no {name}"));
    assert!(!list.is_empty(), "{name} is empty");
    list
}

fn set(value: &Value) -> Result<Vec<Condition>, ConditionError> {
    value["Criteria"].as_array().expect("criteria").iter().map(|text| Condition::parse(text.as_str().expect("text"))).collect()
}

#[test]
fn parses_and_compares_as_keptn_does() {
    let cases = cases();
    for case in list(&cases, "TestParseCriteriaString") {
        let (text, expected) = (case["Criteria"].as_str().expect("text"), &case["ExpectedCriteriaObject"]);
        match Condition::parse(text) {
            Ok(condition) => {
                assert_eq!(Some(condition.operator.as_str()), expected["Operator"].as_str(), "{text}");
                assert_eq!(Some(condition.threshold), expected["Value"].as_f64(), "{text}");
                assert_eq!(expected["IsComparison"], false, "{text}");
            }
            Err(error) => assert_eq!((error, &expected["IsComparison"]), (ConditionError::Baseline, &Value::Bool(true)), "{text}"),
        }
    }
    for case in list(&cases, "TestEvaluateValue") {
        let text = format!("{}{}", case["Operator"].as_str().expect("operator"), case["ExpectedValue"]);
        let condition = Condition::parse(&text).expect("a condition");
        assert_eq!(Value::Bool(condition.holds(case["MeasuredValue"].as_f64().expect("value"))), case["ExpectedResult"], "{text}");
    }
    for case in list(&cases, "TestEvaluateFixedThreshold") {
        let result = Condition::parse(case["InTarget"]["Criteria"].as_str().expect("text"));
        assert_eq!(result.is_err(), !case["ExpectedError"].is_null(), "{}", case["Name"]);
        let holds = result.is_ok_and(|condition| condition.holds(case["InSLIResult"]["Value"].as_f64().expect("value")));
        assert_eq!(Value::Bool(holds), case["ExpectedResult"], "{}", case["Name"]);
    }
}

/// Sets that compare with a baseline are refused; the fixed ones that remain of an `or` decide as before.
#[test]
fn combines_as_keptn_does() {
    let cases = cases();
    for case in list(&cases, "TestEvaluateOrCombinedCriteria") {
        let sets: Vec<_> = case["InCriteriaSets"].as_array().expect("sets").iter().map(set).collect();
        assert!(sets.iter().all(|set| set.is_ok() || *set == Err(ConditionError::Baseline)));
        let fixed = Thresholds(sets.into_iter().filter_map(Result::ok).collect());
        let value = case["InSLIResult"]["Value"].as_f64().expect("value");
        assert_eq!(Value::Bool(fixed.hold(value)), case["ExpectedResult"], "{}", case["Name"]);
    }
}

#[test]
fn scores_as_keptn_does() {
    let cases = cases();
    for case in list(&cases, "TestCalculateScore") {
        let percent = |name: &str| -> f64 {
            let text = case["InSLOConfig"]["TotalScore"][name].as_str().expect("percentage");
            text.trim_end_matches('%').parse::<f64>().expect("number") / 100.0
        };
        let total = TotalScore { pass: percent("Pass"), warning: percent("Warning") };
        let expected = &case["ExpectedEvaluationResult"]["Evaluation"];
        let found = total.verdict(expected["Score"].as_f64().expect("score") / 100.0);
        let found = if case["InKeySLIFailed"]["Failed"] == true { Verdict::Failed } else { found };
        let word = match found {
            Verdict::Passed => "pass",
            Verdict::Warning => "warning",
            Verdict::Failed | Verdict::Inconclusive => "fail",
        };
        assert_eq!(expected["Result"], word, "{}", case["Name"]);
    }
}
