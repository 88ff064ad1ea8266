//! A stream of the members of a room that come, change and go.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::FusedStream;

use super::tail::{Read, Reader};
use crate::connection::ConnectionId;

/// The number of events kept for a slow reader.
pub(super) const KEPT: usize = 256;

/// A change of the members of a room.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "who watches a room matches all of them")]
pub enum PresenceEvent<U = ()> {
    /// The connection has joined the room.
    Joined(ConnectionId, Arc<U>),
    /// The data of a member has changed, to this: [`Membership::set`](crate::rooms::Membership::set).
    Updated(ConnectionId, Arc<U>),
    /// The connection has left the room, for any reason.
    Left(ConnectionId, Arc<U>),
    /// The reader was too slow, and has missed this number of events before the next one.
    /// [`Room::watch`](crate::Room::watch) returns the current members, and the events from then on.
    Lagged(u64),
}

impl<U> Clone for PresenceEvent<U> {
    fn clone(&self) -> Self {
        match self {
            Self::Joined(id, user) => Self::Joined(*id, Arc::clone(user)),
            Self::Updated(id, user) => Self::Updated(*id, Arc::clone(user)),
            Self::Left(id, user) => Self::Left(*id, Arc::clone(user)),
            Self::Lagged(missed) => Self::Lagged(*missed),
        }
    }
}

/// A stream of the members that join, change and leave a room, returned by [`Room::watch`](crate::Room::watch)
/// and [`Room::events`](crate::Room::events).
///
/// The latest 256 events are kept for a slow reader. [`PresenceEvent::Lagged`] has the number of events that it
/// has missed. The stream ends with the room, and does not keep the room alive.
///
/// # Cancel safety
///
/// Safe: an event that was not returned is returned next.
pub struct PresenceEvents<U = ()> {
    reader: Reader<PresenceEvent<U>>,
    is_over: bool,
}

impl<U> PresenceEvents<U> {
    pub(super) fn new(reader: Reader<PresenceEvent<U>>) -> Self {
        Self { reader, is_over: false }
    }
}

impl<U> Stream for PresenceEvents<U> {
    type Item = PresenceEvent<U>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let read = ready!(self.reader.poll_read(cx));
        self.is_over = read.is_none();
        Poll::Ready(read.map(|read| match read {
            Read::Next(event) => event,
            Read::Missed(missed) => PresenceEvent::Lagged(missed),
        }))
    }
}

impl<U> FusedStream for PresenceEvents<U> {
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl<U> fmt::Debug for PresenceEvents<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceEvents").finish_non_exhaustive()
    }
}
