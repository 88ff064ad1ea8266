//! A clock that stands still until a test turns it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::{Mutex, MutexGuard};

/// A clock for tests. It stands still until [`advance`](Self::advance) turns it.
///
/// Give it to a connection with [`WebSocketOptions::clock`](crate::WebSocketOptions::clock). All deadlines of
/// the connection then follow this clock: heartbeats, idle timeouts, expiry, and the timeouts of messages,
/// sends and closing handshakes. A test of a 25 s heartbeat then takes no time, and does not depend on the load
/// of the machine. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use tidewire::WebSocketOptions;
/// use tidewire::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// let options = WebSocketOptions::default()
///     .idle_timeout(Duration::from_secs(60))
///     .clock(&clock);
/// clock.advance(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now: Instant,
    /// Waiting timers, by deadline and number.
    waiting: BTreeMap<(Instant, u64), Waker>,
    /// The number of timers ever made.
    timers: u64,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// Creates a clock that shows the current time of the system, and stands still.
    #[must_use]
    pub fn new() -> Self {
        let state = State { now: Instant::now(), waiting: BTreeMap::new(), timers: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// Turns the clock forward, and wakes the tasks whose timers are due by then.
    ///
    /// The woken tasks run after this returns. A clock that would leave the range of [`Instant`] does not move.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        let now = state.now.checked_add(by).unwrap_or(state.now);
        state.now = now;
        let later = state.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        // Without the lock, since a waker is code of the application.
        due.into_values().for_each(Waker::wake);
    }

    /// The deadline of the timer that is due next; `None` if no task waits for one.
    ///
    /// The deadline may have passed already, if the timer was registered after it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.state().waiting.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Creates a timer that completes when the clock shows `deadline`.
    pub(super) fn timer(&self, deadline: Instant) -> ManualTimer {
        let mut state = self.state();
        state.timers += 1;
        ManualTimer { clock: self.clone(), number: state.timers, deadline }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// A timer of a [`ManualClock`].
#[derive(Debug)]
pub(super) struct ManualTimer {
    clock: ManualClock,
    number: u64,
    deadline: Instant,
}

impl ManualTimer {
    /// Moves the timer. The task that waits for it keeps waiting.
    pub(super) fn set_at(&mut self, deadline: Instant) {
        let mut state = self.clock.state();
        let waker = state.waiting.remove(&(self.deadline, self.number));
        let is_due = deadline <= state.now;
        let due = match waker {
            Some(waker) if !is_due => {
                state.waiting.insert((deadline, self.number), waker);
                None
            }
            due => due,
        };
        drop(state);
        self.deadline = deadline;
        if let Some(waker) = due {
            waker.wake();
        }
    }
}

impl Future for ManualTimer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned and dropped without the lock, since a waker is code of the application.
        let waker = cx.waker().clone();
        let mut state = self.clock.state();
        let key = (self.deadline, self.number);
        let is_due = self.deadline <= state.now;
        let before =
            if is_due { state.waiting.remove(&key) } else { state.waiting.insert(key, waker) };
        drop(state);
        drop(before);
        if is_due { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ManualTimer {
    fn drop(&mut self) {
        let waker = self.clock.state().waiting.remove(&(self.deadline, self.number));
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn timers_complete_when_the_clock_has_been_turned_so_far() {
        let (clock, woken) = (ManualClock::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let mut timer = clock.timer(clock.now() + SECOND);
        assert_eq!(clock.next_deadline(), None, "nothing waits for it yet");
        assert!(Pin::new(&mut timer).poll(cx).is_pending());
        assert_eq!(clock.next_deadline(), Some(clock.now() + SECOND));

        clock.advance(SECOND / 2);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert!(Pin::new(&mut timer).poll(cx).is_pending());
        clock.advance(SECOND / 2);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut timer).poll(cx).is_ready());
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn a_timer_that_is_moved_takes_its_waker_along() {
        let (clock, woken) = (ManualClock::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let mut timer = clock.timer(clock.now() + SECOND);
        assert!(Pin::new(&mut timer).poll(cx).is_pending());
        timer.set_at(clock.now() + 2 * SECOND);
        clock.advance(SECOND);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        timer.set_at(clock.now());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "moved into the past");
        assert!(Pin::new(&mut timer).poll(cx).is_ready());
    }

    #[test]
    fn a_timer_that_is_dropped_wakes_no_task() {
        let (clock, woken) = (ManualClock::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut timer = clock.timer(clock.now() + SECOND);
        assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(timer);
        assert_eq!(clock.next_deadline(), None);
        clock.advance(2 * SECOND);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
}
