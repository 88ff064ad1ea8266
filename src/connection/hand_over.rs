//! The hand-over of a connection to async-tungstenite, which goes on with its stream.
//!
//! Frames that were received and not asked for go along, as the bytes that they were on the wire.

use std::fmt;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use super::WebSocket;
use super::inbox::Inbox;
use super::recv::Received;
use super::state::{Connection, as_u64};
use crate::error::Error;
use crate::proto::{Frame, FrameHeader, Limits, OpCode, Role, WireBatch};
use crate::stream::Stream;

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

impl std::error::Error for HandOverError {}

/// The parts with which the next implementation goes on.
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
        let Self { shared, received, sink, .. } = self;
        let listener = &mut sink.get_or_insert_default().listener;
        let Received { run, inbox, .. } = &mut **received;
        shared.poll_wait(cx, listener, |connection| {
            if let Err(error) = connection.check_hand_over(run, inbox) {
                return Some(Err(error));
            }
            // While the handler is polled elsewhere, its latest frames are not here yet.
            if connection.mark().is_none() || !connection.write_all(&mut shared.io_context()) {
                return None;
            }
            let (role, limits) = (connection.role(), connection.limits());
            let handed_over = connection.hand_over(run, inbox).map(|(stream, unread)| HandedOver {
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

impl Connection {
    /// Can another implementation go on here? `run` and `inbox` are what the caller was handed.
    pub(super) fn check_hand_over(
        &self,
        run: &WireBatch,
        inbox: &Inbox,
    ) -> Result<(), HandOverError> {
        if !self.is_open() {
            return Err(HandOverError::Closed);
        }
        if self.deflation.is_some() {
            return Err(HandOverError::Deflate);
        }
        if self.timers.are_asked_for() || self.limiter.is_some() {
            return Err(HandOverError::Watched);
        }
        if self.state.is_sending_fragments() {
            return Err(HandOverError::SendingMessage);
        }
        if self.is_receiving_rest(run, inbox) {
            return Err(HandOverError::ReceivingMessage);
        }
        Ok(())
    }

    /// Whether the bytes that are still to be received begin inside a message.
    fn is_receiving_rest(&self, run: &WireBatch, inbox: &Inbox) -> bool {
        let next = [(run, inbox), (&self.run, &self.inbox)].into_iter().find_map(|(run, inbox)| {
            if run.len() > 0 { Some(OpCode::Binary) } else { inbox.first_data().map(Frame::opcode) }
        });
        let is_rest = |opcode| opcode == OpCode::Continuation;
        next.map_or_else(|| self.decoder.is_inside_rest(), is_rest)
    }

    /// Writes what is queued; true if nothing is left.
    pub(super) fn write_all(&mut self, cx: &mut Context<'_>) -> bool {
        // The answer to the latest ping belongs to what was sent.
        self.write(cx);
        if self.pong.is_some() {
            // It had no room before.
            self.write(cx);
        }
        self.is_all_written() && self.pong.is_none()
    }

    /// Gives the stream away, with the bytes that its next reader begins with: `run` and `inbox`,
    /// and what is behind them here. The connection is closed for everybody else.
    pub(super) fn hand_over(
        &mut self,
        run: &mut WireBatch,
        inbox: &mut Inbox,
    ) -> Option<(Stream, Vec<u8>)> {
        let stream = self.stream.take()?;
        let mut unread = Vec::new();
        // In the order of arrival: what the caller took, what is queued, half a frame, and bytes that were not decoded.
        self.put_back(run, inbox, &mut unread);
        let (mut run, mut inbox) = (std::mem::take(&mut self.run), std::mem::take(&mut self.inbox));
        self.put_back(&mut run, &mut inbox, &mut unread);
        self.decoder.put_back(&mut unread);
        unread.extend_from_slice(&self.unread);
        self.drop_stream(Err(Error::Closed));
        Some((stream, unread))
    }

    fn put_back(&self, run: &mut WireBatch, inbox: &mut Inbox, out: &mut Vec<u8>) {
        while let Some(frame) = run.next().or_else(|| inbox.pop()) {
            // It has had its pong.
            if frame.opcode() != OpCode::Ping || !self.settings.auto_pong {
                encode(&frame, self.role, out);
            }
        }
    }
}

/// Writes a frame that was received by the side `role`. A mask of zeros changes nothing.
fn encode(frame: &Frame, role: Role, out: &mut Vec<u8>) {
    let mask = (role == Role::Server).then_some([0; 4]);
    let (fin, opcode, len) = (frame.fin(), frame.opcode(), as_u64(frame.payload().len()));
    FrameHeader { fin, rsv1: false, opcode, mask, len }.encode(out);
    frame.append_payload_to(out);
}
