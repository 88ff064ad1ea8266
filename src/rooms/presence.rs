//! Who comes and goes, as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use super::tail::{Read, Reader};
use crate::connection::ConnectionId;

/// Events kept for a slow reader.
pub(super) const KEPT: usize = 256;

/// Somebody came or went.
#[derive(Debug)]
#[non_exhaustive]
pub enum Presence<U = ()> {
    /// The connection has joined the room.
    Joined(ConnectionId, Arc<U>),
    /// The connection has left the room, in whichever way.
    Left(ConnectionId, Arc<U>),
    /// The reader was too slow, and has missed this number of events, which come before the next one.
    /// [`Room::watch`](crate::Room::watch) returns the members as they are now, and the events from there on.
    Lagged(u64),
}

impl<U> Clone for Presence<U> {
    fn clone(&self) -> Self {
        match self {
            Self::Joined(id, user) => Self::Joined(*id, Arc::clone(user)),
            Self::Left(id, user) => Self::Left(*id, Arc::clone(user)),
            Self::Lagged(missed) => Self::Lagged(*missed),
        }
    }
}

/// Comings and goings of a room, as [`Room::watch`](crate::Room::watch) and
/// [`Room::events`](crate::Room::events) return them.
///
/// The latest 256 events are kept for a slow reader. [`Presence::Lagged`] tells the number of those that it
/// has missed. The stream ends with the room, which it does not keep alive.
///
/// # Cancel safety
///
/// Safe: an event that was not returned is returned next.
pub struct PresenceEvents<U = ()>(Reader<Presence<U>>);

impl<U> PresenceEvents<U> {
    pub(super) fn new(reader: Reader<Presence<U>>) -> Self {
        Self(reader)
    }
}

impl<U> Stream for PresenceEvents<U> {
    type Item = Presence<U>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_read(cx).map(|read| match read? {
            Read::Next(event) => Some(event),
            Read::Missed(missed) => Some(Presence::Lagged(missed)),
        })
    }
}

impl<U> fmt::Debug for PresenceEvents<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceEvents").finish_non_exhaustive()
    }
}
