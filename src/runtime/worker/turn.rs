//! Turns: which thread owns a worker, and whether it is inside a task.

use super::primitives::atomic::{AtomicU64, Ordering};

/// The turn of the present owner.
#[derive(Debug)]
pub(super) struct Turns(AtomicU64);

/// How many times the worker has changed hands (the upper half), and a count that is odd while the owner is inside a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Turn(u64);

/// Another thread is the owner of the worker, since it was taken away in this turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Replaced(pub(super) Turn);

impl Turns {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The turn of the owner, for a later [`take_over`](Self::take_over).
    pub(super) fn now(&self) -> Turn {
        Turn(self.0.load(Ordering::Acquire))
    }

    /// The owner goes into a task, or out of it. The supervisor takes away what it has seen inside only, so that this
    /// fails on the way out alone.
    pub(super) fn step(&self, turn: &mut Turn) -> Result<(), Replaced> {
        let (before, next) = (*turn, turn.next());
        let changed =
            self.0.compare_exchange(before.0, next.0, Ordering::AcqRel, Ordering::Acquire);
        *turn = next;
        changed.map(drop).map_err(|_| Replaced(before))
    }

    /// Takes the worker away from an owner that is still inside the task of `seen`. The caller gets the turn with which
    /// another thread runs it.
    pub(super) fn take_over(&self, seen: Turn) -> Option<Turn> {
        let next = seen.of_next_owner();
        let exchange =
            || self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire);
        (seen.is_inside() && exchange().is_ok()).then_some(next)
    }
}

impl Turn {
    /// Whether the owner is inside a task.
    pub(super) fn is_inside(self) -> bool {
        self.0 & 1 == 1
    }

    fn next(self) -> Self {
        let count = (self.0 & u64::from(u32::MAX)).wrapping_add(1) & u64::from(u32::MAX);
        Self((self.0 & !u64::from(u32::MAX)) | count)
    }

    fn of_next_owner(self) -> Self {
        Self((self.0 & !u64::from(u32::MAX)).wrapping_add(1 << 32))
    }
}
