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

impl Turn {
    const NOBODY: usize = 0;

    const fn nobody() -> Self {
        Self { connection: Self::NOBODY, staged: Outbox::new(Role::Server), room: 0 }
    }
}

thread_local! {
    // In place: it is entered and left more often than anything else is done.
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::nobody()) };
}

/// Begins the turn of a connection; the one returned, which it interrupts, goes to [`end`].
pub(super) fn begin(connection: usize, role: Role, room: usize) -> Option<Box<Turn>> {
    TURN.with_borrow_mut(|turn| {
        let is_interrupted = turn.connection != Turn::NOBODY;
        let interrupted = is_interrupted.then(|| Box::new(std::mem::replace(turn, Turn::nobody())));
        turn.connection = connection;
        turn.staged.set_role(role);
        turn.room = room;
        interrupted
    })
}

/// Ends the current turn, whose frames have been taken.
pub(super) fn end(interrupted: Option<Box<Turn>>) {
    TURN.with_borrow_mut(|turn| match interrupted {
        None => turn.connection = Turn::NOBODY,
        Some(interrupted) => *turn = *interrupted,
    });
}

/// Stages a copy of the frame; false if the lock has to be taken instead.
#[inline]
pub(super) fn stage(connection: usize, frame: &Frame) -> bool {
    TURN.with_borrow_mut(|turn| {
        let may_stage = turn.connection == connection && turn.staged.len() < turn.room;
        may_stage && turn.staged.push_copy(frame)
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
    TURN.with_borrow_mut(|turn| (turn.connection == connection).then(|| f(turn)))
}
