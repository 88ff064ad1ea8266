//! How long to wait before the next try.
//!
//! Many clients lose their server at once. If they all came back at once, or in step, they would take
//! it down again: so the pause is random, anywhere between nothing and a bound that doubles with
//! each failure ("full jitter").

use std::time::Duration;

/// Pauses that become longer.
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

    /// The next failure is the first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after one more failure. `random` is a number that nobody can guess, and `retry_after`
    /// what the server asks for: clients that were told the same still come back one by one.
    pub(super) fn after(&mut self, random: u64, retry_after: Option<Duration>) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(doubled).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        retry_after.unwrap_or_default().min(MAX_RETRY_AFTER).saturating_add(share(bound, random))
    }
}

/// A share of `whole`, as `random` is of all numbers.
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
    fn what_the_server_asks_for_comes_before_the_jitter() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let asked = Some(Duration::from_secs(120));
        assert_eq!(backoff.after(1 << 63, asked), Duration::from_millis(120_500));
        assert_eq!(backoff.after(0, Some(Duration::MAX)), MAX_RETRY_AFTER);
    }
}
