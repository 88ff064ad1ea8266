//! Latencies in buckets of about 3 %, so that a measurement costs one increment.

/// Buckets per power of two.
const SUB: u64 = 32;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; bucket(u64::MAX) + 1], count: 0 }
    }

    pub(crate) fn add(&mut self, nanoseconds: u64, times: u64) {
        self.buckets[bucket(nanoseconds)] += times;
        self.count += times;
    }

    /// The duration that `share` of all do not exceed, in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count as f64 * share;
        let mut seen = 0;
        let found = self.buckets.iter().position(|&count| {
            seen += count;
            seen > 0 && seen as f64 >= wanted
        });
        found.map_or(0.0, |bucket| value(bucket) / 1000.0)
    }
}

fn bucket(value: u64) -> usize {
    let power = value.max(SUB).ilog2() - SUB.ilog2();
    let bucket = u64::from(power) * SUB + (value >> power);
    usize::try_from(bucket).expect("at most 60 powers of two")
}

/// The middle of a bucket.
fn value(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    let power = (bucket / SUB).saturating_sub(1);
    let step = (1_u64 << power) as f64;
    ((bucket - power * SUB) as f64 + 0.5) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_within_four_per_cent() {
        for nanoseconds in [40, 1_000, 65_535, 65_536, 1_000_000, 123_456_789] {
            let error = value(bucket(nanoseconds)) / nanoseconds as f64 - 1.0;
            assert!(error.abs() < 0.04, "{nanoseconds}: {error}");
        }
        assert!(bucket(u64::MAX) > bucket(u64::MAX / 2));
    }

    #[test]
    fn quantiles_count_what_was_added() {
        let mut histogram = Histogram::new();
        histogram.add(1_000, 98);
        histogram.add(1_000_000, 2);
        assert!((histogram.quantile(0.5) - 1.0).abs() < 0.05);
        assert!((histogram.quantile(0.99) - 1_000.0).abs() < 40.0);
    }
}
