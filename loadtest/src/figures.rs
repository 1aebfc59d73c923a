//! Figures from measurements: slope, percentiles, and how they are written. No I/O.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer as _, V2DeflateSerializer},
};
use serde::Serialize;

/// The slope of the least-squares line through the points, or `None` where no such line exists (fewer than two different x).
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let n = points.iter().fold(0.0, |n, _| n + 1.0);
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let joint: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    // No points give NaN, which is no spread either.
    (spread > 0.0).then(|| joint / spread)
}

/// Longest time told apart; longer ones count as this.
const LONGEST_MICROS: u64 = 600_000_000;
/// Points of a curve each time that half of what was left is behind: enough for a plot, some dozens in all.
const TICKS_PER_HALVING: u32 = 2;

/// Times, kept in microseconds to three digits however many there are.
pub struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    ///
    /// # Panics
    /// Never: the bounds are valid.
    #[must_use]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are valid"))
    }

    /// Counts one.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST_MICROS);
        self.0.saturating_record(micros);
    }

    /// Adds all of another's.
    ///
    /// # Panics
    /// Never: the bounds are the same.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// What they come to.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.0.len(),
            p50_ms: ms(self.0.value_at_quantile(0.50)),
            p95_ms: ms(self.0.value_at_quantile(0.95)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            p999_ms: ms(self.0.value_at_quantile(0.999)),
            max_ms: ms(self.0.max()),
            points: self.points(),
            histogram: self.encoded(),
        }
    }

    /// Ever closer to 100 %, as far as there are times to tell apart.
    fn points(&self) -> Vec<(f64, f64)> {
        let point = |step: hdrhistogram::iterators::IterationValue<u64>| {
            (100.0 * step.quantile(), ms(step.value_iterated_to()))
        };
        let mut points: Vec<(f64, f64)> = self.0.iter_quantiles(TICKS_PER_HALVING).map(point).collect();
        points.dedup_by_key(|(percentile, _)| *percentile);
        points
    }

    /// # Panics
    /// Never: writing to memory does not fail, and the bounds leave no count that the format can't hold.
    fn encoded(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&self.0, &mut bytes).expect("a histogram can be written to memory");
        BASE64_STANDARD.encode(bytes)
    }
}

fn ms(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles in milliseconds, and what they were read from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many times were measured.
    pub count: u64,
    /// Half were no longer than this.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// For plots: so many percent (0 to 100, ascending) were no longer than so many milliseconds.
    pub points: Vec<(f64, f64)>,
    /// All of it, in microseconds: an HdrHistogram in its V2 format, deflated, in base64, as every library of that name reads it. So
    /// histograms of several runs can be added, which percentiles can't.
    pub histogram: String,
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50_ms, p95_ms, p99_ms, max_ms, .. } = self;
        write!(f, "p50 {p50_ms:.1} ms   p95 {p95_ms:.1} ms   p99 {p99_ms:.1} ms   longest {max_ms:.1} ms")
    }
}

/// How many per second.
#[must_use]
pub fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { as_f64(count) / time.as_secs_f64() }
}

/// A count as a number to reckon with; exact far beyond any count here.
#[must_use]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Digits in groups of three: `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The nearest whole number, grouped. Negative numbers keep their sign.
#[must_use]
pub fn grouped_f64(number: f64) -> String {
    let text = format!("{:.0}", number.abs());
    let whole = text.parse::<u64>().map_or(text, grouped);
    if number <= -0.5 { format!("-{whole}") } else { whole }
}

/// Bytes in MiB with one digit.
#[must_use]
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", as_f64(bytes) / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_of_a_line_is_its_own() {
        let line = [(5000.0, 27e6), (10_000.0, 39.5e6), (19_000.0, 62e6)];
        let found = slope(&line).expect("three points have a slope");
        assert!((found - 2500.0).abs() < 1e-6, "{found}");
    }

    #[test]
    fn slope_is_the_least_squares_one() {
        // Hand-reckoned: means 2 and 11/3; joint 2, spread 2.
        let found = slope(&[(1.0, 3.0), (2.0, 3.0), (3.0, 5.0)]).expect("three points have a slope");
        assert!((found - 1.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn no_slope_without_two_different_places() {
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[(1.0, 2.0)]), None);
        assert_eq!(slope(&[(1.0, 2.0), (1.0, 5.0)]), None);
    }

    #[test]
    fn percentiles_of_a_hundred_times() {
        let mut times = Times::new();
        for ms in 1..=100 {
            times.record(Duration::from_millis(ms));
        }
        let found = times.percentiles();
        assert_eq!(found.count, 100);
        for (value, expected) in
            [(found.p50_ms, 50.0), (found.p95_ms, 95.0), (found.p99_ms, 99.0), (found.max_ms, 100.0)]
        {
            assert!((value - expected).abs() / expected < 0.002, "{value} instead of {expected}");
        }
    }

    #[test]
    fn a_histogram_survives_its_encoding() {
        let mut times = Times::new();
        for micros in (1..=10_000).map(|n| n * 37) {
            times.record(Duration::from_micros(micros));
        }
        let found = times.percentiles();
        let bytes = BASE64_STANDARD.decode(&found.histogram).expect("base64");
        let decoded: Histogram<u64> =
            hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).expect("V2, deflated");
        assert!(decoded == times.0, "the same counts in the same places");
        assert_eq!(ms(decoded.value_at_quantile(0.99)), found.p99_ms);
        assert!(found.histogram.len() < 10_000, "{} bytes", found.histogram.len());
    }

    #[test]
    fn points_ascend_to_the_longest() {
        let mut times = Times::new();
        (1..=100_000).for_each(|n| times.record(Duration::from_micros(n)));
        let Percentiles { points, max_ms, .. } = times.percentiles();
        assert!(points.len() > 20 && points.len() < 60, "{}", points.len());
        assert!(points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{points:?}");
        assert_eq!(points.last(), Some(&(100.0, max_ms)));
        assert_eq!(Times::new().percentiles().points, []);
    }

    #[test]
    fn a_time_beyond_the_longest_counts_as_the_longest() {
        let mut times = Times::new();
        times.record(Duration::from_secs(3600));
        assert!((times.percentiles().max_ms - 600_000.0).abs() < 1000.0);
    }

    #[test]
    fn digits_stand_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped_f64(12_345.6), "12,346");
        assert_eq!(grouped_f64(-1234.4), "-1,234");
    }

    #[test]
    fn no_time_has_no_rate() {
        assert!((rate(5, Duration::ZERO)).abs() < f64::EPSILON);
        assert!((rate(10, Duration::from_millis(2500)) - 4.0).abs() < 1e-12);
    }
}
