//! Numbers as people read them.

/// Up to this, six significant digits are kept; beyond, whole numbers.
const WHOLE_FROM: f64 = 1e5;

/// A number without the noise of binary fractions: six significant digits, and never a digit less before the point.
///
/// # Example
/// ```
/// use kiro_schemas::figure;
/// assert_eq!(figure(0.830_000_000_1).to_string(), "0.83");
/// assert_eq!(figure(1_234_567.8).to_string(), "1234568");
/// ```
#[must_use]
pub fn figure(value: f64) -> f64 {
    if value.abs() >= WHOLE_FROM || !value.is_finite() {
        return value.round();
    }
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn noise_goes_and_digits_stay() {
        for (value, text) in [
            (0.830_000_000_1, "0.83"),
            (0.1 + 0.2, "0.3"),
            (1.0 / 3.0, "0.333333"),
            (0.0, "0"),
            (-2.5, "-2.5"),
            (0.000_012_345_678, "0.0000123457"),
            (99_999.96, "100000"),
            (123_456.7, "123457"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(figure(value).to_string(), text);
        }
        assert!(figure(f64::NAN).is_nan());
    }
}
