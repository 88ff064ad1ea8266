//! Clocks that a test turns: one that stands still otherwise, and one that runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::foreign::attempt;
use crate::sync::{Mutex, MutexGuard};

/// A clock for tests. It stands still until [`advance`](Self::advance) turns it.
///
/// Give it to a connection with [`WebSocketOptions::clock`](crate::WebSocketOptions::clock). All deadlines of
/// the connection then follow this clock: heartbeats, idle timeouts, expiry, and the timeouts of messages,
/// sends and closing handshakes. A test of a 25 s heartbeat then takes no time, and does not depend on the load
/// of the machine. Clones show the same time.
///
/// A test with a [`TestClient`](crate::testing::TestClient) rarely needs one:
/// [`TestClient::advance`](crate::testing::TestClient::advance) turns the time of the server and of its clients.
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
    hands: Hands,
    /// Waiting timers, by deadline and number.
    waiting: BTreeMap<(Instant, u64), Waker>,
    /// The number of timers ever made.
    timers: u64,
    /// Of a clock that runs: calls when the first of the waiting timers is due.
    alarm: Option<async_io::Timer>,
}

/// What a clock shows.
#[derive(Debug)]
enum Hands {
    Still(Instant),
    /// The time of the system, and so much more.
    Running(Duration),
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
        Self::with(Hands::Still(Instant::now()))
    }

    /// Creates a clock that shows the time of the system, and runs with it. A test may turn it forward.
    pub(crate) fn running() -> Self {
        Self::with(Hands::Running(Duration::ZERO))
    }

    fn with(hands: Hands) -> Self {
        let state = State { hands, waiting: BTreeMap::new(), timers: 0, alarm: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.state().now()
    }

    /// Turns the clock forward, and wakes the tasks whose timers are due by then.
    ///
    /// The woken tasks run after this returns. A clock that would leave the range of [`Instant`] does not move.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.turn(by);
        let due = state.take_due();
        self.arm(&mut state);
        drop(state);
        wake(due);
    }

    /// Turns the clock to the next deadline, but at most by `most`, and wakes the tasks whose timers are due then.
    /// Returns by how much, and whether there were such tasks.
    pub(crate) fn advance_to_next(&self, most: Duration) -> (Duration, bool) {
        let mut state = self.state();
        let now = state.now();
        let until = state.waiting.keys().next().map(|(at, _)| at.saturating_duration_since(now));
        let by = until.map_or(most, |until| until.min(most));
        state.turn(by);
        let due = state.take_due();
        self.arm(&mut state);
        drop(state);
        let is_due = !due.is_empty();
        wake(due);
        (by, is_due)
    }

    /// The deadline of the timer that is due next; `None` if no task waits for one.
    ///
    /// The deadline may have passed already, if the timer was registered after it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.state().waiting.keys().next().map(|(deadline, _)| *deadline)
    }

    /// What this clock shows when the clock of the system shows `at`.
    pub(super) fn at_system(&self, at: Instant) -> Instant {
        match self.state().hands {
            Hands::Still(_) => at,
            Hands::Running(by) => at.checked_add(by).unwrap_or(at),
        }
    }

    /// Creates a timer that completes when the clock shows `deadline`.
    pub(super) fn timer(&self, deadline: Instant) -> ManualTimer {
        let mut state = self.state();
        state.timers += 1;
        ManualTimer { clock: self.clone(), number: state.timers, deadline }
    }

    /// Sets the alarm of a clock that runs.
    fn arm(&self, state: &mut State) {
        let Hands::Running(by) = state.hands else { return };
        let first = state.waiting.keys().next().and_then(|(at, _)| at.checked_sub(by));
        let Some(first) = first else {
            state.alarm = None;
            return;
        };
        let waker = Waker::from(Arc::new(Alarm(Arc::downgrade(&self.0))));
        let cx = &mut Context::from_waker(&waker);
        let alarm = state.alarm.get_or_insert_with(|| async_io::Timer::at(first));
        alarm.set_at(first);
        // A timer that is due already has no event: the next moment is one.
        while Pin::new(&mut *alarm).poll(cx).is_ready() {
            alarm.set_at(Instant::now() + MOMENT);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// Wakes those whose timers are due. Call it without the lock, since a waker is code of the application.
fn wake(due: BTreeMap<(Instant, u64), Waker>) {
    for waker in due.into_values() {
        // A panic of one keeps no other from being woken.
        let _ = attempt(|| waker.wake());
    }
}

/// The wait for a timer that is due when it is registered.
const MOMENT: Duration = Duration::from_millis(1);

impl State {
    fn now(&self) -> Instant {
        match self.hands {
            Hands::Still(now) => now,
            Hands::Running(by) => {
                let now = Instant::now();
                now.checked_add(by).unwrap_or(now)
            }
        }
    }

    fn turn(&mut self, by: Duration) {
        let now = self.now();
        // The range of `Instant`.
        if now.checked_add(by).is_none() {
            return;
        }
        match &mut self.hands {
            Hands::Still(now) => *now += by,
            Hands::Running(ahead) => *ahead = ahead.saturating_add(by),
        }
    }

    /// Takes the timers that are due, in the order of their deadlines.
    fn take_due(&mut self) -> BTreeMap<(Instant, u64), Waker> {
        let later = self.waiting.split_off(&(self.now(), u64::MAX));
        std::mem::replace(&mut self.waiting, later)
    }
}

/// The waker of a clock's alarm: wakes those that are due.
struct Alarm(Weak<Mutex<State>>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if let Some(state) = self.0.upgrade() {
            ManualClock(state).advance(Duration::ZERO);
        }
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
        let is_due = deadline <= state.now();
        let due = match waker {
            Some(waker) if !is_due => {
                state.waiting.insert((deadline, self.number), waker);
                None
            }
            due => due,
        };
        self.clock.arm(&mut state);
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
        let is_due = self.deadline <= state.now();
        let before =
            if is_due { state.waiting.remove(&key) } else { state.waiting.insert(key, waker) };
        self.clock.arm(&mut state);
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
    fn a_waker_that_panics_keeps_no_other_task_asleep() {
        struct Bomb;

        impl Wake for Bomb {
            fn wake(self: Arc<Self>) {
                panic!("on purpose");
            }
        }

        let (clock, woken) = (ManualClock::new(), Arc::new(Count::default()));
        let mut timers = [1, 2].map(|seconds| clock.timer(clock.now() + seconds * SECOND));
        let wakers = [Waker::from(Arc::new(Bomb)), Waker::from(Arc::clone(&woken))];
        for (timer, waker) in timers.iter_mut().zip(&wakers) {
            assert!(Pin::new(timer).poll(&mut Context::from_waker(waker)).is_pending());
        }
        clock.advance(2 * SECOND);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
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
