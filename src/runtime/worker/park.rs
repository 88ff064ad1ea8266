//! Parking: how the owner of a worker waits, and how other threads learn that they have to wake it.

use super::primitives::atomic::{AtomicBool, Ordering, fence};

/// Whether the owner waits in `poll`, or is about to.
#[derive(Debug)]
pub(super) struct Parking(AtomicBool);

impl Parking {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The owner is about to wait. After this call it looks at all that others may have changed, and then it waits.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
        // Either the thread that changes something sees this, or the look after this call sees the change.
        fence(Ordering::SeqCst);
    }

    /// The owner waits no longer.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the caller has to wake the owner, which shall see what the caller has changed before.
    pub(super) fn must_wake(&self) -> bool {
        // Either the owner sees the change, or this sees that it is parked.
        fence(Ordering::SeqCst);
        // One thread of several is enough.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    pub(super) fn is_parked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
