//! The handler's buffer: what a handler sends while the connection's task polls it.
//!
//! The task writes when the handler parks. Until then no other thread has to see the frames, so they stay in a
//! buffer of the thread and a send takes no lock: 507 → 302 ns per message of 16 B with 32 in flight. A lock of
//! the connection by the same thread first moves the frames into the outbox, so that they precede, say, a close
//! frame.
//!
//! A poll of the handler also has a share of deliveries to members of rooms: one message may be work for
//! thousands of connections, and the other tasks of the thread wait meanwhile.

use std::cell::{Cell, RefCell};
use std::task::Context;

use super::state::Connection;
use super::write::Outbox;
use crate::proto::{Frame, Role};

/// The buffer of the thread, and whose it is during one poll of a handler.
#[derive(Debug)]
pub(super) struct HandlerBuffer {
    /// The connection of the handler, by the address it has as long as its task runs.
    id: usize,
    frames: Outbox,
    /// Bytes that it may hold before the lock has to be taken.
    room: usize,
    /// The rest of its share, when another turn interrupted it.
    share: DeliveryShare,
}

impl HandlerBuffer {
    const NO_ONE: usize = 0;

    const fn empty() -> Self {
        let frames = Outbox::new(Role::Server);
        Self { id: Self::NO_ONE, frames, room: 0, share: DeliveryShare::WHOLE }
    }
}

/// The deliveries to members of rooms that are left before other tasks go on. Each KiB of a message counts
/// as one more.
///
/// 160 Ki of them take some 10 ms, and are 32 messages for 5 000 members. All of such a burst is written at once:
/// with a fifth of this share, a delivery cost 3 860 instead of 1 230 ns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryShare(usize);

impl DeliveryShare {
    pub(crate) const WHOLE: Self = Self(160 << 10);

    /// Takes what a message of so many bytes costs.
    #[cfg_attr(not(feature = "rooms"), expect(dead_code, reason = "only rooms hand anything out"))]
    pub(crate) fn take(&mut self, deliveries: usize, len: usize) {
        self.0 = self.0.saturating_sub(deliveries.saturating_mul(1 + len / 1024));
    }

    pub(crate) fn is_spent(self) -> bool {
        self.0 == 0
    }
}

thread_local! {
    // In place: it is entered and left more often than anything else is done.
    static TURN: RefCell<HandlerBuffer> = const { RefCell::new(HandlerBuffer::empty()) };
    // Beside it: each call of `recv` reads it.
    static SHARE: Cell<DeliveryShare> = const { Cell::new(DeliveryShare::WHOLE) };
}

/// Begins the turn of a connection; the one returned, which it interrupts, goes to [`end`].
pub(super) fn begin(id: usize, role: Role, room: usize) -> Option<Box<HandlerBuffer>> {
    with(|buffer| {
        // A handler that blocks on another one, say in a test: the outer buffer is put aside.
        let is_interrupted = buffer.id != HandlerBuffer::NO_ONE;
        buffer.share = SHARE.replace(DeliveryShare::WHOLE);
        let interrupted =
            is_interrupted.then(|| Box::new(std::mem::replace(buffer, HandlerBuffer::empty())));
        buffer.id = id;
        buffer.frames.set_role(role);
        buffer.room = room;
        interrupted
    })?
}

/// Ends the current turn, whose frames have been taken.
pub(super) fn end(interrupted: Option<Box<HandlerBuffer>>) {
    let ended = with(|buffer| match interrupted {
        None => {
            buffer.id = HandlerBuffer::NO_ONE;
            SHARE.set(DeliveryShare::WHOLE);
            None
        }
        Some(interrupted) => {
            SHARE.set(interrupted.share);
            Some(std::mem::replace(buffer, *interrupted))
        }
    });
    // Not while it is borrowed: a payload in it may be the application's.
    drop(ended);
}

/// A message of so many bytes was handed to so many members.
#[cfg(feature = "rooms")]
pub(crate) fn charge_turn(deliveries: usize, len: usize) {
    let mut share = SHARE.get();
    share.take(deliveries, len);
    SHARE.set(share);
}

/// Whether the share of this turn is used up. A call of `recv` then lets other tasks go on.
#[inline]
pub(super) fn is_spent() -> bool {
    SHARE.get().is_spent()
}

/// Lets other tasks go on; the caller returns pending.
#[cold]
pub(super) fn yield_to_others(cx: &Context<'_>) {
    // A caller that is polled again at once, or outside of any turn, has a new share.
    SHARE.set(DeliveryShare::WHOLE);
    cx.waker().wake_by_ref();
}

/// Keeps a copy of the frame; false if the lock has to be taken instead.
#[inline]
pub(super) fn push(id: usize, frame: &Frame) -> bool {
    let push = |buffer: &mut HandlerBuffer| {
        // The room was set when the lock was held last: the handler cannot exceed `send_buffer_size` by it.
        let may_push = buffer.id == id && buffer.frames.len() < buffer.room;
        may_push && buffer.frames.push_copy(frame)
    };
    with(push).unwrap_or(false)
}

/// Moves the frames into the connection itself; true if its handler is polled by this thread.
pub(super) fn drain(id: usize, connection: &mut Connection) -> bool {
    let drain = |buffer: &mut HandlerBuffer| {
        if !buffer.frames.is_empty() {
            connection.take_handler_buffer(&mut buffer.frames);
        }
    };
    with_that_of(id, drain).is_some()
}

/// Sets how many bytes may be kept.
pub(super) fn set_room(id: usize, room: usize) {
    with_that_of(id, |buffer| buffer.room = room);
}

fn with_that_of<R>(id: usize, f: impl FnOnce(&mut HandlerBuffer) -> R) -> Option<R> {
    with(|buffer| (buffer.id == id).then(|| f(buffer)))?
}

/// `None` on a thread that ends, and drops what it has: it has no turns any more.
#[inline]
fn with<R>(f: impl FnOnce(&mut HandlerBuffer) -> R) -> Option<R> {
    TURN.try_with(|buffer| f(&mut buffer.borrow_mut())).ok()
}
