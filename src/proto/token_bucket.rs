//! A token bucket, which limits a rate: a burst at once, and a number of tokens each second.

use std::time::Instant;

/// One token. The unit is a billionth, so a rate of *n* tokens per second adds *n* units per nanosecond.
const TOKEN: u64 = 1_000_000_000;

/// The tokens that were left at some point in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: u32,
    burst: u32,
    /// In billionths of a token; see [`TOKEN`].
    level: u64,
    /// The time of the last refill.
    at: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens. `per_second` tokens come back each second.
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { per_second, burst, level: u64::from(burst) * TOKEN, at: now }
    }

    /// Adds the tokens earned since the last refill, up to `burst` unless `overflow`.
    pub(crate) fn refill(&mut self, now: Instant, overflow: bool) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let gain =
            u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(self.per_second.into());
        let brim = if overflow { u64::MAX } else { u64::from(self.burst) * TOKEN };
        self.level = self.level.saturating_add(gain).min(brim);
        // An older `now` must not make the same time count twice.
        self.at = self.at.max(now);
    }

    /// Takes one token; false if none is left.
    pub(crate) fn take(&mut self) -> bool {
        let left = self.level.checked_sub(TOKEN);
        self.level = left.unwrap_or(self.level);
        left.is_some()
    }

    /// Takes `count` tokens. The caller knows that they are there.
    pub(crate) fn take_many(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.level = self.level.saturating_sub(count.saturating_mul(TOKEN));
    }

    /// The number of whole tokens that are left.
    pub(crate) fn available(&self) -> usize {
        usize::try_from(self.level / TOKEN).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes tokens until none is left, and returns their number.
    fn drain(bucket: &mut Bucket) -> usize {
        let expected = bucket.available();
        let taken = (0..100).take_while(|_| bucket.take()).count();
        assert_eq!((taken, bucket.available()), (expected, 0));
        taken
    }

    #[test]
    fn a_bucket_is_full_at_first_and_fills_with_time() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(10, 3, now);
        assert_eq!(drain(&mut bucket), 3);
        for (elapsed, count) in [(50, 0), (50, 1), (99, 0), (1, 1), (250, 2), (50, 1), (9999, 3)] {
            now += Duration::from_millis(elapsed);
            bucket.refill(now, false);
            assert_eq!(drain(&mut bucket), count, "after {elapsed} ms");
        }
    }

    #[test]
    fn many_are_taken_at_once_and_never_more_than_there_are() {
        let mut bucket = Bucket::new(1, 10, Instant::now());
        bucket.take_many(7);
        assert_eq!(bucket.available(), 3);
        bucket.take_many(usize::MAX);
        assert!(!bucket.take());
    }

    #[test]
    fn a_bucket_that_may_overflow_keeps_all_of_it_until_it_may_not() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(10, 3, now);
        now += SECOND;
        bucket.refill(now, true);
        assert_eq!(bucket.available(), 13);
        bucket.refill(now, false);
        assert_eq!(bucket.available(), 3);
    }

    #[test]
    fn times_and_rates_of_any_size_are_taken() {
        let now = Instant::now();
        let year = 365 * 24 * 3600 * SECOND;
        for (per_second, burst) in [(1, 1), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            let mut bucket = Bucket::new(per_second, burst, now);
            bucket.refill(now + year, true);
            bucket.refill(now, true);
            bucket.refill(now + year, false);
            assert_eq!(bucket.available(), burst as usize);
        }
    }
}
