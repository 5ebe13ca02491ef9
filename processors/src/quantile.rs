//! Quantiles of whole numbers.

/// The quantile of sorted values; none when there is no value.
///
/// # Source
/// `percentile_cont` of DataFusion 55: linear interpolation at `q·(n-1)`, the weight cut to a millionth.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the index lies between 0 and the length")]
pub(crate) fn quantile(sorted: &[i64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let index = q * last as f64;
    let (below, above) = (index.floor() as usize, index.ceil() as usize);
    let weight = ((index - below as f64) * 1e6).trunc() / 1e6;
    let (lower, upper) = (sorted[below] as f64, sorted[above.min(last)] as f64);
    Some(lower + (upper - lower) * weight)
}
