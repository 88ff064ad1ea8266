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

use super::state::Core;
use super::write::Outbox;
use crate::proto::{Frame, Role};

/// One poll of a handler.
#[derive(Debug)]
pub(super) struct Turn {
    /// The connection of the handler, by the address it has as long as its task runs.
    connection: usize,
    staged: Outbox,
    /// Bytes that may be staged before the lock has to be taken.
    room: usize,
    /// What was left of its share when another turn interrupted it.
    share: Share,
}

impl Turn {
    const NOBODY: usize = 0;

    const fn nobody() -> Self {
        let staged = Outbox::new(Role::Server);
        Self { connection: Self::NOBODY, staged, room: 0, share: Share::WHOLE }
    }
}

/// The deliveries to members of rooms that are left before other tasks go on. Each KiB of a message counts
/// as one more.
///
/// 32 Ki of them take some 2 ms, and are 32 messages for 1 000 members: a burst of so many is still
/// written at once, which is a twentieth of the work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(usize);

impl Share {
    pub(crate) const WHOLE: Self = Self(32 << 10);

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
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::nobody()) };
    // Beside it: each call of `recv` reads it.
    static SHARE: Cell<Share> = const { Cell::new(Share::WHOLE) };
}

/// Begins the turn of a connection; the one returned, which it interrupts, goes to [`end`].
pub(super) fn begin(connection: usize, role: Role, room: usize) -> Option<Box<Turn>> {
    with(|turn| {
        let is_interrupted = turn.connection != Turn::NOBODY;
        turn.share = SHARE.replace(Share::WHOLE);
        let interrupted = is_interrupted.then(|| Box::new(std::mem::replace(turn, Turn::nobody())));
        turn.connection = connection;
        turn.staged.set_role(role);
        turn.room = room;
        interrupted
    })?
}

/// Ends the current turn, whose frames have been taken.
pub(super) fn end(interrupted: Option<Box<Turn>>) {
    let ended = with(|turn| match interrupted {
        None => {
            turn.connection = Turn::NOBODY;
            SHARE.set(Share::WHOLE);
            None
        }
        Some(interrupted) => {
            SHARE.set(interrupted.share);
            Some(std::mem::replace(turn, *interrupted))
        }
    });
    // Not while it is borrowed: a payload that was staged may be the application's.
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
    SHARE.set(Share::WHOLE);
    cx.waker().wake_by_ref();
}

/// Stages a copy of the frame; false if the lock has to be taken instead.
#[inline]
pub(super) fn stage(connection: usize, frame: &Frame) -> bool {
    let stage = |turn: &mut Turn| {
        let may_stage = turn.connection == connection && turn.staged.len() < turn.room;
        may_stage && turn.staged.push_copy(frame)
    };
    with(stage).unwrap_or(false)
}

/// Moves what is staged into the connection itself; true if this is its turn.
pub(super) fn unstage(connection: usize, core: &mut Core) -> bool {
    let unstage = |turn: &mut Turn| {
        if !turn.staged.is_empty() {
            core.unstage(&mut turn.staged);
        }
    };
    with_that_of(connection, unstage).is_some()
}

/// Sets how many bytes may be staged.
pub(super) fn set_room(connection: usize, room: usize) {
    with_that_of(connection, |turn| turn.room = room);
}

fn with_that_of<R>(connection: usize, f: impl FnOnce(&mut Turn) -> R) -> Option<R> {
    with(|turn| (turn.connection == connection).then(|| f(turn)))?
}

/// `None` on a thread that ends, and drops what it has: it has no turns any more.
#[inline]
fn with<R>(f: impl FnOnce(&mut Turn) -> R) -> Option<R> {
    TURN.try_with(|turn| f(&mut turn.borrow_mut())).ok()
}
