//! Workers: threads that each own the sockets, the tasks and the timers of a share of a server's connections.
//!
//! A message of a connection that lives on one worker costs one read, one write, and a share of one `epoll_wait`: no task
//! moves, no other thread is woken, and a socket is registered once for all of its life.
//!
//! | file | holds |
//! | --- | --- |
//! | `pass` | `Worker`, and the loop of the thread that runs it |
//! | `park` | whether the owner waits, for others to wake it |
//! | `turn` | which thread is the owner, and whether it is inside a task |
//! | `source` | a socket that is registered with a worker |
//! | `readiness` | the readiness of a socket, and the tasks that wait for it |
//! | `timer` | the timers of a worker |
//! | `label` | the names of routes, for a worker to tell what it is inside |
//! | `pool` | the workers of a server: which one gets the next task, their threads, and their end |
//! | `run_delay` | how long a thread has waited for a core |
//! | `stall` | the supervisor, which has a spare thread continue a worker whose task does not return |
//! | `model` | a model check of `park`, `turn`, `readiness` and `stall` |
//!
//! # A pass
//!
//! 1. Run the tasks that are queued, at most 64 of them and for 1 ms. Tasks that they wake come after these.
//! 2. Fire the timers that are due.
//! 3. Free the numbers of closed sockets, and drop the wakers that are left in them. Poll the operating system: with no wait if tasks are queued, else until the next timer or the next event.
//! 4. Note the readiness of the sockets that have events, and wake the tasks that wait for them.
//!
//! # Readiness
//!
//! Sockets are registered edge-triggered, for both directions, so an event is told once. Its bits stay in the word of the
//! `Source` until a call on the socket has returned `WouldBlock`. Between that call and the clearing of the bit another
//! event may come; the word counts events, and a bit is cleared only if the count is that of before the call. The bits of
//! a closed direction and of an error stay for ever: a FIN that comes with the last bytes has no event of its own.
//!
//! The number of a socket, in the `sources` of its worker, is given to another socket only by the thread that polls, and
//! before it polls. So an event that was fetched for a closed socket finds nobody.
//!
//! # Who may do what
//!
//! One thread at a time is the owner of a worker: it alone runs tasks, fires timers and polls. All other threads may queue
//! a task, set a timer, register a socket or close one. If the owner is parked in `poll`, they wake it.
//!
//! The owner notes in `turn`, one word, how many times it has changed hands, and whether it is inside a task. It changes
//! the word by compare and exchange before and after each task. The supervisor takes a worker away from its owner by the
//! same means, if it has seen the owner inside one task for 20 ms. So after its task the owner finds that it is no owner
//! any more, and its thread becomes a spare. A handler tells the worker its route with each poll, so that the supervisor
//! can name it. It is named in a warning if the task has held its thread for 100 ms, without the time in which the thread
//! had to wait for a core: that is the fault of no handler. With six visitors beside builds on two cores, thirty minutes
//! had three such warnings before.
//!
//! All threads of a server, spares too, are in the context of its tokio runtime, if it has one, for as long as they live.
//! If that runtime ends first, a handler that uses it panics or gets an error, and the worker goes on.
//!
//! # Locks
//!
//! | lock | held | taken under it |
//! | --- | --- | --- |
//! | `poller` | while the owner polls | none |
//! | `sources` | for a lookup, a registration, a removal | none |
//! | `timers` | for an insertion, a removal, a look at the first | none |
//! | `stalls` | for a stall to be noted, told or removed | none |
//! | `pool`'s threads | for a spare to come or go | none |
//!
//! No waker, no task and no destructor of a future runs under any of them.

mod label;
#[cfg(test)]
mod model;
mod park;
mod pass;
mod pool;
mod readiness;
mod run_delay;
mod source;
mod stall;
#[cfg(test)]
mod tests;
mod timer;
mod turn;

use std::cell::RefCell;
use std::sync::Arc;

pub(crate) use self::label::Label;
pub(crate) use self::pass::{Place, Resident, Worker};
pub(crate) use self::pool::{WorkerStats, Workers};
pub(crate) use self::readiness::Direction;
pub(crate) use self::source::{Listening, Registered};
pub(crate) use self::timer::WorkerTimer;

/// What `model` replaces by primitives whose interleavings it explores.
mod primitives {
    pub(super) use std::sync::atomic;

    pub(super) use futures::task::AtomicWaker;

    pub(super) use crate::sync::{Condition, Mutex};

    #[cfg(test)]
    pub(super) fn check(test: impl Fn() + Sync + Send + 'static) {
        test();
    }
}

thread_local! {
    /// The worker that this thread runs, or ran when its present task began.
    static CURRENT: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// The worker of this thread, if it is one of a server's.
pub(crate) fn current() -> Option<Arc<Worker>> {
    // `None` also where the thread ends.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// A place on the worker of this thread, for something that lives there.
pub(crate) fn place() -> Option<Place> {
    CURRENT.try_with(|current| current.borrow().as_ref().and_then(Worker::live)).ok().flatten()
}

/// Makes this thread one of `worker`'s until the returned value is dropped.
fn enter(worker: &Arc<Worker>) -> Entered {
    Entered(CURRENT.replace(Some(Arc::clone(worker))))
}

struct Entered(Option<Arc<Worker>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
