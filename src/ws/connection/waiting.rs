//! Waiting for a connection: until there is room, until something is written, until it has ended.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::backlog::Place;
use super::core::MESSAGES_PER_TURN;
use super::shared::{CoreGuard, Listener, Shared};
use super::stats::CloseInfo;
use crate::error::{Error, Result};
use crate::ws::proto::{CloseCode, CloseFrame, ProtocolError};

impl Shared {
    /// Waits until the stream has taken all that was queued before.
    pub(crate) async fn flush(&self) -> Result<()> {
        let (mut listener, mut mark) = (None, None);
        std::future::poll_fn(|cx| self.poll_flush(cx, &mut listener, &mut mark)).await
    }

    /// Waits until the stream has taken all that was sent when this was polled first: at each poll
    /// there may be more, by others. `mark` is how much that is, once it is known.
    pub(super) fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mark: &mut Option<u64>,
    ) -> Poll<Result<()>> {
        let result = ready!(self.poll_wait(cx, listener, |core| {
            if mark.is_none() {
                *mark = core.mark();
            }
            core.write(&mut self.io_context());
            core.is_written((*mark)?)
        }));
        *mark = None;
        Poll::Ready(result)
    }

    pub(super) async fn flush_to(&self, mark: u64) -> Result<()> {
        let mut listener = None;
        std::future::poll_fn(|cx| self.poll_written_to(cx, &mut listener, mark)).await
    }

    pub(super) fn poll_written_to(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mark: u64,
    ) -> Poll<Result<()>> {
        self.poll_wait(cx, listener, |core| {
            core.write(&mut self.io_context());
            core.is_written(mark)
        })
    }

    /// Sends a close frame and waits for the end of the closing handshake.
    pub(crate) async fn close(
        &self,
        code: Result<CloseCode, ProtocolError>,
        reason: &str,
    ) -> Result<CloseInfo> {
        let code = code.map_err(Error::InvalidClose)?;
        let frame = CloseFrame::new(code, reason).map_err(Error::InvalidClose)?;
        let (mut frame, mut listener) = (Some(frame), None);
        std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |core| {
                if let Some(frame) = frame.take() {
                    core.begin_close(Some(frame));
                }
                if core.is_settled() { core.close_info().map(Ok) } else { None }
            })
        })
        .await
    }

    /// Begins the closing handshake, unless it has begun, and leaves it to the connection's task.
    #[cfg(feature = "server")]
    pub(crate) fn begin_close(&self, frame: CloseFrame) {
        self.lock().begin_close(Some(frame));
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&self) -> CloseInfo {
        let mut listener = None;
        std::future::poll_fn(|cx| self.poll_wait(cx, &mut listener, |core| core.close_info())).await
    }

    pub(super) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        place: &mut Option<Place>,
    ) -> Poll<Result<()>> {
        self.poll_wait(cx, listener, |core| match self.has_room(core, place) {
            Ok(has_room) => has_room.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })
    }

    pub(super) fn poll_closed(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
    ) -> Poll<Result<()>> {
        self.poll_wait(cx, listener, |core| {
            core.begin_close(Some(CloseFrame::lossy(CloseCode::NORMAL, "")));
            core.is_settled().then_some(Ok(()))
        })
    }

    /// Waits until `check` finds what it looks for. A connection without a task of its own is
    /// served from here.
    pub(super) fn poll_wait<T>(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mut check: impl FnMut(&mut CoreGuard<'_>) -> Option<T>,
    ) -> Poll<T> {
        loop {
            let mut core = self.lock();
            if let Some(found) = check(&mut core) {
                // It may hold a waker, which is foreign code.
                drop(core);
                *listener = None;
                return Poll::Ready(found);
            }
            if core.budget == 0 {
                core.budget = MESSAGES_PER_TURN;
                drop(core);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Listening begins under the lock, so nothing that is done under it is missed, and
            // before the last look at the stream, so that no event of it is.
            let listening = listener.get_or_insert_with(|| self.signals.progress.listen());
            core.has_listeners = true;
            if core.has_task {
                drop(core);
            } else {
                let has_parked = core.service(&mut self.io_context());
                drop(core);
                if !has_parked {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            ready!(Pin::new(listening).poll(cx));
            *listener = None;
        }
    }
}
