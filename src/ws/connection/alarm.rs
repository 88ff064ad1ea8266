//! The timer of a connection, and whether it has gone off.
//!
//! To poll a timer is to read the clock. A connection parks after every message, and its timer goes
//! off once in a while, so it has a waker of its own that remembers: until then, nobody polls it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use crate::runtime::{Clock, Timer};

#[derive(Debug)]
pub(super) struct Alarm {
    timer: Timer,
    /// When it goes off.
    at: Instant,
    /// Does the timer run, with our waker?
    is_set: bool,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    connection: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.connection.wake_by_ref();
    }
}

impl Alarm {
    /// An alarm that goes off when the clock shows `at`, and wakes the connection of `cx` then.
    pub(super) fn new(at: Instant, clock: &Clock, cx: &Context<'_>) -> Self {
        let bell =
            Arc::new(Bell { has_rung: AtomicBool::new(false), connection: cx.waker().clone() });
        Self { timer: clock.timer(at), at, is_set: false, bell }
    }

    /// Has it gone off? It will until `at`, if it has not.
    pub(super) fn has_gone_off(&mut self, at: Instant) -> bool {
        // One that goes off too early is cheaper than one that is moved for every message.
        if !self.is_set || self.at > at {
            self.set(at);
        } else if !self.bell.has_rung.load(Ordering::Acquire) {
            return false;
        }
        self.bell.has_rung.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.bell));
        let cx = &mut Context::from_waker(&waker);
        self.is_set = Pin::new(&mut self.timer).poll(cx).is_pending();
        !self.is_set
    }

    /// Moves it, whether to an earlier time or a later one.
    pub(super) fn set(&mut self, at: Instant) {
        if self.at != at {
            self.timer.set_at(at);
            self.at = at;
        }
    }
}
