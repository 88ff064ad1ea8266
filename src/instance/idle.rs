//! Connections that wait for a request, and make room for others when the server is full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use slab::Slab;

use super::Instance;
use crate::sync::{Mutex, MutexGuard};

/// The connections that speak HTTP, in the order in which they became idle.
///
/// A request takes no lock. A connection takes a number when it becomes idle, and the numbers are compared only
/// when a place is wanted.
#[derive(Debug, Default)]
pub(crate) struct IdleConnections {
    table: Mutex<Table>,
    /// A copy of `Table::wanted`, for a connection that becomes idle.
    wanted: AtomicUsize,
    /// The last number that was taken.
    last: AtomicU64,
    /// The number of connections that were closed to make room.
    closed: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    open: Slab<Arc<State>>,
    /// The numbers and keys of the connections that were idle at the last look, the longest idle first. A
    /// connection that became idle later has a higher number.
    line: VecDeque<(u64, usize)>,
    /// The number of connections that wait for a place.
    waiting: usize,
    /// The number of waiting connections for which no idle one has been asked to close yet.
    wanted: usize,
}

/// The state of one connection: [`BUSY`], [`CLOSING`], or the number that it took when it became idle.
#[derive(Debug, Default)]
struct State {
    now: AtomicU64,
    waker: AtomicWaker,
}

const BUSY: u64 = 0;

/// The connection was asked to close.
const CLOSING: u64 = u64::MAX;

impl IdleConnections {
    /// Asks for one place: an idle connection is closed, now or as soon as there is one. Dropping the returned
    /// value withdraws the request.
    pub(crate) fn make_room(&self) -> Switching<'_> {
        let mut table = self.table();
        table.waiting = table.waiting.saturating_add(1);
        self.set_wanted(&mut table, |wanted| wanted.saturating_add(1));
        drop(table);
        self.close_wanted();
        Switching(self)
    }

    /// Asks the connection that has been idle longest to close; false if none is idle.
    pub(crate) fn close_longest(&self) -> bool {
        let longest = self.table().take_longest();
        wake(longest)
    }

    /// The number of connections that were closed to make room.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.load(SeqCst)
    }

    /// Asks idle connections to close, one for each place that is wanted.
    fn close_wanted(&self) {
        loop {
            let mut table = self.table();
            if table.wanted == 0 {
                return;
            }
            let longest = table.take_longest();
            if longest.is_some() {
                self.set_wanted(&mut table, |wanted| wanted.saturating_sub(1));
            }
            drop(table);
            if !wake(longest) {
                return;
            }
        }
    }

    fn set_wanted(&self, table: &mut Table, change: impl FnOnce(usize) -> usize) {
        table.wanted = change(table.wanted).min(table.waiting);
        self.wanted.store(table.wanted, SeqCst);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Table {
    fn take_longest(&mut self) -> Option<Arc<State>> {
        let longest = self.next_in_line();
        if longest.is_some() {
            return longest;
        }
        // The line is used up: make a new one of the connections that are idle now.
        let idle = |(key, state): (usize, &Arc<State>)| {
            let now = state.now.load(SeqCst);
            (now != BUSY && now != CLOSING).then_some((now, key))
        };
        let mut line: Vec<_> = self.open.iter().filter_map(idle).collect();
        line.sort_unstable();
        self.line = line.into();
        self.next_in_line()
    }

    fn next_in_line(&mut self) -> Option<Arc<State>> {
        while let Some((number, key)) = self.line.pop_front() {
            let state = self.open.get(key);
            // Fails if the connection has had a request since the line was made.
            let is_idle = |state: &&Arc<State>| {
                state.now.compare_exchange(number, CLOSING, SeqCst, SeqCst).is_ok()
            };
            if let Some(state) = state.filter(is_idle) {
                return Some(Arc::clone(state));
            }
        }
        None
    }
}

/// Wakes a connection that has to close, outside the lock; false if there is none.
fn wake(connection: Option<Arc<State>>) -> bool {
    let Some(state) = connection else { return false };
    state.waker.wake();
    true
}

/// A request for a place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Switching<'a>(&'a IdleConnections);

impl Drop for Switching<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.waiting = table.waiting.saturating_sub(1);
        self.0.set_wanted(&mut table, |wanted| wanted);
    }
}

/// A connection that makes room when it is idle, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    instance: Arc<Instance>,
    state: Arc<State>,
    key: usize,
}

impl Lease {
    /// Registers a connection, which is busy at first.
    pub(crate) fn new(instance: Arc<Instance>) -> Self {
        let state = Arc::new(State::default());
        let key = instance.idle.table().open.insert(Arc::clone(&state));
        Self { instance, state, key }
    }

    /// Marks the connection as idle, until it is [busy](Self::set_busy), and waits until it has to close to make
    /// room for another.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.waker.register(cx.waker());
        if self.state.now.load(SeqCst) == BUSY {
            let number = self.idle().last.fetch_add(1, SeqCst).saturating_add(1);
            self.state.now.store(number, SeqCst);
            // Idle first, then the look at `wanted`; a request for a place goes the other way round. So at least
            // one of the two sees the other.
            if self.idle().wanted.load(SeqCst) > 0 {
                self.idle().close_wanted();
            }
        }
        if self.has_ended() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Marks the connection as busy: a request has arrived. If it was asked to close at the same moment,
    /// another connection is asked instead.
    pub(crate) fn set_busy(&self) {
        if self.state.now.swap(BUSY, SeqCst) == CLOSING {
            let mut table = self.idle().table();
            self.idle().set_wanted(&mut table, |wanted| wanted.saturating_add(1));
            drop(table);
            self.idle().close_wanted();
        }
    }

    /// Whether the connection has to close.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.now.load(SeqCst) == CLOSING
    }

    fn idle(&self) -> &IdleConnections {
        &self.instance.idle
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.idle().table().open.try_remove(self.key);
        if self.has_ended() {
            self.idle().closed.fetch_add(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn leases(number: usize) -> (Arc<Instance>, Vec<Lease>) {
        let instance = Arc::new(Instance::default());
        let lease = || Lease::new(Arc::clone(&instance));
        let leases = std::iter::repeat_with(lease).take(number).collect();
        (instance, leases)
    }

    /// Marks the connection as idle; true if it has to close.
    fn idles(lease: &Lease) -> bool {
        lease.poll_ended(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_longest_idle_connection_makes_room_and_a_busy_one_does_not() {
        let (instance, leases) = leases(4);
        for index in [2, 0, 3, 1] {
            assert!(!idles(&leases[index]));
        }
        // It is idle again, but became so later than the others.
        leases[2].set_busy();
        assert!(!idles(&leases[2]));
        leases[3].set_busy();
        for index in [0, 1, 2] {
            assert!(instance.idle.close_longest());
            assert!(leases[index].has_ended(), "{index}");
        }
        assert!(!instance.idle.close_longest());
        assert!(!leases[3].has_ended());
    }

    #[test]
    fn one_place_is_made_for_each_that_waits_now_or_when_there_is_one() {
        let (instance, leases) = leases(3);
        assert!(!idles(&leases[0]));
        let first = instance.idle.make_room();
        assert!(leases[0].has_ended());
        let second = instance.idle.make_room();
        assert!(idles(&leases[1]), "nothing was idle when the second began to wait");
        assert!(!idles(&leases[2]));
        drop((first, second));
        let _third = instance.idle.make_room();
        assert!(leases[2].has_ended());
    }

    #[test]
    fn a_place_that_is_not_wanted_any_more_costs_no_connection() {
        let (instance, leases) = leases(1);
        drop(instance.idle.make_room());
        assert!(!idles(&leases[0]));
    }

    #[test]
    fn a_connection_that_gets_a_request_at_the_last_moment_stays_and_another_is_closed() {
        let (instance, leases) = leases(2);
        assert!(!leases.iter().any(idles));
        let _wanted = instance.idle.make_room();
        assert!(leases[0].has_ended());
        leases[0].set_busy();
        assert!(!leases[0].has_ended());
        assert!(leases[1].has_ended());
    }

    #[test]
    fn a_connection_that_has_closed_is_counted_and_forgotten() {
        let (instance, mut leases) = leases(2);
        assert!(!leases.iter().any(idles));
        assert!(instance.idle.close_longest());
        leases.clear();
        assert_eq!(instance.idle.closed(), 1);
        assert!(instance.idle.table().open.is_empty());
        assert!(!instance.idle.close_longest());
    }
}
