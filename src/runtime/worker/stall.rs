//! The supervisor: a worker whose task does not return is continued by another thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::label::Label;
use super::pass::Worker;
use super::primitives::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use super::primitives::{Condition, Mutex};
use super::run_delay::RunDelay;
use super::turn::Turn;
use crate::escaped::Escaped;
use crate::records::record;

/// The time between two looks of the supervisor.
const LOOK: Duration = Duration::from_millis(10);

/// Looks in a row that find a worker inside the same task, after the first, before another thread continues it.
const LOOKS: u32 = 2;

/// The length of a stall from which on it is told.
const TOLD: Duration = Duration::from_millis(100);

/// Looks in a row that find all workers parked, before the supervisor sleeps.
const IDLE_LOOKS: u32 = 10;

/// The stalls of one worker: tasks that did not return, so that another thread went on.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// Since the server was bound.
    count: AtomicU64,
    /// Those that have not ended.
    present: Mutex<Vec<Stall>>,
}

#[derive(Clone, Debug)]
struct Stall {
    turn: Turn,
    label: Option<Label>,
    since: Instant,
    /// How long its thread has waited for a core, and what that was when the stall began.
    delay: RunDelay,
    delay_before: Duration,
    is_told: bool,
}

impl Stalls {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there are any that have not ended.
    #[cfg(feature = "testing")]
    pub(super) fn are_present(&self) -> bool {
        !self.present.lock().is_empty()
    }

    /// A worker is taken away, by `take`, from the owner that is inside the task of `turn`.
    pub(super) fn begin(
        &self,
        turn: Turn,
        label: Option<Label>,
        delay: RunDelay,
        take: impl FnOnce() -> Option<Turn>,
    ) -> Option<Turn> {
        let delay_before = delay.get();
        // Under the lock, so that the owner, if it returns at once, finds the stall that it has to end.
        let mut present = self.present.lock();
        let next = take()?;
        self.count.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now().checked_sub(LOOK * LOOKS).unwrap_or_else(Instant::now);
        present.push(Stall { turn, label, since, delay, delay_before, is_told: false });
        Some(next)
    }

    /// The task has returned.
    pub(super) fn end(&self, turn: Turn) {
        let mut present = self.present.lock();
        let ended = present.iter().position(|stall| stall.turn == turn);
        let ended = ended.map(|index| present.swap_remove(index));
        drop(present);
        // From the supervisor's first look on.
        if let Some(stall) = ended.filter(|stall| !stall.is_told) {
            stall.tell();
        }
    }

    /// Tells of the stalls that last. Returns whether there are any.
    pub(super) fn look(&self) -> bool {
        let mut present = self.present.lock();
        let are_any = !present.is_empty();
        let lasting = present.iter_mut().find(|stall| !stall.is_told && stall.lasts());
        let lasting = lasting.map(|stall| {
            stall.is_told = true;
            stall.clone()
        });
        drop(present);
        if let Some(stall) = lasting {
            stall.tell();
        }
        are_any
    }
}

impl Stall {
    fn lasts(&self) -> bool {
        // The operating system is asked only then.
        self.since.elapsed() >= TOLD && self.elapsed() >= TOLD
    }

    /// How long the task has held its thread.
    fn elapsed(&self) -> Duration {
        let waited = self.delay.get().saturating_sub(self.delay_before);
        self.since.elapsed().saturating_sub(waited)
    }

    /// Tells of a stall that is long enough. The logger is foreign code.
    fn tell(&self) {
        if !self.lasts() {
            return;
        }
        let elapsed = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.label.map(Escaped) {
            Some(label) => record!(
                warn,
                "a handler has blocked its thread; run such code with `tidewire::blocking`",
                elapsed_ms = elapsed,
                route = label
            ),
            None => record!(warn, "a task has blocked its thread", elapsed_ms = elapsed),
        }
    }
}

/// Where the supervisor sleeps while all workers are parked.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_awake: AtomicBool,
    is_over: Mutex<bool>,
    changed: Condition,
}

impl Watch {
    /// A worker is at work: the supervisor has to look at it.
    pub(super) fn begin(&self) {
        // Either the supervisor sees that a worker is at work, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if !self.is_awake.load(Ordering::Relaxed) && !self.is_awake.swap(true, Ordering::AcqRel) {
            // Under the lock, so that the supervisor is not between its look and its sleep.
            drop(self.is_over.lock());
            self.changed.notify_all();
        }
    }

    /// All workers have ended.
    pub(super) fn end(&self) {
        *self.is_over.lock() = true;
        self.changed.notify_all();
    }

    /// Looks at the workers until all have ended. `replace` has another thread run a worker.
    pub(super) fn supervise(&self, workers: &[Arc<Worker>], replace: impl Fn(&Arc<Worker>, Turn)) {
        let mut seen: Vec<(Turn, u32)> = workers.iter().map(|worker| (worker.turn(), 0)).collect();
        let mut idle = 0;
        loop {
            let is_over = self.is_over.lock();
            let is_over = self.changed.wait_timeout(is_over, LOOK);
            if *is_over {
                return;
            }
            drop(is_over);
            for (worker, (last, looks)) in workers.iter().zip(&mut seen) {
                let turn = worker.turn();
                *looks = if turn == *last && turn.is_inside() { *looks + 1 } else { 0 };
                *last = turn;
                if *looks >= LOOKS {
                    *looks = 0;
                    replace(worker, turn);
                }
            }
            let are_parked = || workers.iter().all(|worker| worker.is_parked());
            let stalls = workers.iter().filter(|worker| worker.stalls().look()).count();
            idle = if stalls == 0 && are_parked() { idle + 1 } else { 0 };
            if idle > IDLE_LOOKS {
                idle = 0;
                self.sleep(are_parked);
            }
        }
    }

    /// Sleeps until a worker is at work.
    pub(super) fn sleep(&self, are_parked: impl Fn() -> bool) {
        let mut is_over = self.is_over.lock();
        self.is_awake.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !are_parked() {
            self.is_awake.store(true, Ordering::Relaxed);
            return;
        }
        while !*is_over && !self.is_awake.load(Ordering::Acquire) {
            is_over = self.changed.wait(is_over);
        }
    }
}
