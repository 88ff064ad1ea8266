//! The pauses before a client tries again.
//!
//! When a server fails, many clients lose it at once. If they all came back at the same time, they would
//! overload it again. So each pause is random, between zero and a bound that doubles with each failure ("full
//! jitter").

use std::time::Duration;

/// Pauses that become longer with each failure.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

/// The longest pause that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Starts anew: the next failure counts as the first.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The number of failures since the last reset.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after one more failure. `random` is an unpredictable number. `retry_after` is the pause that
    /// the server asks for; a random time is added, so that clients with the same answer come back one by one.
    pub(super) fn after(&mut self, random: u64, retry_after: Option<Duration>) -> Duration {
        let bound = self.fail();
        retry_after.unwrap_or_default().min(MAX_RETRY_AFTER).saturating_add(share(bound, random))
    }

    /// The pause after an overload of the server, which counts as one more failure: at least `least`. The random time
    /// on top may be as long again, so that clients that were sent away together come back one by one.
    pub(super) fn after_overload(&mut self, random: u64, least: Duration) -> Duration {
        let bound = self.fail().max(least);
        least.saturating_add(share(bound, random))
    }

    /// Counts a failure. Returns the bound of the random pause after it.
    fn fail(&mut self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(doubled).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound
    }
}

/// The part of `whole` in the proportion of `random` to its largest value.
fn share(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let share = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(share).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_and_begins_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut bounds =
            |n| (0..n).map(|_| backoff.after(u64::MAX, None).as_millis() + 1).collect::<Vec<_>>();
        assert_eq!(bounds(8), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(bounds(60).last(), Some(&30_000));
        backoff.reset();
        assert_eq!(backoff.after(u64::MAX / 2, None).as_millis(), 249);
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn the_pause_is_anywhere_up_to_its_bound() {
        let pause = |random| {
            Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).after(random, None)
        };
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1 << 63), Duration::from_millis(500));
        assert!(pause(u64::MAX) < Duration::from_secs(1));
    }

    #[test]
    fn the_pause_after_an_overload_has_a_least_length_and_counts_as_a_failure() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let least = Duration::from_secs(5);
        assert_eq!(backoff.after_overload(0, least), least);
        assert_eq!(backoff.after_overload(1 << 63, least), Duration::from_millis(7_500));
        assert_eq!(backoff.after_overload(1 << 63, Duration::ZERO), Duration::from_secs(2));
        assert_eq!(backoff.after_overload(1 << 63, least), Duration::from_secs(9));
        assert_eq!(backoff.failures(), 4);
        assert_eq!(backoff.after_overload(u64::MAX, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn the_pause_that_the_server_asks_for_comes_before_the_jitter() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let asked = Some(Duration::from_secs(120));
        assert_eq!(backoff.after(1 << 63, asked), Duration::from_millis(120_500));
        assert_eq!(backoff.after(0, Some(Duration::MAX)), MAX_RETRY_AFTER);
    }
}
