//! The memory that the connections of one server share for messages in progress: [`MessageBudget`]. Each
//! connection has an [`Account`] of it.
//!
//! Unfinished messages, read-ahead and decompression count. [`FREE`] bytes of each connection do not, so short
//! messages touch nothing that is shared; the rest counts in steps, when the connection parks.
//!
//! When the budget is spent, connections that hold more than is free wait in line. A connection that gives bytes
//! back wakes the first in line, and that one wakes the next once it has read, so one task is woken at a time.
//!
//! Progress does not depend on bytes that come back:
//!
//! - One connection at a time has the *pass*, and goes beyond the limit to the end of its message. Without it, all
//!   could hold a part of a message and wait for the rest.
//! - A connection that has waited for [`PATIENCE`] has the largest one closed, and the pass moves on. Without that,
//!   peers that do not finish their messages could keep the others out.
//!
//! Connections that only read ahead come last: no handler waits for them, so they need neither.
//!
//! The table's lock is taken under that of a connection, and nothing under it. Wakers run without both:
//! `Shared::with` settles what an account owes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Waker;
use std::time::Duration;

use crate::foreign::attempt;
use crate::sync::{Mutex, MutexGuard};

/// Bytes that a connection may always hold, and that do not count.
pub(crate) const FREE: usize = 16 << 10;

/// Bytes beyond that count in steps of this size.
const STEP: usize = 16 << 10;

/// How long a connection waits until the largest one is closed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The memory that all connections of a server may hold for messages in progress.
#[derive(Debug)]
pub(crate) struct MessageBudget {
    limit: usize,
    /// The sum of all shares.
    held: AtomicUsize,
    /// Connections in line.
    waiting: AtomicUsize,
    /// The share that may go beyond the limit, by its address; 0 if none may.
    pass: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Connections that have held more than is free, by the address of their share.
    shares: BTreeMap<usize, Arc<Share>>,
    /// Connections in line, by the number of their pause: first those for whose message a handler waits, then
    /// those that read ahead.
    lines: [BTreeMap<u64, Arc<Share>>; 2],
    pauses: u64,
    closed: u64,
}

/// The bytes of one connection.
#[derive(Debug)]
struct Share {
    held: AtomicUsize,
    /// Whether the connection is to be closed. It has no bytes of the budget then.
    is_condemned: AtomicBool,
    /// Wakes the connection's task.
    waker: Waker,
}

/// The figures of a budget.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct BudgetFigures {
    pub(crate) limit: usize,
    pub(crate) held: usize,
    pub(crate) pauses: u64,
    pub(crate) closed: u64,
}

#[cfg_attr(
    not(feature = "accept"),
    expect(dead_code, reason = "who accepts connections has a budget")
)]
impl MessageBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            pass: AtomicUsize::new(0),
            table: Mutex::default(),
        })
    }

    pub(crate) fn figures(&self) -> BudgetFigures {
        let (limit, held) = (self.limit, self.held.load(Relaxed));
        let table = self.table();
        BudgetFigures { limit, held, pauses: table.pauses, closed: table.closed }
    }
}

impl MessageBudget {
    pub(crate) fn is_spent(&self) -> bool {
        self.held.load(SeqCst) >= self.limit
    }

    /// Does what a connection owes the others. Wakers run: the caller holds no lock.
    pub(crate) fn settle(&self, owed: Owed) {
        if owed == Owed::Closing {
            self.close_largest();
        }
        self.wake_next();
    }

    /// Wakes the first in line if there is room. If there is none, the first may get the pass.
    fn wake_next(&self) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let mut table = self.table();
        let is_spent = self.is_spent();
        let [urgent, ahead] = &mut table.lines;
        let first = urgent.first_entry().or_else(|| ahead.first_entry().filter(|_| !is_spent));
        let Some(first) = first.filter(|first| !is_spent || self.hand_pass_to(first.get())) else {
            return;
        };
        let share = first.remove();
        self.tell_waiting(&table);
        drop(table);
        let _ = attempt(move || share.waker.wake_by_ref());
    }

    /// Closes the connection that holds most, unless there is room. What it holds is free from now on, so that
    /// others that lose patience at the same time close no more than necessary.
    fn close_largest(&self) {
        let mut table = self.table();
        let held = |share: &Arc<Share>| share.held.load(Relaxed);
        let largest = table.shares.values().max_by_key(|share| held(share));
        let largest = largest.filter(|share| self.is_spent() && held(share) > 0).cloned();
        let Some(share) = largest else { return };
        table.shares.remove(&share.address());
        table.closed += 1;
        share.is_condemned.store(true, Relaxed);
        self.release(&share);
        if !self.is_spent() {
            // The connection with the pass did not get to the end of its message in time.
            self.pass.store(0, SeqCst);
        }
        drop(table);
        let _ = attempt(move || share.waker.wake_by_ref());
    }

    /// Puts a connection in line, with the number of its pause; false if it may go on after all.
    fn stand_in_line(&self, share: &Arc<Share>, ticket: &mut Option<u64>, is_urgent: bool) -> bool {
        let mut table = self.table();
        if let Some(ticket) = *ticket {
            table.remove(ticket);
        }
        // First this, then the look: bytes that come back from here on are told.
        self.waiting.store(table.waiting() + 1, SeqCst);
        let must_wait = self.is_spent() && !(is_urgent && self.hand_pass_to(share));
        if must_wait {
            table.pauses += u64::from(ticket.is_none());
            // Who was woken and found nothing keeps its place.
            let ticket = *ticket.get_or_insert(table.pauses);
            let [urgent, ahead] = &mut table.lines;
            let line = if is_urgent { urgent } else { ahead };
            line.insert(ticket, Arc::clone(share));
        }
        self.tell_waiting(&table);
        must_wait
    }

    fn leave_line(&self, ticket: u64) {
        let mut table = self.table();
        table.remove(ticket);
        self.tell_waiting(&table);
    }

    fn tell_waiting(&self, table: &Table) {
        self.waiting.store(table.waiting(), SeqCst);
    }

    /// Whether the connection has the pass now, because no other has it.
    fn hand_pass_to(&self, share: &Share) -> bool {
        self.pass.compare_exchange(0, share.address(), SeqCst, SeqCst).is_ok()
    }

    fn has_pass(&self, share: &Share) -> bool {
        self.pass.load(SeqCst) == share.address()
    }

    /// Takes the pass back from a connection; false if that has it not.
    fn take_pass_of(&self, share: &Share) -> bool {
        self.has_pass(share)
            && self.pass.compare_exchange(share.address(), 0, SeqCst, SeqCst).is_ok()
    }

    fn release(&self, share: &Share) {
        self.held.fetch_sub(share.held.swap(0, SeqCst), SeqCst);
    }

    fn open_share(&self, waker: &Waker) -> Arc<Share> {
        let share = Arc::new(Share {
            held: AtomicUsize::new(0),
            is_condemned: AtomicBool::new(false),
            waker: waker.clone(),
        });
        self.table().shares.insert(share.address(), Arc::clone(&share));
        share
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Table {
    fn waiting(&self) -> usize {
        self.lines.iter().map(BTreeMap::len).sum()
    }

    fn remove(&mut self, ticket: u64) {
        for line in &mut self.lines {
            line.remove(&ticket);
        }
    }
}

impl Share {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// What a connection owes the others of its server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owed {
    /// It gave something back, or does not need the room that it was woken for.
    Room,
    /// It has waited for [`PATIENCE`]: the largest connection is to be closed.
    Closing,
}

/// What one connection has of the budget of its server.
#[derive(Debug)]
pub(crate) struct Account {
    /// `None` for a connection without a limit, or whose account is closed.
    budget: Option<Arc<MessageBudget>>,
    /// `None` until the connection holds more than is free.
    share: Option<Arc<Share>>,
    /// The number of its pause, if it waits for others.
    ticket: Option<u64>,
    owed: Option<(Arc<MessageBudget>, Owed)>,
}

impl Account {
    pub(crate) fn new(budget: Option<Arc<MessageBudget>>) -> Self {
        Self { budget, share: None, ticket: None, owed: None }
    }

    /// Puts the connection in line; false if it may go on. `waker` is called when there is room.
    pub(crate) fn wait(&mut self, is_urgent: bool, waker: &Waker) -> bool {
        let Some(budget) = &self.budget else { return false };
        let share = self.share.get_or_insert_with(|| budget.open_share(waker));
        budget.stand_in_line(share, &mut self.ticket, is_urgent)
    }

    /// The connection does not wait any more.
    pub(crate) fn stop_waiting(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        if let Some(budget) = &self.budget {
            budget.leave_line(ticket);
        }
        // The next has its turn once this connection has taken what it needs.
        self.owe(Owed::Room);
    }

    /// Counts what the connection holds.
    pub(crate) fn count(&mut self, held: usize, waker: &Waker) {
        let Some(budget) = &self.budget else { return };
        if held <= FREE && self.share.is_none() {
            return;
        }
        let share = self.share.get_or_insert_with(|| budget.open_share(waker));
        let counted = held.saturating_sub(FREE).div_ceil(STEP).saturating_mul(STEP);
        if counted == share.held.load(Relaxed) || share.is_condemned.load(Relaxed) {
            return;
        }
        // The sum is right also if the connection is condemned meanwhile.
        let before = share.held.swap(counted, SeqCst);
        if counted > before {
            budget.held.fetch_add(counted - before, SeqCst);
        } else {
            budget.held.fetch_sub(before - counted, SeqCst);
            self.owe(Owed::Room);
        }
    }

    /// The connection is not inside a message.
    pub(crate) fn return_pass(&mut self) {
        if let (Some(budget), Some(share)) = (&self.budget, &self.share) {
            if budget.take_pass_of(share) {
                self.owe(Owed::Room);
            }
        }
    }

    /// The connection has waited for [`PATIENCE`].
    pub(crate) fn lose_patience(&mut self) {
        self.owe(Owed::Closing);
    }

    /// The connection is over, or gives way: nothing of it counts any more.
    pub(crate) fn close(&mut self) {
        self.stop_waiting();
        if let Some(share) = self.share.take() {
            if let Some(budget) = &self.budget {
                budget.table().shares.remove(&share.address());
                budget.release(&share);
                budget.take_pass_of(&share);
            }
            self.owe(Owed::Room);
        }
        self.budget = None;
    }

    fn owe(&mut self, owed: Owed) {
        if owed == Owed::Closing {
            self.owed = None;
        }
        if let (None, Some(budget)) = (&self.owed, &self.budget) {
            self.owed = Some((Arc::clone(budget), owed));
        }
    }

    /// What is owed, and the budget that [settles](MessageBudget::settle) it.
    pub(crate) fn take_owed(&mut self) -> Option<(Arc<MessageBudget>, Owed)> {
        self.owed.take()
    }

    pub(crate) fn owes(&self) -> bool {
        self.owed.is_some()
    }

    /// Whether the connection holds more than is free, or has.
    pub(crate) fn has_share(&self) -> bool {
        self.share.is_some()
    }

    /// Whether the connection has a limit.
    pub(crate) fn is_open(&self) -> bool {
        self.budget.is_some()
    }

    /// Whether the connection has to keep to what is free.
    pub(crate) fn is_bounded(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_spent())
    }

    pub(crate) fn has_pass(&self) -> bool {
        let share = self.budget.as_ref().zip(self.share.as_ref());
        share.is_some_and(|(budget, share)| budget.has_pass(share))
    }

    /// Whether the connection is to be closed, because it holds most.
    pub(crate) fn is_condemned(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.is_condemned.load(Relaxed))
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.ticket.is_some()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // A task that ends closes the account before. Else those in line wait for their patience.
        self.close();
    }
}

#[cfg(test)]
mod tests;
