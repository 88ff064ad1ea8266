//! The way back into a room: what a member has missed, or that it cannot be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::history::{Position, random};
use super::membership::Membership;
use super::room::Room;
use crate::changes::Changes;
use crate::connection::{PreparedMessage, Sender};

/// Where a member of a room with a [`History`](crate::rooms::History) begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// With what is broadcast from now on.
    Now,
    /// With at most so many of the latest messages, and what comes after them.
    Latest(usize),
    /// With the message behind this position, and all after it.
    After(Position),
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        Self::After(position)
    }
}

/// Who brings no position begins now.
impl From<Option<Position>> for Start {
    fn from(position: Option<Position>) -> Self {
        position.map_or(Self::Now, Self::After)
    }
}

/// What has become of the position that a member has brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "who resumes has to handle each")]
pub enum Recovery {
    /// It brought none.
    Fresh,
    /// All that it missed is sent to it, in order, before anything newer: this number of messages.
    Complete(usize),
    /// Something that it missed is not there any more, and nothing of it is sent: it has to load what it shows anew.
    Lost,
}

/// Whether a member has been handed every message of its room.
#[derive(Debug, Default)]
pub(super) struct Step {
    is_lost: AtomicBool,
    changes: Changes,
}

impl Step {
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }

    /// Notes a loss; true for the first. Call [`tell`](Self::tell) then, without a lock.
    pub(super) fn lose(&self) -> bool {
        !self.is_lost.swap(true, Ordering::SeqCst)
    }

    pub(super) fn tell(&self) {
        self.changes.tell();
    }

    pub(super) async fn lost(&self) {
        self.changes.until(|| self.is_lost().then_some(())).await;
    }
}

impl<U, S> Room<U, S> {
    /// The place behind the latest message; `None` if the room has no [history](crate::rooms::RoomOptions::history).
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position()
    }

    /// Adds a connection, and sends it what it has missed, in one step.
    ///
    /// `from` is the [`Position`] that the client has brought, or `None`, or a [`Start`]. Either all messages behind the
    /// position are sent to it, in order and each once, and then what comes; or none of them, and the answer is
    /// [`Recovery::Lost`]: because the room has kept less, has begun anew, or has no history. Positions of other rooms, and
    /// made-up ones, are lost, too. A replay does not count as slow: the member may be behind by that much more.
    ///
    /// A position that [`Membership::position`] gave to a member whose connection still seems open, as after the cut of a
    /// network, closes that connection with [4409](crate::rooms::History::RESUMED_ELSEWHERE): the client is here now.
    ///
    /// `ws`, `user` and the membership are those of [`join_with`](Self::join_with).
    ///
    /// ```
    /// use tidewire::rooms::{Position, Recovery};
    /// use tidewire::{HandlerResult, Hub, Reject, RequestContext, WebSocketOptions};
    ///
    /// /// `/news?from=POSITION`
    /// async fn news(mut ctx: RequestContext<Hub>) -> HandlerResult {
    ///     #[derive(serde::Deserialize)]
    ///     struct Asked {
    ///         from: Option<String>,
    ///     }
    ///     let Asked { from } = ctx.query()?;
    ///     let from = from.map(|text| text.parse::<Position>()).transpose();
    ///     let from = from.map_err(|error| Reject::status(400, error.to_string()))?;
    ///     let room = ctx.state().room("news");
    ///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    ///     let (member, recovery) = room.join_from(&ws, (), from);
    ///     if recovery == Recovery::Lost {
    ///         member.send("reload");
    ///     }
    ///     while let Some(message) = ws.recv().await? {
    ///         room.broadcast(message);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Who was left out
    ///
    /// [`broadcast_except`](Self::broadcast_except) leaves out a connection, not a client: who comes back with a position
    /// before such a message gets it. Messages of [`send_to`](Self::send_to) are to one member, have no offset, and are not
    /// kept.
    pub fn join_from(
        &self,
        ws: impl Into<Sender>,
        user: U,
        from: impl Into<Start>,
    ) -> (Membership<U, S>, Recovery) {
        let (sender, user): (Sender, _) = (ws.into(), Arc::new(user));
        let start = from.into();
        loop {
            let entered = self.0.enter_from(&sender, &user, (start, random()), None);
            // Without a greeting nothing can have moved.
            if let Ok((entered, recovery)) = entered {
                let room = Arc::clone(&self.0);
                return (Membership::new(room, sender.id(), entered, user), recovery);
            }
        }
    }

    /// Adds a connection as [`join_from`](Self::join_from) does, and first of all sends it what `greet` makes of the outcome.
    ///
    /// The position is that behind all that is replayed, with the owner: the client has it once it has received as many
    /// messages as the [`Recovery`] says; `None` if the room has no history. If a broadcast comes while `greet` runs, it is
    /// called again.
    ///
    /// ```
    /// # use tidewire::{Room, WebSocket};
    /// # use tidewire::rooms::{Position, Recovery};
    /// # fn come(room: &Room, ws: &WebSocket, from: Option<Position>) {
    /// let (_member, _recovery) = room.join_from_with(ws, (), from, |recovery, position| {
    ///     let position = position.map(|it| it.to_string()).unwrap_or_default();
    ///     format!(r#"{{"position":"{position}","is_lost":{}}}"#, recovery == Recovery::Lost)
    /// });
    /// # }
    /// ```
    pub fn join_from_with<M: Into<PreparedMessage>>(
        &self,
        ws: impl Into<Sender>,
        user: U,
        from: impl Into<Start>,
        mut greet: impl FnMut(Recovery, Option<Position>) -> M,
    ) -> (Membership<U, S>, Recovery) {
        let (sender, user): (Sender, _) = (ws.into(), Arc::new(user));
        let (start, token) = (from.into(), random());
        loop {
            let (recovery, top) = self.0.outlook(start);
            let position = top.map(|position| Position { member: token, ..position });
            let message = greet(recovery, position).into();
            let greeting = Some((recovery, top, &message));
            let entered = self.0.enter_from(&sender, &user, (start, token), greeting);
            if let Ok((entered, recovery)) = entered {
                let room = Arc::clone(&self.0);
                return (Membership::new(room, sender.id(), entered, user), recovery);
            }
        }
    }

    /// Forgets the message before `position`, which is that of its [`BroadcastReport`](crate::rooms::BroadcastReport): it is
    /// not replayed any more. Returns false if it is not kept. Members who have it keep it.
    ///
    /// It is no gap: who resumes before it is sent all others.
    #[expect(
        clippy::must_use_candidate,
        reason = "who forgets a message may not care whether it was kept"
    )]
    pub fn forget(&self, position: Position) -> bool {
        self.0.forget(position)
    }
}
