//! HDR histograms of nanoseconds, and how they travel in JSON.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The smallest latency told apart: 1 µs.
const LOW_NS: u64 = 1_000;

/// The largest: 10 minutes; what is longer counts as this.
const HIGH_NS: u64 = 600_000_000_000;

/// Three significant digits from 1 µs to 10 minutes.
///
/// # Panics
/// Never: the bounds are constants that `hdrhistogram` accepts.
pub fn new() -> Histogram<u64> {
    let mut histogram =
        Histogram::new_with_bounds(LOW_NS, HIGH_NS, 3).expect("1 µs to 10 min with 3 digits are valid bounds");
    histogram.auto(false);
    histogram
}

/// Records `count` copies of one value.
#[inline]
pub fn record(histogram: &mut Histogram<u64>, value_ns: u64, count: u64) {
    histogram.saturating_record_n(value_ns, count);
}

/// A histogram as (value in ns, count) pairs, exact to its resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs(pub Vec<(u64, u64)>);

impl Pairs {
    /// Everything recorded in `histogram`.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self(histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// Adds the pairs to `histogram`.
    pub fn add_to(&self, histogram: &mut Histogram<u64>) {
        self.0.iter().for_each(|&(value, count)| record(histogram, value, count));
    }
}

/// The figures of a report, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half are at most this.
    pub p50_us: f64,
    /// 90 % are at most this.
    pub p90_us: f64,
    /// 99 % are at most this.
    pub p99_us: f64,
    /// 99.9 % are at most this.
    pub p999_us: f64,
    /// The largest.
    pub max_us: f64,
}

impl Percentiles {
    /// The figures of `histogram`.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1_000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = new();
        (1..=1_000).for_each(|milliseconds| record(&mut histogram, milliseconds * 1_000_000, 1));
        let percentiles = Percentiles::of(&histogram);
        let is_near = |value: f64, expected: f64| (value - expected).abs() <= expected * 0.001;
        assert!(is_near(percentiles.p50_us, 500_000.0), "{percentiles:?}");
        assert!(is_near(percentiles.p99_us, 990_000.0), "{percentiles:?}");
        assert!(is_near(percentiles.max_us, 1_000_000.0), "{percentiles:?}");
        assert_eq!(percentiles.count, 1_000);
    }

    #[test]
    fn pairs_restore_the_histogram_and_add_up() {
        let (mut one, mut sum) = (new(), new());
        for value in [0, 1_500, 77_000, 77_000, 12_345_678, u64::MAX] {
            record(&mut one, value, 3);
        }
        let pairs = Pairs::of(&one);
        pairs.add_to(&mut sum);
        assert_eq!(sum, one);
        pairs.add_to(&mut sum);
        assert_eq!(sum.len(), 36);
    }
}
