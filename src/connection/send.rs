//! Sending: a message becomes a frame and gets into the outbox, or waits until that has room.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::backlog::SendTicket;
use super::compression::{Borrowed, Deflating, Prepared};
use super::shared::{Listener, Shared};
use super::state::Connection;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::proto::{Frame, FrameError, OpCode};

impl Shared {
    /// Queues a message: now if there is room, else once there is.
    #[inline]
    pub(crate) fn send(&self, message: Message, waits_for_frames: bool) -> SendFuture<'_> {
        let frame = message.into_frame();
        // The fast way: no lock, no future. It halves the cost of a short message.
        if self.deflation().is_none() && self.buffer(&frame) {
            return SendFuture { shared: self, state: None };
        }
        self.send_slow(frame, Kind::Message { waits_for_frames })
    }

    #[cold]
    fn send_slow(&self, frame: Frame, kind: Kind) -> SendFuture<'_> {
        SendFuture { shared: self, state: self.begin_send(frame, kind).unless_queued() }
    }

    fn begin_send(&self, mut frame: Frame, kind: Kind) -> SendState {
        if let Some(deflation) = self.deflation() {
            match deflation.prepare(frame) {
                Prepared::Now(prepared) => frame = prepared,
                Prepared::Long(deflating) => return SendState::Deflating(deflating, kind),
            }
            // Without takeover, a compressed frame may go the fast way, too.
            if self.buffer(&frame) {
                return SendState::Queued;
            }
        }
        self.queue(Some(frame), kind)
    }

    /// Begins to send a message of the `Sink`.
    pub(super) fn start_send(&self, message: Message) -> Option<Box<SendState>> {
        let kind = Kind::Message { waits_for_frames: false };
        self.begin_send(message.into_frame(), kind).unless_queued()
    }

    /// Queues one frame: now if there is room, else once there is.
    pub(crate) fn send_frame(&self, frame: Frame) -> SendFuture<'_> {
        SendFuture { shared: self, state: self.start_send_frame(frame) }
    }

    /// Begins to send a frame behind a message of the `Sink`.
    pub(super) fn start_send_frame(&self, frame: Frame) -> Option<Box<SendState>> {
        self.queue(Some(frame), Kind::Frame).unless_queued()
    }

    fn queue(&self, mut frame: Option<Frame>, kind: Kind) -> SendState {
        let mut ticket = None;
        let result = self.with(|connection, _| {
            let state = self.try_queue(connection, &mut frame, kind, &mut ticket)?;
            // Room alone decides at the call. A turn that is used up has the sender yield afterwards.
            let is_spent = matches!(state, SendState::Queued) && connection.budget == 0;
            Some(if is_spent { SendState::Yielding } else { state })
        });
        result.unwrap_or_else(|| {
            SendState::Waiting(WaitingSend { ticket, ..WaitingSend::new(frame, kind) })
        })
    }

    /// Queues the frame if there is room, and takes it.
    fn try_queue(
        &self,
        connection: &mut Connection,
        frame: &mut Option<Frame>,
        kind: Kind,
        ticket: &mut Option<SendTicket>,
    ) -> Option<SendState> {
        match self
            .has_room(connection, ticket)
            .and_then(|has_room| Ok(has_room && self.queue_into(connection, frame, kind)?))
        {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => return Some(SendState::Failed(error)),
        }
        if connection.has_task() {
            return Some(SendState::Queued);
        }
        // Without a task, the caller writes.
        Some(SendState::Writing(connection.outbox.queued(), None))
    }

    /// Queues the frame; false if it has to wait for those of another message.
    fn queue_into(
        &self,
        connection: &mut Connection,
        frame: &mut Option<Frame>,
        kind: Kind,
    ) -> Result<bool> {
        match kind {
            // §5.4: fragments of one message are not interleaved with another message.
            Kind::Message { waits_for_frames } if connection.state.is_sending_fragments() => {
                return if waits_for_frames { Ok(false) } else { Err(interrupted(frame.as_ref())) };
            }
            Kind::Frame => {
                if let Some(frame) = frame {
                    let was_inside = connection.state.is_sending_fragments();
                    connection.state.send_frame(frame)?;
                    // Messages of other tasks wait for the last fragment.
                    connection.has_news |= was_inside && !connection.state.is_sending_fragments();
                }
            }
            Kind::Message { .. } => {}
        }
        if let (Some(deflation), Some(plain)) = (self.deflation(), &frame) {
            let deflated = match kind {
                Kind::Message { .. } => deflation.deflate_in_order(plain),
                Kind::Frame => deflation.deflate_fragment(plain),
            };
            if deflated.is_some() {
                *frame = deflated;
            }
        }
        connection.send(frame);
        Ok(true)
    }
}

/// The future of a frame that is queued, or that waits for room.
///
/// Queueing does not wait for the first poll: nearly always it is done at once, and a frame that is
/// not moved into a future costs half as much.
#[must_use = "without `.await` nothing waits for room, and errors are lost"]
pub(crate) struct SendFuture<'a> {
    shared: &'a Shared,
    /// `None` once the frame is queued. Boxed, so that the rest fits two registers.
    state: Option<Box<SendState>>,
}

pub(super) enum SendState {
    Queued,
    /// It is queued, and other tasks have their turn before the sender goes on.
    Yielding,
    Failed(Error),
    /// So many bytes have to be written, because the connection has no task to do it.
    Writing(u64, Listener),
    /// A long message is compressed.
    Deflating(Deflating, Kind),
    Waiting(WaitingSend),
}

pub(super) struct WaitingSend {
    frame: Option<Frame>,
    kind: Kind,
    listener: Listener,
    /// Its place among broadcasts that wait, if there are any.
    ticket: Option<SendTicket>,
    /// The compressor of the frame, to be given back once that is queued.
    deflater: Option<Borrowed>,
}

impl WaitingSend {
    fn new(frame: Option<Frame>, kind: Kind) -> Self {
        Self { frame, kind, listener: None, ticket: None, deflater: None }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Message {
        /// Wait for the fragments of another task's message, which must not be torn apart?
        waits_for_frames: bool,
    },
    Frame,
}

impl<'a> SendFuture<'a> {
    /// The future of a message that could not be made.
    pub(super) fn failed(shared: &'a Shared, error: Error) -> Self {
        Self { shared, state: Some(Box::new(SendState::Failed(error))) }
    }
}

impl Future for SendFuture<'_> {
    type Output = Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { shared, state } = self.get_mut();
        match state {
            None => Poll::Ready(Ok(())),
            Some(state) => state.poll(shared, cx),
        }
    }
}

impl SendState {
    fn unless_queued(self) -> Option<Box<Self>> {
        if matches!(self, Self::Queued) { None } else { Some(Box::new(self)) }
    }

    #[cold]
    pub(super) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            *self = match self {
                Self::Queued => return Poll::Ready(Ok(())),
                Self::Yielding => {
                    *self = Self::Queued;
                    shared.yield_turn(cx);
                    return Poll::Pending;
                }
                Self::Failed(error) => return Poll::Ready(Err(error.clone())),
                Self::Writing(mark, listener) => {
                    match ready!(shared.poll_written_to(cx, listener, *mark)) {
                        Ok(()) => Self::Queued,
                        Err(error) => Self::Failed(error),
                    }
                }
                Self::Deflating(deflating, kind) => {
                    let Some((frame, deflater)) = deflating.step() else {
                        // One step per turn.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    };
                    Self::Waiting(WaitingSend { deflater, ..WaitingSend::new(Some(frame), *kind) })
                }
                Self::Waiting(waiting) => ready!(waiting.poll(shared, cx)),
            };
        }
    }
}

impl WaitingSend {
    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<SendState> {
        let Self { frame, kind, listener, ticket, deflater } = self;
        let queue =
            |connection: &mut Connection| shared.try_queue(connection, frame, *kind, ticket);
        let state = ready!(shared.poll_wait_in_turn(cx, listener, queue));
        // Only a frame that is queued is in the peer's window.
        if let Some(deflater) = deflater.take() {
            if !matches!(state, SendState::Failed(_)) {
                deflater.keep_window();
            }
        }
        Poll::Ready(state)
    }
}

fn interrupted(frame: Option<&Frame>) -> Error {
    let opcode = frame.map_or(OpCode::Text, Frame::opcode);
    Error::Frame(FrameError::MessageInterrupted(opcode))
}
