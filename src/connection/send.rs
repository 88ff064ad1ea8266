//! Sending: a message becomes a frame and gets into the outbox, or waits until that has room.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::backlog::Place;
use super::compression::{Borrowed, Deflating, Prepared};
use super::shared::{CoreGuard, Listener, Shared};
use super::state::Core;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::proto::{Frame, FrameError, OpCode};

impl Shared {
    /// Queues a message: now if there is room, else once there is.
    #[inline]
    pub(crate) fn send(&self, message: Message, waits_for_frames: bool) -> Queue<'_> {
        let frame = message.into_frame();
        if self.deflation().is_none() && self.stage(&frame) {
            return Queue { shared: self, stage: None };
        }
        self.send_slow(frame, Kind::Message { waits_for_frames })
    }

    #[cold]
    fn send_slow(&self, frame: Frame, kind: Kind) -> Queue<'_> {
        Queue { shared: self, stage: self.begin_send(frame, kind).unless_queued() }
    }

    fn begin_send(&self, mut frame: Frame, kind: Kind) -> Stage {
        if let Some(deflation) = self.deflation() {
            match deflation.prepare(frame) {
                Prepared::Now(prepared) => frame = prepared,
                Prepared::Long(deflating) => return Stage::Deflating(deflating, kind),
            }
            if self.stage(&frame) {
                return Stage::Queued;
            }
        }
        self.queue(Some(frame), kind)
    }

    /// Begins to send a message of the `Sink`.
    pub(super) fn start_send(&self, message: Message) -> Option<Box<Stage>> {
        let kind = Kind::Message { waits_for_frames: false };
        self.begin_send(message.into_frame(), kind).unless_queued()
    }

    /// Queues one frame: now if there is room, else once there is.
    pub(crate) fn send_frame(&self, frame: Frame) -> Queue<'_> {
        Queue { shared: self, stage: self.queue(Some(frame), Kind::Frame).unless_queued() }
    }

    fn queue(&self, mut frame: Option<Frame>, kind: Kind) -> Stage {
        let mut place = None;
        let result = self.try_queue(&mut self.lock(), &mut frame, kind, &mut place);
        result.unwrap_or_else(|| Stage::Waiting(Waiting { place, ..Waiting::new(frame, kind) }))
    }

    /// Queues the frame if there is room, and takes it.
    fn try_queue(
        &self,
        core: &mut CoreGuard<'_>,
        frame: &mut Option<Frame>,
        kind: Kind,
        place: &mut Option<Place>,
    ) -> Option<Stage> {
        match self
            .has_room(core, place)
            .and_then(|has_room| Ok(has_room && self.queue_into(core, frame, kind)?))
        {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => return Some(Stage::Failed(error)),
        }
        if core.has_task {
            return Some(Stage::Queued);
        }
        // Nobody else would write it.
        Some(Stage::Writing(core.outbox.queued(), None))
    }

    /// Queues the frame; false if it has to wait for those of another message.
    fn queue_into(&self, core: &mut Core, frame: &mut Option<Frame>, kind: Kind) -> Result<bool> {
        match kind {
            Kind::Message { waits_for_frames } if core.state.is_sending_fragments() => {
                return if waits_for_frames { Ok(false) } else { Err(interrupted(frame.as_ref())) };
            }
            Kind::Frame => {
                if let Some(frame) = frame {
                    let was_inside = core.state.is_sending_fragments();
                    core.state.send_frame(frame)?;
                    // Messages of other tasks wait for the last fragment.
                    core.has_news |= was_inside && !core.state.is_sending_fragments();
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
        core.send(frame);
        Ok(true)
    }
}

/// The future of a frame that is queued, or that waits for room.
///
/// Queueing does not wait for the first poll: nearly always it is done at once, and a frame that is
/// not moved into a future costs half as much.
#[must_use = "without `.await` nothing waits for room, and errors are lost"]
pub(crate) struct Queue<'a> {
    shared: &'a Shared,
    /// `None` once the frame is queued. Boxed, so that the rest fits two registers.
    stage: Option<Box<Stage>>,
}

pub(super) enum Stage {
    Queued,
    Failed(Error),
    /// So many bytes have to be written, because the connection has no task to do it.
    Writing(u64, Listener),
    /// A long message is compressed.
    Deflating(Deflating, Kind),
    Waiting(Waiting),
}

pub(super) struct Waiting {
    frame: Option<Frame>,
    kind: Kind,
    listener: Listener,
    /// Its place among broadcasts that wait, if there are any.
    place: Option<Place>,
    /// The compressor of the frame, to be given back once that is queued.
    deflater: Option<Borrowed>,
}

impl Waiting {
    fn new(frame: Option<Frame>, kind: Kind) -> Self {
        Self { frame, kind, listener: None, place: None, deflater: None }
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

impl Future for Queue<'_> {
    type Output = Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { shared, stage } = self.get_mut();
        match stage {
            None => Poll::Ready(Ok(())),
            Some(stage) => stage.poll(shared, cx),
        }
    }
}

impl Stage {
    fn unless_queued(self) -> Option<Box<Self>> {
        if matches!(self, Self::Queued) { None } else { Some(Box::new(self)) }
    }

    #[cold]
    pub(super) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            *self = match self {
                Self::Queued => return Poll::Ready(Ok(())),
                Self::Failed(error) => return Poll::Ready(Err(error.clone())),
                Self::Writing(mark, listener) => {
                    match ready!(shared.poll_written_to(cx, listener, *mark)) {
                        Ok(()) => Self::Queued,
                        Err(error) => Self::Failed(error),
                    }
                }
                Self::Deflating(deflating, kind) => {
                    let Some((frame, deflater)) = deflating.step() else {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    };
                    Self::Waiting(Waiting { deflater, ..Waiting::new(Some(frame), *kind) })
                }
                Self::Waiting(waiting) => ready!(waiting.poll(shared, cx)),
            };
        }
    }
}

impl Waiting {
    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Stage> {
        let Self { frame, kind, listener, place, deflater } = self;
        let queue = |core: &mut CoreGuard<'_>| shared.try_queue(core, frame, *kind, place);
        let stage = ready!(shared.poll_wait(cx, listener, queue));
        if let Some(deflater) = deflater.take() {
            if !matches!(stage, Stage::Failed(_)) {
                deflater.keep_window();
            }
        }
        Poll::Ready(stage)
    }
}

fn interrupted(frame: Option<&Frame>) -> Error {
    let opcode = frame.map_or(OpCode::Text, Frame::opcode);
    Error::Frame(FrameError::MessageInterrupted(opcode))
}
