//! What a handler sends while the connection's task polls it.
//!
//! The task writes when the handler parks, so until then nobody else needs to see it: it is kept
//! by the thread, and a send takes no lock. Whoever takes the lock from the same thread brings it
//! along first, so that it keeps its place before a close frame.

use std::cell::RefCell;

use super::core::Core;
use super::outbox::Outbox;
use crate::ws::proto::{Frame, Role};

/// One poll of a handler.
#[derive(Debug)]
pub(super) struct Turn {
    /// The connection of the handler, by the address it has as long as its task runs.
    connection: usize,
    staged: Outbox,
    /// Bytes that may be staged before the lock has to be taken.
    room: usize,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Begins the turn of a connection; the one returned, which it interrupts, goes to [`end`].
pub(super) fn begin(connection: usize, role: Role, room: usize) -> Option<Turn> {
    TURN.replace(Some(Turn { connection, staged: Outbox::new(role), room }))
}

/// Ends the current turn.
pub(super) fn end(interrupted: Option<Turn>) {
    TURN.set(interrupted);
}

/// Stages a copy of the frame; false if the lock has to be taken instead.
#[inline]
pub(super) fn stage(connection: usize, frame: &Frame) -> bool {
    TURN.with_borrow_mut(|turn| match turn {
        Some(turn) if turn.connection == connection && turn.staged.len() < turn.room => {
            turn.staged.push_copy(frame)
        }
        _ => false,
    })
}

/// Moves what is staged into the connection itself; true if this is its turn.
pub(super) fn unstage(connection: usize, core: &mut Core) -> bool {
    let unstage = |turn: &mut Turn| {
        if !turn.staged.is_empty() {
            core.unstage(&mut turn.staged);
        }
    };
    with(connection, unstage).is_some()
}

/// Sets how many bytes may be staged.
pub(super) fn set_room(connection: usize, room: usize) {
    with(connection, |turn| turn.room = room);
}

fn with<R>(connection: usize, f: impl FnOnce(&mut Turn) -> R) -> Option<R> {
    TURN.with_borrow_mut(|turn| turn.as_mut().filter(|turn| turn.connection == connection).map(f))
}
