//! How good probabilities are. All take scores and labels of the same length; `true` is a failure.

/// Indices in rising order of score, cut into groups of equal score.
pub(crate) fn tie_groups(scores: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order.chunk_by(|a, b| scores[*a].total_cmp(&scores[*b]).is_eq()).map(<[usize]>::to_vec).collect()
}

fn count(labels: &[bool], group: &[usize]) -> f64 {
    group.iter().filter(|i| labels[**i]).count() as f64
}

/// Chance that a failure scores above a success, ties counting half; `None` unless both are there.
///
/// # Source
/// Mann-Whitney U / (positives x negatives).
#[must_use]
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let (mut below, mut wins, mut positives) = (0.0, 0.0, 0.0);
    for group in tie_groups(scores) {
        let failed = count(labels, &group);
        let passed = group.len() as f64 - failed;
        wins += failed * (below + passed / 2.0);
        below += passed;
        positives += failed;
    }
    (positives > 0.0 && below > 0.0).then(|| wins / (positives * below))
}

/// Mean squared error of the probabilities (Brier 1950); 0 for no rows.
#[must_use]
pub fn brier(scores: &[f64], labels: &[bool]) -> f64 {
    let sum: f64 = scores.iter().zip(labels).map(|(p, y)| (p - f64::from(*y)).powi(2)).sum();
    sum / scores.len().max(1) as f64
}

/// The bin of a probability among `bins` of equal width.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..bins before")]
pub fn bin_of(probability: f64, bins: usize) -> usize {
    let last = bins.saturating_sub(1);
    (probability * bins as f64).floor().clamp(0.0, last as f64) as usize
}

/// Expected calibration error: distance of mean probability and failure rate, weighted over bins of equal width.
#[must_use]
pub fn ece(scores: &[f64], labels: &[bool], bins: usize) -> f64 {
    let mut sums = vec![0.0; bins.max(1)];
    for (p, y) in scores.iter().zip(labels) {
        sums[bin_of(*p, bins.max(1))] += p - f64::from(*y);
    }
    sums.iter().map(|s| f64::abs(*s)).sum::<f64>() / scores.len().max(1) as f64
}

/// Area under precision and recall as average precision, ties taken together; `None` without a failure.
#[must_use]
pub fn pr_auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|y| **y).count() as f64;
    let (mut taken, mut hits, mut area) = (0.0, 0.0, 0.0);
    for group in tie_groups(scores).iter().rev() {
        let failed = count(labels, group);
        taken += group.len() as f64;
        hits += failed;
        area += failed / positives.max(1.0) * (hits / taken);
    }
    (positives > 0.0).then_some(area)
}

/// Failure rate among the riskiest `share` of the rows over the failure rate of all; a tie at the border counts in part.
#[must_use]
pub fn lift(scores: &[f64], labels: &[bool], share: f64) -> Option<f64> {
    let positives = labels.iter().filter(|y| **y).count() as f64;
    let wanted = (scores.len() as f64 * share).ceil().max(1.0);
    let (mut left, mut hits) = (wanted, 0.0);
    for group in tie_groups(scores).iter().rev() {
        let part = (left / group.len() as f64).min(1.0);
        hits += count(labels, group) * part;
        left -= group.len() as f64 * part;
        if left <= 0.0 {
            break;
        }
    }
    (positives > 0.0).then(|| (hits / wanted) / (positives / scores.len() as f64))
}

/// Rank correlation (Spearman), ties at their mean rank; `None` when one side is constant.
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let mean = f64::midpoint(a.len() as f64, 1.0);
    let cross = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(p, q)| (p - mean) * (q - mean)).sum::<f64>();
    let scale = (cross(&a, &a) * cross(&b, &b)).sqrt();
    (scale > 0.0).then(|| cross(&a, &b) / scale)
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0.0;
    for group in tie_groups(values) {
        let size = group.len() as f64;
        for index in group {
            ranks[index] = before + f64::midpoint(size, 1.0);
        }
        before += size;
    }
    ranks
}

/// 95 % interval of a share of `hits` in `count` (Wilson 1927); `[0, 1]` when nothing was counted.
#[must_use]
pub fn wilson(hits: f64, count: f64) -> [f64; 2] {
    if count <= 0.0 {
        return [0.0, 1.0];
    }
    let z = 1.959_963_984_540_054_f64;
    let (p, zz) = (hits / count, z * z);
    let centre = p + zz / (2.0 * count);
    let half = z * (p * (1.0 - p) / count + zz / (4.0 * count * count)).sqrt();
    let scale = 1.0 + zz / count;
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

#[cfg(test)]
mod tests;
