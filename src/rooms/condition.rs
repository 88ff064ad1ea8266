//! Conditions that are logged when they change, not each time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::runtime::Clock;
use crate::sync::Mutex;

/// Time without a failure after which the condition is well again. So failures that come now and then,
/// perhaps because a peer provokes them, are logged once.
const SETTLED: Duration = Duration::from_secs(10);

/// An activity that goes well or fails.
#[derive(Default)]
pub(super) struct Condition {
    clock: Clock,
    /// Whether `failures` is not `None`. It can be read without the lock.
    is_failing: AtomicBool,
    failures: Mutex<Option<Failures>>,
}

struct Failures {
    count: u64,
    latest: Instant,
}

impl Condition {
    /// Records a failure. Returns true if it is the first, which is to be logged.
    pub(super) fn fails(&self) -> bool {
        self.fails_at(self.clock.now())
    }

    /// Records a success. If it ends a time of failures, returns their number, which is to be logged.
    pub(super) fn goes_well(&self) -> Option<u64> {
        // The usual case.
        if !self.is_failing.load(Ordering::Relaxed) {
            return None;
        }
        self.goes_well_at(self.clock.now())
    }

    fn fails_at(&self, now: Instant) -> bool {
        let mut failures = self.failures.lock();
        let is_news = failures.is_none();
        let known = failures.get_or_insert(Failures { count: 0, latest: now });
        known.count = known.count.saturating_add(1);
        known.latest = now;
        self.is_failing.store(true, Ordering::Relaxed);
        is_news
    }

    fn goes_well_at(&self, now: Instant) -> Option<u64> {
        let mut failures = self.failures.lock();
        let is_over = |it: &mut Failures| now.saturating_duration_since(it.latest) >= SETTLED;
        let count = failures.take_if(is_over)?.count;
        self.is_failing.store(false, Ordering::Relaxed);
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_fails_now_and_then_is_logged_once_until_it_has_settled() {
        let (condition, start) = (Condition::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(condition.goes_well(), None);
        for second in 0..100 {
            assert_eq!(condition.fails_at(at(second)), second == 0);
            assert_eq!(condition.goes_well_at(at(second + 9)), None);
        }
        assert_eq!(condition.goes_well(), None, "it has failed just now");
        assert_eq!(condition.goes_well_at(at(109)), Some(100));
        assert_eq!(condition.goes_well(), None);
        assert!(condition.fails_at(at(110)));
        assert_eq!(condition.goes_well_at(at(120)), Some(1));
    }
}
