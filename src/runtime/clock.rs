//! Clocks: the time of day for deadlines, and timers that follow it.
//!
//! No other file of the crate reads the system's clock. A connection, a server and a client each carry the clock
//! of their options. Without the feature `testing`, the system's clock is the only one, and it takes no memory.
//! With it, a test may use a clock that it turns by hand,
//! and the server and the clients of a `TestClient` share one that runs and can be turned forward.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
use super::manual_clock::{ManualClock, ManualTimer};
#[cfg(feature = "server")]
use super::worker::{self, WorkerTimer};

/// A source of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// `None` for the clock of the system.
    #[cfg(feature = "testing")]
    manual: Option<ManualClock>,
}

impl Clock {
    /// Creates a clock that stands still until a test turns it.
    #[cfg(feature = "testing")]
    pub(crate) fn manual(clock: &ManualClock) -> Self {
        Self { manual: Some(clock.clone()) }
    }

    /// Follows `other` from now on, unless it follows a clock of a test already.
    #[cfg(feature = "testing")]
    pub(crate) fn inherit(&mut self, other: &Self) {
        if self.manual.is_none() {
            self.clone_from(other);
        }
    }

    /// What this clock shows when the clock of the system shows `at`.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, reason = "without the test kit there is one clock")
    )]
    pub(crate) fn at_system(&self, at: Instant) -> Instant {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.at_system(at);
        }
        at
    }

    /// The current time.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, reason = "without the test kit there is one clock")
    )]
    pub(crate) fn now(&self) -> Instant {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.now();
        }
        Instant::now()
    }

    /// The end of a timeout that begins now. A timeout beyond the range of `Instant` ends in 30 years.
    pub(crate) fn after(&self, timeout: Duration) -> Instant {
        later(self.now(), timeout)
    }

    /// The time that has passed since `then`.
    pub(crate) fn since(&self, then: Instant) -> Duration {
        self.now().saturating_duration_since(then)
    }

    /// Creates a timer that completes at `deadline`. It is registered when it is first polled.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, reason = "without the test kit there is one clock")
    )]
    pub(crate) fn timer(&self, deadline: Instant) -> Timer {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return Timer(Kind::Manual(manual.timer(deadline)));
        }
        #[cfg(feature = "server")]
        if let Some(place) = worker::place() {
            return Timer(Kind::Worker(WorkerTimer::new(place, deadline)));
        }
        Timer(Kind::System(async_io::Timer::at(deadline)))
    }

    /// Waits for `future`; `None` if `deadline` comes first.
    #[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
    pub(crate) async fn until<T>(
        &self,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        use futures::future::{Either, select};

        match select(std::pin::pin!(future), self.timer(deadline)).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        }
    }

    /// Waits for `future`, at most for `timeout` if there is one; `None` if the time was too short.
    #[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
    pub(crate) async fn timeout<T>(
        &self,
        timeout: Option<Duration>,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        match timeout {
            Some(timeout) => self.until(self.after(timeout), future).await,
            None => Some(future.await),
        }
    }
}

/// The end of a timeout that begins at `then`. A timeout beyond the range of `Instant` ends in 30 years.
pub(crate) fn later(then: Instant, timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    then.checked_add(timeout).or_else(|| then.checked_add(FAR)).unwrap_or(then)
}

/// The last point before `at` on a grid that all connections share. Timers that fire at the same time wake the
/// threads only once.
pub(crate) fn align(at: Instant, grid: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let beyond = at.saturating_duration_since(*START).as_nanos() % grid.as_nanos().max(1);
    let beyond = Duration::from_nanos(u64::try_from(beyond).unwrap_or_default());
    at.checked_sub(beyond).unwrap_or(at)
}

/// A future that completes at a point in time.
#[derive(Debug)]
pub(crate) struct Timer(Kind);

#[derive(Debug)]
enum Kind {
    System(async_io::Timer),
    /// Of the worker on which it was created.
    #[cfg(feature = "server")]
    Worker(WorkerTimer),
    #[cfg(feature = "testing")]
    Manual(ManualTimer),
}

impl Timer {
    /// Moves the timer to another point in time.
    pub(crate) fn set_at(&mut self, deadline: Instant) {
        match &mut self.0 {
            Kind::System(timer) => timer.set_at(deadline),
            #[cfg(feature = "server")]
            Kind::Worker(timer) => timer.set_at(deadline),
            #[cfg(feature = "testing")]
            Kind::Manual(timer) => timer.set_at(deadline),
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::System(timer) => Pin::new(timer).poll(cx).map(drop),
            #[cfg(feature = "server")]
            Kind::Worker(timer) => Pin::new(timer).poll(cx),
            #[cfg(feature = "testing")]
            Kind::Manual(timer) => Pin::new(timer).poll(cx),
        }
    }
}
