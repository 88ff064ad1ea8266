//! The timers of a worker.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::pass::Place;
use crate::foreign::discard;
use crate::sync::Mutex;

/// The timers of a worker that are waited for, by deadline.
#[derive(Default)]
pub(super) struct Timers(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: BTreeMap<Key, Waker>,
    /// The number of the next timer, which tells those with one deadline apart.
    next: u64,
}

/// The place of a timer in the queue.
type Key = (Instant, u64);

impl Timers {
    /// The first deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        self.0.lock().waiting.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes the wakers of at most `most` timers that are due at `now`. They are called without the lock.
    pub(super) fn take_due(&self, now: Instant, most: usize, due: &mut Vec<Waker>) {
        let mut queue = self.0.lock();
        while due.len() < most {
            let Some(entry) = queue.waiting.first_entry().filter(|entry| entry.key().0 <= now)
            else {
                break;
            };
            due.push(entry.remove());
        }
    }

    /// Waits, or goes on waiting with another waker. Returns the key, the replaced waker, and whether the timer is the
    /// first now.
    fn wait(
        &self,
        deadline: Instant,
        key: Option<Key>,
        waker: Waker,
    ) -> (Key, Option<Waker>, bool) {
        let mut queue = self.0.lock();
        let key = key.unwrap_or_else(|| {
            queue.next = queue.next.wrapping_add(1);
            (deadline, queue.next)
        });
        let replaced = queue.waiting.insert(key, waker);
        let is_first = queue.waiting.first_key_value().is_some_and(|(first, _)| *first == key);
        (key, replaced, is_first)
    }

    fn remove(&self, key: Key) -> Option<Waker> {
        self.0.lock().waiting.remove(&key)
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("waiting", &self.0.lock().waiting.len()).finish()
    }
}

/// A future that completes at a point in time, by the timers of a worker.
#[derive(Debug)]
pub(crate) struct WorkerTimer {
    place: Place,
    deadline: Instant,
    /// The place in the queue, once it was polled.
    key: Option<Key>,
}

impl WorkerTimer {
    pub(crate) fn new(place: Place, deadline: Instant) -> Self {
        Self { place, deadline, key: None }
    }

    fn timers(&self) -> &Timers {
        self.place.worker().timers()
    }

    /// Moves the timer to another point in time. A task that waits for it is woken then.
    pub(crate) fn set_at(&mut self, deadline: Instant) {
        let waker = self.key.take().and_then(|key| self.timers().remove(key));
        self.deadline = deadline;
        if let Some(waker) = waker {
            self.wait(waker);
        }
    }

    fn wait(&mut self, waker: Waker) {
        let (key, replaced, is_first) = self.timers().wait(self.deadline, self.key, waker);
        self.key = Some(key);
        if is_first {
            // The owner may be parked until a later deadline.
            self.place.worker().notify();
        }
        discard(replaced);
    }
}

impl Future for WorkerTimer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.deadline <= Instant::now() {
            discard(this.key.take().and_then(|key| this.timers().remove(key)));
            return Poll::Ready(());
        }
        this.wait(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for WorkerTimer {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            discard(self.timers().remove(key));
        }
    }
}
