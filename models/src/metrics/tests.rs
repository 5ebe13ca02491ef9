use proptest::prelude::*;

use super::{auc, brier, ece, lift, pr_auc, spearman, wilson};

/// Scores of few values, so that ties are frequent.
fn scored() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
    prop::collection::vec((0_u8..=12, any::<bool>()), 2..80)
        .prop_map(|rows| rows.into_iter().map(|(s, y)| (f64::from(s) / 12.0, y)).unzip())
}

fn naive_auc(s: &[f64], y: &[bool]) -> Option<f64> {
    let (mut wins, mut pairs) = (0.0, 0.0);
    for i in 0..s.len() {
        for j in 0..s.len() {
            if y[i] && !y[j] {
                pairs += 1.0;
                wins += if s[i] > s[j] {
                    1.0
                } else if s[i] < s[j] {
                    0.0
                } else {
                    0.5
                };
            }
        }
    }
    (pairs > 0.0).then(|| wins / pairs)
}

fn naive_pr_auc(s: &[f64], y: &[bool]) -> Option<f64> {
    let positives = y.iter().filter(|y| **y).count() as f64;
    let at = |t: f64| (s.iter().filter(|s| **s >= t).count() as f64, s.iter().zip(y).filter(|(s, y)| **s >= t && **y).count() as f64);
    let sum: f64 = (0..s.len()).filter(|i| y[*i]).map(|i| at(s[i])).map(|(n, hits)| hits / n).sum();
    (positives > 0.0).then(|| sum / positives)
}

fn naive_rank(v: &[f64], i: usize) -> f64 {
    let below = v.iter().filter(|o| **o < v[i]).count() as f64;
    let same = v.iter().filter(|o| (**o - v[i]).abs() < 1e-12).count() as f64;
    below + f64::midpoint(same, 1.0)
}

proptest! {
    #[test]
    fn auc_counts_pairs((s, y) in scored()) {
        match (auc(&s, &y), naive_auc(&s, &y)) {
            (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn average_precision_by_threshold((s, y) in scored()) {
        match (pr_auc(&s, &y), naive_pr_auc(&s, &y)) {
            (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn brier_and_calibration_by_definition((s, y) in scored()) {
        let n = s.len() as f64;
        let mean: f64 = (0..s.len()).map(|i| if y[i] { (1.0 - s[i]) * (1.0 - s[i]) } else { s[i] * s[i] }).sum::<f64>() / n;
        prop_assert!((brier(&s, &y) - mean).abs() < 1e-12);
        let mut error = 0.0;
        for bin in 0..10 {
            let own: Vec<usize> = (0..s.len()).filter(|i| ((s[*i] * 10.0).floor().min(9.0) - f64::from(bin)).abs() < 0.5).collect();
            if own.is_empty() { continue; }
            let size = own.len() as f64;
            let gap = own.iter().map(|i| s[*i]).sum::<f64>() / size - own.iter().filter(|i| y[**i]).count() as f64 / size;
            error += gap.abs() * size / n;
        }
        prop_assert!((ece(&s, &y, 10) - error).abs() < 1e-12);
    }

    #[test]
    fn spearman_is_pearson_of_ranks(rows in prop::collection::vec((0_u8..9, 0_u8..9), 2..60)) {
        let (a, b): (Vec<f64>, Vec<f64>) = rows.into_iter().map(|(a, b)| (f64::from(a), f64::from(b))).unzip();
        let (ra, rb): (Vec<f64>, Vec<f64>) = (0..a.len()).map(|i| (naive_rank(&a, i), naive_rank(&b, i))).unzip();
        let n = a.len() as f64;
        let (ma, mb) = (ra.iter().sum::<f64>() / n, rb.iter().sum::<f64>() / n);
        let cov: f64 = ra.iter().zip(&rb).map(|(x, y)| (x - ma) * (y - mb)).sum();
        let (va, vb): (f64, f64) = (ra.iter().map(|x| (x - ma).powi(2)).sum(), rb.iter().map(|y| (y - mb).powi(2)).sum());
        match spearman(&a, &b) {
            Some(r) => prop_assert!((r - cov / (va * vb).sqrt()).abs() < 1e-9),
            None => prop_assert!(va * vb < 1e-12),
        }
    }

    #[test]
    fn lift_of_all_is_one((s, y) in scored()) {
        if y.contains(&true) {
            prop_assert!((lift(&s, &y, 1.0).expect("failures") - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn wilson_holds_the_share(hits in 0_u32..50, more in 0_u32..50) {
        let n = f64::from(hits + more);
        let [low, high] = wilson(f64::from(hits), n);
        let share = f64::from(hits) / n.max(1.0);
        prop_assert!((0.0..=1.0).contains(&low) && low <= share + 1e-12 && share <= high + 1e-12 && high <= 1.0);
    }
}

#[test]
fn lift_takes_the_riskiest() {
    let scores: Vec<f64> = (0..20).map(f64::from).collect();
    let labels: Vec<bool> = (0..20).map(|i| i >= 18).collect();
    assert_eq!(lift(&scores, &labels, 0.05), Some(10.0));
    assert_eq!(lift(&scores, &labels, 0.5), Some(2.0));
    assert_eq!(lift(&[0.5; 20], &labels, 0.1), Some(1.0));
}
