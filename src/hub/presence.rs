//! Who comes and goes, as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use async_broadcast::{InactiveReceiver, Receiver, Sender, TryRecvError, broadcast};
use futures::Stream;

use super::lock;
use crate::ws::ConnectionId;

/// Events kept for one who watches and is slow.
const KEPT: usize = 256;

/// Somebody came or went.
#[derive(Debug)]
#[non_exhaustive]
pub enum Presence<U = ()> {
    /// The connection has joined the room.
    Joined(ConnectionId, Arc<U>),
    /// The connection has left the room, in whichever way.
    Left(ConnectionId, Arc<U>),
}

impl<U> Clone for Presence<U> {
    fn clone(&self) -> Self {
        match self {
            Self::Joined(id, user) => Self::Joined(*id, Arc::clone(user)),
            Self::Left(id, user) => Self::Left(*id, Arc::clone(user)),
        }
    }
}

/// Comings and goings of a room, as [`Room::events`](crate::Room::events) returns them.
///
/// Of a stream that is not read, the latest 256 are kept, and the others are missed. It ends with the
/// room: whoever only watches does not keep it.
///
/// # Cancel safety
///
/// Safe: an event that was not returned is returned next.
pub struct PresenceEvents<U = ()> {
    /// `None` once it is dropped.
    receiver: Option<Receiver<Presence<U>>>,
    /// Gone with the room.
    channel: Weak<Mutex<Option<Channel<U>>>>,
}

impl<U> Stream for PresenceEvents<U> {
    type Item = Presence<U>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.receiver {
            Some(receiver) => Pin::new(receiver).poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

impl<U> Drop for PresenceEvents<U> {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else { return };
        let channel = self.channel.upgrade();
        // Nobody tells anything meanwhile: the receiver, which holds a lock of its own while it is
        // dropped, has no user then.
        let silence = channel.as_deref().map(lock);
        let mut missed = Vec::with_capacity(receiver.len());
        loop {
            match receiver.try_recv() {
                Ok(event) => missed.push(event),
                Err(TryRecvError::Overflowed(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        drop(receiver);
        drop(silence);
        // Without the lock: what users are dropped with is the application's.
        drop(missed);
    }
}

impl<U> fmt::Debug for PresenceEvents<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceEvents").finish_non_exhaustive()
    }
}

/// Those who watch a room, if anybody ever did.
pub(super) struct Watchers<U>(Arc<Mutex<Option<Channel<U>>>>);

type Channel<U> = (Sender<Presence<U>>, InactiveReceiver<Presence<U>>);

impl<U> Default for Watchers<U> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<U> Watchers<U> {
    pub(super) fn watch(&self) -> PresenceEvents<U> {
        let mut channel = lock(&self.0);
        let (_, receiver) = channel.get_or_insert_with(|| {
            let (mut sender, receiver) = broadcast(KEPT);
            sender.set_overflow(true);
            sender.set_await_active(false);
            (sender, receiver.deactivate())
        });
        let receiver = Some(receiver.activate_cloned());
        PresenceEvents { receiver, channel: Arc::downgrade(&self.0) }
    }

    /// Tells those who watch, and returns what nobody will see any more: the event, or one that a
    /// slow watcher has missed. To be dropped where no lock is held, for what it holds is the
    /// application's.
    #[must_use]
    pub(super) fn tell(&self, event: Presence<U>) -> Option<Presence<U>> {
        match &*lock(&self.0) {
            Some((sender, _)) => {
                sender.try_broadcast(event).unwrap_or_else(|error| Some(error.into_inner()))
            }
            None => Some(event),
        }
    }
}
