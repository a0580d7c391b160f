//! Latencies as they are told: quantiles of an HDR histogram, in words and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

const LATENCY_MAX_US: u64 = 60_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies of one kind, in microseconds to a minute, to three digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, SIGNIFICANT_DIGITS)?))
    }

    pub(super) fn of<'a>(latencies: impl IntoIterator<Item = &'a Duration>) -> anyhow::Result<Self> {
        let mut all = Self::new()?;
        latencies.into_iter().for_each(|latency| all.note(*latency));
        Ok(all)
    }

    pub(super) fn note(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US));
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    pub(super) fn line(&self) -> String {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| self.at(quantile));
        format!("p50 {p50:>9.2?}  p99 {p99:>9.2?}  p99.9 {p999:>9.2?}  max {max:>9.2?}")
    }

    /// The quantiles in microseconds.
    pub(super) fn json(&self) -> Value {
        let at = |quantile| self.0.value_at_quantile(quantile);
        json!({ "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": at(1.0) })
    }

    /// How many times as long as others these take, at the median and at p99.
    pub(super) fn times(&self, others: &Self) -> (f64, f64) {
        let at = |quantile| self.at(quantile).as_secs_f64() / others.at(quantile).as_secs_f64();
        (at(0.5), at(0.99))
    }
}

pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    to_float(count) / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
pub(super) const fn to_float(count: u64) -> f64 {
    count as f64
}
