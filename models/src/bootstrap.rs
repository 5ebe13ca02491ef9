//! Paired block bootstrap: how sure it is that one predictor beats another on the same runs.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::evaluate::Gain;
use crate::metrics::{auc, brier, tie_groups};

/// Two predictors' probabilities of the same runs, in time order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) model: &'a [f64],
    pub(crate) rule: &'a [f64],
    pub(crate) labels: &'a [bool],
}

/// The gains in AUC and in Brier score (positive: the model is better), with their 95 % intervals.
///
/// # Source
/// Künsch (1989), moving blocks of length √n, percentile interval. A draw in which one label is missing counts as no gain in AUC.
pub(crate) fn gains(pair: Pair<'_>, draws: usize, seed: u64) -> (Gain, Gain) {
    let count = pair.labels.len();
    let mut random = StdRng::seed_from_u64(seed);
    let (groups_model, groups_rule) = (tie_groups(pair.model), tie_groups(pair.rule));
    let squares: Vec<f64> = (0..count)
        .map(|i| {
            let y = f64::from(pair.labels[i]);
            (pair.rule[i] - y).powi(2) - (pair.model[i] - y).powi(2)
        })
        .collect();
    let (mut by_auc, mut by_brier) = (Vec::with_capacity(draws), Vec::with_capacity(draws));
    for _ in 0..draws {
        let times = draw(count, &mut random);
        let gain = drawn_auc(&groups_model, pair.labels, &times).zip(drawn_auc(&groups_rule, pair.labels, &times));
        by_auc.push(gain.map_or(0.0, |(a, b)| a - b));
        by_brier.push(squares.iter().zip(&times).map(|(s, n)| s * n).sum::<f64>() / count.max(1) as f64);
    }
    let auc_gain = auc(pair.model, pair.labels).zip(auc(pair.rule, pair.labels)).map_or(0.0, |(a, b)| a - b);
    let brier_gain = brier(pair.rule, pair.labels) - brier(pair.model, pair.labels);
    (interval(auc_gain, by_auc), interval(brier_gain, by_brier))
}

/// How often each run is drawn.
fn draw(count: usize, random: &mut StdRng) -> Vec<f64> {
    let length = count.isqrt().max(1);
    let mut times = vec![0.0; count];
    let mut left = count;
    while left > 0 {
        let start = random.gen_range(0..=count - length);
        for slot in times.iter_mut().skip(start).take(length.min(left)) {
            *slot += 1.0;
        }
        left = left.saturating_sub(length);
    }
    times
}

fn drawn_auc(groups: &[Vec<usize>], labels: &[bool], times: &[f64]) -> Option<f64> {
    let (mut below, mut wins, mut positives) = (0.0, 0.0, 0.0);
    for group in groups {
        let (mut failed, mut passed) = (0.0, 0.0);
        for i in group {
            *(if labels[*i] { &mut failed } else { &mut passed }) += times[*i];
        }
        wins += failed * (below + passed / 2.0);
        below += passed;
        positives += failed;
    }
    (positives > 0.0 && below > 0.0).then(|| wins / (positives * below))
}

fn interval(value: f64, mut drawn: Vec<f64>) -> Gain {
    drawn.sort_by(f64::total_cmp);
    let cut = drawn.len() / 40;
    let low = drawn.get(cut).copied().unwrap_or(0.0);
    let high = drawn.get(drawn.len().saturating_sub(cut + 1)).copied().unwrap_or(0.0);
    Gain { value, low, high }
}
