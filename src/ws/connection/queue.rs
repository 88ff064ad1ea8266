//! Sending: how a frame gets into the queue, and who waits until it may.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::core::Core;
use super::shared::{CoreGuard, Listener, Shared};
use crate::error::{Error, Result};
use crate::ws::message::Message;
use crate::ws::proto::{Frame, FrameError, OpCode};

impl Shared {
    /// Queues a message: now if there is room, else once there is.
    #[inline]
    pub(crate) fn send(&self, message: Message, waits_for_frames: bool) -> Queue<'_> {
        let frame = message.into_frame();
        if self.stage(&frame) {
            return Queue { shared: self, stage: Stage::Queued };
        }
        self.queue(Some(frame), Kind::Message { waits_for_frames })
    }

    /// Queues one frame: now if there is room, else once there is.
    pub(crate) fn send_frame(&self, frame: Frame) -> Queue<'_> {
        self.queue(Some(frame), Kind::Frame)
    }

    fn queue(&self, mut frame: Option<Frame>, kind: Kind) -> Queue<'_> {
        let result = self.try_queue(&mut self.lock(), &mut frame, kind);
        let stage = result
            .unwrap_or_else(|| Stage::Waiting(Box::new(Waiting { frame, kind, listener: None })));
        Queue { shared: self, stage }
    }

    /// Queues the frame if there is room, and takes it.
    fn try_queue(
        &self,
        core: &mut CoreGuard<'_>,
        frame: &mut Option<Frame>,
        kind: Kind,
    ) -> Option<Stage> {
        match self.has_room(core).and_then(|has_room| Ok(has_room && queue(core, frame, kind)?)) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => return Some(Stage::Failed(Box::new(error))),
        }
        self.schedule_write(core);
        if core.has_task {
            return Some(Stage::Queued);
        }
        // Nobody else would write it.
        Some(Stage::Writing(core.outbox.queued(), None))
    }

    pub(super) fn start_send(&self, message: Message) -> Result<()> {
        let mut core = self.lock();
        if let Some(error) = core.send_error() {
            return Err(error);
        }
        if core.state.is_sending_fragments() {
            return Err(interrupted(Some(&message.into_frame())));
        }
        core.push(&mut Some(message.into_frame()));
        self.schedule_write(&mut core);
        Ok(())
    }
}

/// The future of a frame that is queued, or that waits for room.
///
/// Queueing does not wait for the first poll: nearly always it is done at once, and a frame that is
/// not moved into a future costs half as much.
#[must_use = "without `.await` nothing waits for room, and errors are lost"]
pub(crate) struct Queue<'a> {
    shared: &'a Shared,
    stage: Stage,
}

enum Stage {
    Queued,
    /// Boxed: what the others leave of a word is costly to move.
    Failed(Box<Error>),
    /// So many bytes have to be written, because the connection has no task to do it.
    Writing(u64, Listener),
    Waiting(Box<Waiting>),
}

struct Waiting {
    frame: Option<Frame>,
    kind: Kind,
    listener: Listener,
}

#[derive(Clone, Copy)]
enum Kind {
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
        let this = self.get_mut();
        if matches!(this.stage, Stage::Queued) { Poll::Ready(Ok(())) } else { this.poll_slow(cx) }
    }
}

impl Queue<'_> {
    #[cold]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { shared, stage } = self;
        loop {
            *stage =
                match stage {
                    Stage::Queued => return Poll::Ready(Ok(())),
                    Stage::Failed(error) => return Poll::Ready(Err((**error).clone())),
                    Stage::Writing(mark, listener) => {
                        match ready!(shared.poll_written_to(cx, listener, *mark)) {
                            Ok(()) => Stage::Queued,
                            Err(error) => Stage::Failed(Box::new(error)),
                        }
                    }
                    Stage::Waiting(waiting) => {
                        let Waiting { frame, kind, listener } = &mut **waiting;
                        ready!(shared.poll_wait(cx, listener, |core| {
                            shared.try_queue(core, frame, *kind)
                        }))
                    }
                };
        }
    }
}

/// Queues the frame; false if it has to wait for those of another message.
fn queue(core: &mut Core, frame: &mut Option<Frame>, kind: Kind) -> Result<bool> {
    match kind {
        Kind::Message { waits_for_frames } if core.state.is_sending_fragments() => {
            return if waits_for_frames { Ok(false) } else { Err(interrupted(frame.as_ref())) };
        }
        Kind::Frame => {
            frame.as_ref().map_or(Ok(()), |frame| core.state.send_frame(frame))?;
        }
        Kind::Message { .. } => {}
    }
    core.push(frame);
    Ok(true)
}

fn interrupted(frame: Option<&Frame>) -> Error {
    let opcode = frame.map_or(OpCode::Text, Frame::opcode);
    Error::Frame(FrameError::MessageInterrupted(opcode))
}
