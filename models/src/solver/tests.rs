use linfa::prelude::*;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Problem, sigmoid, solve};

fn data(count: usize) -> (Array2<f64>, Vec<bool>) {
    let mut random = StdRng::seed_from_u64(5);
    let rows = Array2::from_shape_fn((count, 4), |_| random.gen_range(-2.0..2.0));
    let labels = rows.outer_iter().map(|r| random.r#gen::<f64>() < sigmoid(r[0] - 0.5 * r[1] + 0.3)).collect();
    (rows, labels)
}

#[test]
fn equal_weights_give_what_linfa_gives() {
    let (rows, labels) = data(600);
    let ours = solve(&Problem { rows: &rows, labels: &labels, weights: &[1.0; 600], alpha: 20.0 });
    let dataset = Dataset::new(rows, Array1::from(labels));
    let theirs = LogisticRegression::default().alpha(20.0).gradient_tolerance(1e-8).fit(&dataset).expect("a fit");
    let sign = if (theirs.intercept() - ours.intercept).abs() < 1e-4 { 1.0 } else { -1.0 };
    assert!((sign * theirs.intercept() - ours.intercept).abs() < 1e-4);
    for (a, b) in theirs.params().iter().zip(&ours.coefficients) {
        assert!((sign * a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn a_weight_of_two_is_a_row_twice() {
    let (rows, labels) = data(200);
    let weights: Vec<f64> = (0..200).map(|i| f64::from(i % 2 + 1)).collect();
    let weighted = solve(&Problem { rows: &rows, labels: &labels, weights: &weights, alpha: 2.0 });
    let twice: Vec<usize> = (0..200).flat_map(|i| vec![i; i % 2 + 1]).collect();
    let (rows, labels) = (rows.select(ndarray::Axis(0), &twice), twice.iter().map(|i| labels[*i]).collect::<Vec<_>>());
    let repeated = solve(&Problem { rows: &rows, labels: &labels, weights: &[1.0; 300], alpha: 2.0 });
    for (a, b) in weighted.coefficients.iter().zip(&repeated.coefficients) {
        assert!((a - b).abs() < 1e-7);
    }
}

#[test]
fn separable_labels_end() {
    let rows = Array2::from_shape_fn((50, 1), |(i, _)| i as f64 - 24.5);
    let labels: Vec<bool> = (0..50).map(|i| i > 24).collect();
    let fit = solve(&Problem { rows: &rows, labels: &labels, weights: &[1.0; 50], alpha: 1.0 });
    assert!(fit.coefficients[0] > 0.1 && fit.coefficients[0].is_finite());
}
