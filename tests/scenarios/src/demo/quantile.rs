//! Figures from many spans of time.

use std::time::Duration;

/// The least of the sorted `values` that at least `percent` of them do not exceed (the nearest rank): with twenty values
/// the 99th percentile is the greatest.
pub(crate) fn quantile(values: &[Duration], percent: usize) -> Duration {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

/// Microseconds with one decimal.
pub(crate) fn micros(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000_000.0).round() / 10.0
}

/// With two decimals.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_values() {
        let values: Vec<Duration> = (1..=4).map(Duration::from_millis).collect();
        assert_eq!(quantile(&values, 50), Duration::from_millis(2));
        assert_eq!(quantile(&values, 100), Duration::from_millis(4));
        assert_eq!(quantile(&values, 99), Duration::from_millis(4));
        assert_eq!(quantile(&values, 0), Duration::from_millis(1));
        assert_eq!(quantile(&[], 50), Duration::ZERO);
    }
}
