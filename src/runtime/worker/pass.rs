//! `Worker`, and the loop of the thread that runs it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_task::{Builder, Runnable, Task};
use concurrent_queue::ConcurrentQueue;
use slab::Slab;

use super::enter;
use super::label::Label;
use super::park::Parking;
use super::readiness::{Happened, Source};
use super::run_delay::RunDelay;
use super::stall::{Stalls, Watch};
use super::timer::Timers;
use super::turn::{Replaced, Turn, Turns};
use crate::foreign::{attempt, discard};
use crate::sync::Mutex;

/// Tasks that a pass runs before it polls.
const TASKS_PER_PASS: usize = 64;

/// The time of a pass after which it polls, though tasks are left.
const TIME_PER_PASS: Duration = Duration::from_millis(1);

/// Tasks between two looks at the time, since a look takes some 30 ns.
const TASKS_PER_LOOK: usize = 8;

/// Timers that a pass fires at most. Those that are left are due in the next pass.
const TIMERS_PER_PASS: usize = 256;

/// Events that one poll fetches: as many as a pass runs tasks, so that what the events have brought into the processor's
/// cache is still there when the tasks run.
const EVENTS_PER_POLL: usize = TASKS_PER_PASS;

/// The longest wait for an event. An older mio takes only the lower bits of a wait of months.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The load of a worker that has ended. What comes later is added to it, and runs elsewhere.
const ENDED: usize = usize::MAX / 2;

/// What sockets are registered for.
const BOTH: mio::Interest = mio::Interest::READABLE.add(mio::Interest::WRITABLE);

/// The token of the waker. Sockets have the numbers of `sources`.
const WAKER: mio::Token = mio::Token(usize::MAX);

/// What one thread at a time runs: sockets, tasks and timers.
pub(crate) struct Worker {
    poller: Mutex<Poller>,
    registry: mio::Registry,
    waker: mio::Waker,
    queue: ConcurrentQueue<Runnable>,
    timers: Timers,
    sources: Mutex<Sources>,
    parking: Parking,
    turns: Turns,
    /// What lives on the worker: tasks that have not ended, sockets and timers. [`ENDED`] and more once it runs nothing
    /// any more.
    load: AtomicUsize,
    /// Tasks that have not ended.
    tasks: AtomicUsize,
    /// Those of them that are connections. A connection is one task at a time, in all of its life.
    connections: AtomicUsize,
    /// Whether the worker ends once nothing lives on it.
    is_ending: AtomicBool,
    /// The label of what runs, or 0. See [`Label`].
    label: AtomicUsize,
    stalls: Stalls,
    /// How long the thread of the owner has waited for a core.
    delay: Mutex<RunDelay>,
    /// The supervisor of the server's workers.
    watch: Arc<Watch>,
}

struct Poller {
    poll: mio::Poll,
    events: mio::Events,
}

#[derive(Default)]
struct Sources {
    by_key: Slab<Arc<Source>>,
    /// Keys of closed sockets, which the owner frees before it polls.
    closed: Vec<usize>,
}

/// Why a thread runs a worker no longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// Nothing is left to run, and the server has ended.
    Ended,
    /// Another thread is the owner.
    Replaced,
}

impl Worker {
    pub(super) fn new(watch: Arc<Watch>) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        Ok(Self {
            registry: poll.registry().try_clone()?,
            waker: mio::Waker::new(poll.registry(), WAKER)?,
            poller: Mutex::new(Poller {
                poll,
                events: mio::Events::with_capacity(EVENTS_PER_POLL),
            }),
            queue: ConcurrentQueue::unbounded(),
            timers: Timers::default(),
            sources: Mutex::default(),
            parking: Parking::new(),
            turns: Turns::new(),
            load: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            is_ending: AtomicBool::new(false),
            label: AtomicUsize::new(0),
            stalls: Stalls::default(),
            delay: Mutex::default(),
            watch,
        })
    }

    /// Runs `future` on this worker, as one of those that [`live`](Self::live) there.
    pub(crate) fn spawn<F>(place: Place, what: Resident, future: F) -> Task<()>
    where
        F: Future<Output = ()> + Send + Unpin + 'static,
    {
        let worker = Arc::clone(&place.0);
        let future = Living::new(future, what, place);
        let schedule = move |runnable| worker.push(runnable);
        let (runnable, task) = Builder::new().propagate_panic(true).spawn(|()| future, schedule);
        runnable.schedule();
        task
    }

    /// Counts something that lives on the worker until the returned value is dropped; `None` if the worker has ended.
    pub(crate) fn live(self: &Arc<Self>) -> Option<Place> {
        let before = self.load.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        (before < ENDED).then_some(place)
    }

    fn push(&self, runnable: Runnable) {
        // The queue has no bound and is never closed.
        let _ = self.queue.push(runnable);
        self.notify();
    }

    /// Wakes the owner if it is parked. Call it after the change that it shall see.
    pub(super) fn notify(&self) {
        if self.parking.must_wake() {
            // Without it, the owner comes at its next timer or event.
            let _ = self.waker.wake();
        }
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(super) fn register(
        &self,
        io: &mut impl mio::event::Source,
    ) -> io::Result<(usize, Arc<Source>)> {
        let source = Arc::new(Source::new());
        let key = self.sources.lock().by_key.insert(Arc::clone(&source));
        if let Err(error) = self.registry.register(io, mio::Token(key), BOTH) {
            self.sources.lock().closed.push(key);
            return Err(error);
        }
        Ok((key, source))
    }

    /// Has the operating system tell of the socket anew if it is ready.
    pub(super) fn register_again(
        &self,
        io: &mut impl mio::event::Source,
        key: usize,
    ) -> io::Result<()> {
        self.registry.reregister(io, mio::Token(key), BOTH)
    }

    pub(super) fn deregister(&self, io: &mut impl mio::event::Source, key: usize) {
        // It fails for a socket that is gone, which has no events either.
        let _ = self.registry.deregister(io);
        self.sources.lock().closed.push(key);
    }

    /// Tasks that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }

    /// Connections that have not ended.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The number of tasks that wait for their turn.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    pub(super) fn label(&self) -> &AtomicUsize {
        &self.label
    }

    pub(super) fn is_parked(&self) -> bool {
        self.parking.is_parked()
    }

    /// Has the worker end as soon as nothing lives on it.
    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        self.notify();
    }

    /// Whether nothing lives on the worker, which shall end then.
    fn may_end(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst) && self.load.load(Ordering::SeqCst) == 0
    }

    /// Ends the worker, if it may: what comes from now on runs elsewhere.
    fn try_end(&self) -> bool {
        // A task that was woken at its end is in the queue, but counts no more.
        self.may_end()
            && self.queue.is_empty()
            && self.load.compare_exchange(0, ENDED, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// The turn of the owner, for a later [`take_over`](Self::take_over).
    pub(super) fn turn(&self) -> Turn {
        self.turns.now()
    }

    /// Takes the worker away from an owner that is still inside the task of `seen`. The caller gets the word with which
    /// another thread runs it.
    pub(super) fn take_over(&self, seen: Turn) -> Option<Turn> {
        // Before the exchange, for what the next owner runs has another label.
        let label = Label::of(&self.label);
        let delay = self.delay.lock().clone();
        self.stalls.begin(seen, label, delay, || self.turns.take_over(seen))
    }

    /// Runs the worker on this thread until nothing is left of it, or another thread has it.
    pub(super) fn run(self: &Arc<Self>, turn: Turn) -> Left {
        let _entered = enter(self);
        *self.delay.lock() = RunDelay::of_this_thread();
        match self.run_passes(turn) {
            Ok(()) => Left::Ended,
            Err(Replaced(seen)) => {
                self.stalls.end(seen);
                Left::Replaced
            }
        }
    }

    fn run_passes(&self, mut turn: Turn) -> Result<(), Replaced> {
        let mut due = Vec::new();
        let mut freed = Vec::new();
        let mut events = Vec::new();
        loop {
            self.run_tasks(&mut turn)?;
            self.timers.take_due(Instant::now(), TIMERS_PER_PASS, &mut due);
            if !due.is_empty() {
                self.inside(&mut turn, || {
                    for waker in due.drain(..) {
                        let _ = attempt(|| waker.wake());
                    }
                })?;
            }
            if self.try_end() {
                self.free_closed(&mut freed);
                freed.drain(..).for_each(discard);
                return Ok(());
            }
            self.free_closed(&mut freed);
            if !freed.is_empty() {
                // The wakers that are left in them are foreign, too.
                self.inside(&mut turn, || freed.drain(..).for_each(discard))?;
            }
            self.poll(&mut events);
            if !events.is_empty() {
                self.inside(&mut turn, || {
                    for (source, event) in events.drain(..) {
                        source.wake(event);
                        discard(source);
                    }
                })?;
            }
        }
    }

    /// Calls foreign code: a task, or wakers. If it does not return, another thread goes on as this worker, and this one
    /// finds that it was replaced.
    fn inside(&self, turn: &mut Turn, foreign: impl FnOnce()) -> Result<(), Replaced> {
        self.label.store(0, Ordering::Relaxed);
        self.turns.step(turn)?;
        foreign();
        self.turns.step(turn)
    }

    /// Step 1 of a pass.
    fn run_tasks(&self, turn: &mut Turn) -> Result<(), Replaced> {
        let queued = self.queue.len().min(TASKS_PER_PASS);
        let mut begun = None;
        for number in 0..queued {
            if number % TASKS_PER_LOOK == TASKS_PER_LOOK - 1 {
                let now = Instant::now();
                let begun = *begun.get_or_insert(now);
                if now.saturating_duration_since(begun) > TIME_PER_PASS {
                    break;
                }
            }
            let Ok(runnable) = self.queue.pop() else { break };
            // A panic of a task is caught by its wrapper; this is for one in a destructor of that.
            self.inside(turn, || {
                let _ = attempt(|| runnable.run());
            })?;
        }
        Ok(())
    }

    /// Takes the closed sockets out of the table: their numbers are free from now on. The owner alone calls this, and has
    /// no event then that it has fetched.
    pub(super) fn free_closed(&self, freed: &mut Vec<Arc<Source>>) {
        let mut sources = self.sources.lock();
        let Sources { by_key, closed } = &mut *sources;
        freed.extend(closed.drain(..).filter_map(|key| by_key.try_remove(key)));
    }

    /// Steps 3 and 4: waits for events, and notes them. The tasks to wake are left to the caller, who holds no lock.
    pub(super) fn poll(&self, found: &mut Vec<(Arc<Source>, Happened)>) {
        let mut poller = self.poller.lock();
        let Poller { poll, events } = &mut *poller;
        self.parking.begin();
        let timeout = if !self.queue.is_empty() || self.may_end() {
            Some(Duration::ZERO)
        } else {
            self.timers.first().map(|first| wait_until(first, Instant::now()))
        };
        let outcome = poll.poll(events, timeout);
        self.parking.end();
        self.watch.begin();
        if outcome.is_err() {
            // Interrupted by a signal. The next pass polls again.
            return;
        }
        let sources = self.sources.lock();
        for event in events.iter().filter(|event| event.token() != WAKER) {
            if let Some(source) = sources.by_key.get(event.token().0) {
                let happened = Happened::from(event);
                source.note(happened);
                found.push((Arc::clone(source), happened));
            }
        }
    }
}

/// The wait for a timer that is due at `first`.
pub(super) fn wait_until(first: Instant, now: Instant) -> Duration {
    first.saturating_duration_since(now).min(LONGEST_WAIT)
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("tasks", &self.tasks()).finish_non_exhaustive()
    }
}

/// Something that lives on a worker, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Worker>);

impl Place {
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let worker = &self.0;
        if worker.load.fetch_sub(1, Ordering::SeqCst) == 1
            && worker.is_ending.load(Ordering::SeqCst)
        {
            worker.notify();
        }
    }
}

/// What a task is, for the figures of its worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Resident {
    Connection,
    Other,
}

/// The future of a task. Its place is free once it is dropped.
struct Living<F> {
    future: F,
    what: Resident,
    place: Place,
}

impl<F> Living<F> {
    fn new(future: F, what: Resident, place: Place) -> Self {
        let worker = &place.0;
        worker.tasks.fetch_add(1, Ordering::Relaxed);
        worker.connections.fetch_add(usize::from(what == Resident::Connection), Ordering::Relaxed);
        Self { future, what, place }
    }
}

impl<F: Future + Unpin> Future for Living<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.future).poll(cx)
    }
}

impl<F> Drop for Living<F> {
    fn drop(&mut self) {
        let Self { what, place: Place(worker), .. } = self;
        worker.connections.fetch_sub(usize::from(*what == Resident::Connection), Ordering::Relaxed);
        worker.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}
