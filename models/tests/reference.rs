//! Comparison with scikit-learn on seven projects' builds (DL-CIBuild), and what must not leak.
//!
//! The constants are `LogisticRegression(C=.05)` with the same features, weights and 10 blocks; its labels are known at once
//! at each block's start, ours 30 minutes after the run began.

#![expect(clippy::expect_used, clippy::panic, reason = "what a test cannot set up fails it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiro_models::metrics::{auc, ece};
use kiro_models::{EvaluationConfig, Example, PipelineKey, Predictions};
use kiro_ports::FeatureRow;
use kiro_schemas::{Micros, SourceUrl, Tenant};

/// Project, rows, AUC and calibration error of the reference.
const REFERENCE: [(&str, usize, f64, f64); 7] = [
    ("cloudify", 2674, 0.82775, 0.0287),
    ("graylog2-server", 4775, 0.70849, 0.0091),
    ("metasploit-framework", 8199, 0.67968, 0.0041),
    ("openproject", 6610, 0.69147, 0.0297),
    ("rails", 19041, 0.73365, 0.0307),
    ("ruby", 14776, 0.83606, 0.0250),
    ("sonarqube", 3517, 0.68055, 0.0511),
];
const DELAY: i64 = 1_800;

struct Row {
    at: i64,
    failed: bool,
    declared: BTreeMap<String, f64>,
}

fn time_of(text: &str) -> Option<i64> {
    let mut text = text.replace(' ', "T");
    if text.len() == 15 {
        text.insert(11, '0');
    }
    if text.len() == 16 {
        text.push_str(":00");
    }
    Micros::parse(&format!("{text}Z")).map(|t| t.0 / 1_000_000)
}

fn read(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).expect("a file");
    let heads: Vec<String> = reader.headers().expect("heads").iter().map(str::to_owned).collect();
    let mut rows: Vec<(Row, String)> = Vec::new();
    for record in reader.records().map(|r| r.expect("a record")) {
        let mut row = Row { at: 0, failed: false, declared: BTreeMap::new() };
        let mut key = String::new();
        for (name, value) in heads.iter().zip(&record) {
            match name.as_str() {
                "build_Failed" => row.failed = value == "1",
                "tr_build_id" => {}
                n if n.starts_with("gh_build_start") => row.at = time_of(value).unwrap_or_else(|| panic!("time {value:?}")),
                _ => {
                    let number = value.parse().unwrap_or(0.0);
                    key.extend([number.to_string().as_str(), "|"]);
                    row.declared.insert(name.clone(), number);
                }
            }
        }
        rows.push((row, key));
    }
    rows.sort_by_key(|(row, _)| row.at);
    let mut seen = std::collections::HashSet::new();
    rows.into_iter().filter(|(_, key)| seen.insert(key.clone())).map(|(row, _)| row).collect()
}

fn ewma(rows: &[Row], half_life: f64) -> Vec<f64> {
    let step = 1.0 - 0.5_f64.powf(1.0 / half_life);
    let mut e = vec![0.3];
    for row in rows {
        let last = e[e.len() - 1];
        e.push(last + step * (f64::from(row.failed) - last));
    }
    e
}

/// The history features of each row, in the order of the `features` table.
fn examples(rows: &[Row]) -> Vec<Example> {
    let y: Vec<f64> = rows.iter().map(|r| f64::from(r.failed)).collect();
    let is_pr = |i: usize| usize::from(rows[i].declared.get("gh_is_pr").is_some_and(|v| *v > 0.5));
    let mut sums = vec![0.0];
    let (mut last_kind, mut rate_kind) = (vec![[0.0, 0.0]], vec![[0.3, 0.3]]);
    let (mut streak, mut failure_at) = (vec![0.0_f64], vec![rows[0].at]);
    for i in 0..rows.len() {
        sums.push(sums[i] + y[i]);
        let (mut last, mut rate) = (last_kind[i], rate_kind[i]);
        last[is_pr(i)] = y[i];
        rate[is_pr(i)] += 0.2 * (y[i] - rate[is_pr(i)]);
        last_kind.push(last);
        rate_kind.push(rate);
        let s = streak[i];
        streak.push(if rows[i].failed { s.max(0.0) + 1.0 } else { s.min(0.0) - 1.0 });
        failure_at.push(if rows[i].failed { rows[i].at } else { failure_at[i] });
    }
    let decayed = [2.0, 8.0, 40.0].map(|h| ewma(rows, h));
    let mut made = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let k = rows.partition_point(|r| r.at <= row.at - DELAY).min(i);
        let back = |n: usize| if k >= n { y[k - n] } else { 0.0 };
        let since = |at: i64| ((row.at - at).max(0) as f64).ln_1p();
        let mut history = vec![back(1), back(2)];
        history.extend([3, 5, 10, 20, 50, 100, 300].map(|w| {
            let a = k.saturating_sub(w);
            (sums[k] - sums[a]) / (k - a).max(1) as f64
        }));
        history.extend(decayed.iter().map(|e| e[k]));
        history.extend([last_kind[k][is_pr(i)], rate_kind[k][is_pr(i)]]);
        history.extend([since(rows[i.saturating_sub(1)].at), since(rows[k.saturating_sub(1)].at), ((i - k) as f64).ln_1p()]);
        history.extend([streak[k].signum() * streak[k].abs().ln_1p(), since(failure_at[k.max(1)])]);
        let as_of = Micros::from_seconds(row.at);
        history.extend([f64::from(as_of.hour()), f64::from(as_of.weekday())]);
        let key = PipelineKey { tenant: Tenant::default(), source: SourceUrl::new("https://ci/a"), pipeline: "build".into() };
        let features = FeatureRow { history, declared: row.declared.clone(), known_runs: k as u64 };
        made.push(Example { key, as_of, known_at: as_of.plus(DELAY * 1_000_000), features, failed: row.failed });
    }
    made
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn as_good_as_the_reference() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/ci-builds/dl-cibuild/dataset");
    if !folder.is_dir() {
        println!("COMPARISON SKIPPED: the data is not at {}", folder.display());
        return;
    }
    let (mut gaps, mut errors) = (Vec::new(), Vec::new());
    println!("{:<22}{:>7}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}", "project", "n", "AUC", "ref", "last", "size", "ECE", "ref");
    for (project, count, reference, reference_error) in REFERENCE {
        let examples = examples(&read(&folder.join(format!("{project}.csv"))));
        assert_eq!(examples.len(), count, "{project}");
        let made = Predictions::make(&examples, &EvaluationConfig::default()).expect("predictions");
        let of = |p: &[f64]| auc(p, &made.labels).expect("both labels");
        let (ours, error) = (of(&made.logistic), ece(&made.logistic, &made.labels, 10));
        let (last, size) = (of(&made.last_outcome), of(&made.change_size));
        println!("{project:<22}{count:>7}{ours:>8.4}{reference:>8.4}{last:>8.4}{size:>8.4}{error:>8.4}{reference_error:>8.4}");
        gaps.push(ours - reference);
        errors.push(error);
    }
    let (gap, error) = (median(gaps), median(errors));
    println!("median gap {gap:.4}, median calibration error {error:.4}");
    assert!(gap.abs() <= 0.01, "median AUC differs by {gap}");
    assert!(error <= 0.03, "median calibration error {error}");
}
