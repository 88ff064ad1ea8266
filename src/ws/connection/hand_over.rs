//! A connection that is handed over to another implementation of WebSocket, or could not be.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use super::WebSocket;
use super::batch::Batch;
use crate::stream::Stream;
use crate::ws::proto::{Limits, Role};

/// Why a connection cannot go on in another implementation of WebSocket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HandOverError {
    /// It is closed, or the closing handshake has begun.
    Closed,
    /// Its messages are compressed.
    Deflate,
    /// A message is sent in frames, and its last one has not gone.
    SendingMessage,
    /// The first frames of a message have been received, and the last one has not.
    ReceivingMessage,
    /// Something has passed that is no WebSocket frame.
    Unreadable,
    /// It was given a heartbeat, a rate limit or a time to end, which would be without effect. The heartbeat that
    /// a server has without being asked is none of them: it ends.
    Watched,
}

impl fmt::Display for HandOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closed or closing",
            Self::Deflate => "messages are compressed",
            Self::SendingMessage => "a message is sent in part",
            Self::ReceivingMessage => "a message is received in part",
            Self::Unreadable => "bytes have passed that are no WebSocket frames",
            Self::Watched => "a heartbeat, a rate limit or a time to end would be lost",
        })
    }
}

impl Error for HandOverError {}

/// What the next implementation goes on with.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub(crate) stream: Stream,
    /// Received and not asked for, as on the wire: it comes before all that is in the stream.
    pub(crate) unread: Vec<u8>,
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
}

impl WebSocket {
    /// Waits until all that was sent is written, and takes the stream out of the connection, which
    /// is closed then. If that cannot be, nothing changes.
    pub(crate) fn poll_hand_over(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<HandedOver, HandOverError>> {
        // Whether the message of the `Sink` was sent or not, the check below tells what follows.
        let _ = ready!(self.poll_begun(cx));
        let Self { shared, batch, feed, .. } = self;
        let listener = &mut feed.get_or_insert_default().listener;
        let Batch { run, inbox, .. } = &mut **batch;
        shared.poll_wait(cx, listener, |core| {
            if let Err(error) = core.check_hand_over(run, inbox) {
                return Some(Err(error));
            }
            // During a turn of the handler, what that has sent is not here yet.
            if core.mark().is_none() || !core.write_all(&mut shared.io_context()) {
                return None;
            }
            let (role, limits) = (core.role(), core.limits());
            let handed_over = core.hand_over(run, inbox).map(|(stream, unread)| HandedOver {
                stream,
                unread,
                role,
                limits,
                peer_addr: shared.peer_addr(),
                subprotocol: shared.subprotocol().map(Box::from),
            });
            Some(handed_over.ok_or(HandOverError::Closed))
        })
    }
}
