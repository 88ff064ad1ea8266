//! The driver: the future at the root of a connection's own task.
//!
//! It polls the handler, and each time the handler waits for anything at all, it writes what was queued in one
//! go, reads ahead while the handler is not in `recv`, and goes on closing. When the handler has returned it
//! closes the connection, and stays until that is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::handler_buffer::{self, HandlerBuffer};
use super::shared::{Shared, Whose};
use super::state::{Connection, Driver, Receiver, Work};
use super::wakes::{Wakes, guarded};
use crate::escaped::Escaped;
use crate::foreign::{Panicked, attempt, attempt_told};
use crate::proto::{CloseCode, CloseFrame};
use crate::reject;

pub(crate) struct ConnectionTask<T, E> {
    handler: Handling<T, E>,
    /// The close frame for when the `WebSocket` is dropped, if it is not that of an orderly end.
    end: Option<Box<CloseFrame>>,
    shared: Arc<Shared>,
}

impl<T, E> ConnectionTask<T, E> {
    pub(crate) fn new(handler: Handling<T, E>, shared: Arc<Shared>) -> Self {
        // From here on, and not from the first poll on: calls that come before rely on the task.
        shared.with(|connection, _| connection.driver = Driver::Task(None));
        Self { handler, end: None, shared }
    }
}

impl<T, E: fmt::Display + 'static> Future for ConnectionTask<T, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { handler, end, shared } = &mut *self;
        // 1. The handler runs. Its frames go to the handler's buffer.
        let poll = PollScope::begin(shared, cx);
        if let Poll::Ready(Err(Failed(frame))) = handler.poll(cx, Whose::Open(shared)) {
            *end = Some(frame);
        }
        // 2. It has parked: its buffer is in the outbox.
        let is_gone = poll.end(|connection, _| {
            // 3. Its `WebSocket` is dropped: the connection closes.
            if connection.receiver == Receiver::Dropped {
                let frame = end.as_deref().cloned();
                connection
                    .begin_close(frame.or_else(|| Some(CloseFrame::lossy(CloseCode::NORMAL, ""))));
            }
            // 4. Write, read ahead, go on closing, set the timer.
            connection.drive(&mut shared.io_context());
            if connection.work == Work::Owed {
                // This is the task.
                connection.work = Work::Known;
            }
            connection.is_gone()
        });
        // 5. The task ends with the stream and the handler.
        if is_gone && handler.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<T, E> Drop for ConnectionTask<T, E> {
    fn drop(&mut self) {
        // The handler goes first, and with it what it sends in its destructors.
        self.handler.discard(Whose::Open(&self.shared));
        // A stream of the application may panic when it is dropped. It is gone then, and the rest is done.
        let _ = attempt(|| self.shared.lose_task())
            .or_else(|Panicked| attempt(|| self.shared.lose_task()));
    }
}

impl<T, E> fmt::Debug for ConnectionTask<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionTask").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// A poll of the handler by the connection's task. It ends also where a panic unwinds through it: the thread would
/// take later connections for this one.
struct PollScope<'a> {
    shared: &'a Shared,
    /// The buffer of the poll that goes on after this one, if there is one.
    interrupted: Option<Box<HandlerBuffer>>,
    is_over: bool,
}

impl<'a> PollScope<'a> {
    fn begin(shared: &'a Shared, cx: &Context<'_>) -> Self {
        // Under the lock: from here on other tasks send to `during_poll`.
        let begin = |connection: &mut Connection| {
            connection.begin_poll();
            (connection.role(), connection.room())
        };
        // One lock where the task has the same waker as before, which is always, but for executors that move it.
        let of_known = shared.with(|it, _| it.is_in_task(cx).then(|| begin(it)));
        let (role, room) = of_known.unwrap_or_else(|| {
            shared.set_task(cx.waker());
            shared.with(|it, _| begin(it))
        });
        let interrupted = handler_buffer::begin(shared.id(), role, room);
        Self { shared, interrupted, is_over: false }
    }

    fn end<R>(mut self, step: impl FnOnce(&mut Connection, &mut Wakes<'_>) -> R) -> R {
        self.is_over = true;
        self.shared.with_handler_parked(self.interrupted.take(), step)
    }
}

impl Drop for PollScope<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.with_handler_parked(self.interrupted.take(), |_, _| {});
        }
    }
}

impl Shared {
    /// Notes which task drives the connection. Wakers are foreign code: they are cloned and dropped without a lock.
    pub(super) fn set_task(&self, waker: &Waker) {
        let (ours, copy) = (waker.clone(), waker.clone());
        let replaced = self.with(|connection, _| {
            let known = match &mut connection.driver {
                Driver::Task(known) => known.replace(ours),
                Driver::Callers => Some(ours),
            };
            (known, self.signals.set_task(Some(copy)))
        });
        guarded(|| drop(replaced));
    }

    /// The connection's task is dropped: without a closing handshake, the connection ends.
    fn lose_task(&self) {
        let wakers =
            self.with(|connection, _| (connection.lose_task(), self.signals.set_task(None)));
        guarded(|| drop(wakers));
    }
}

/// A handler at work, or `None` once it is over. Whatever of it panics, nothing else does: not its
/// connection, and not the task that it is dropped with.
pub(crate) struct Handling<T, E>(Option<Handler<T, E>>);

type Handler<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The handler has returned an error, or panicked, and the log has the reason. The peer gets this frame.
#[derive(Debug)]
pub(crate) struct Failed(Box<CloseFrame>);

impl<T, E> Handling<T, E> {
    pub(crate) fn new(handler: Handler<T, E>) -> Self {
        Self(Some(handler))
    }

    /// Polls the handler. Once it has returned it is dropped, and what it returned: that it succeeded is all
    /// that matters here.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        whose: Whose<'_>,
    ) -> Poll<Result<(), Failed>>
    where
        E: fmt::Display + 'static,
    {
        let Some(handler) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let (end, panic) = match attempt_told(|| handler.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(value))) => (None, attempt_told(|| drop(value)).err()),
            Ok(Poll::Ready(Err(error))) => {
                // `Display` and `Drop` of the error, and of its causes, are the application's, too.
                let told = attempt_told(|| {
                    let verdict = reject::verdict(&error);
                    let is_over = verdict.is_of_connection && whose.is_over();
                    let shown = Escaped(&error).to_text();
                    reject::tell_end(whose.subject(), &verdict, is_over, shown);
                    verdict.frame
                });
                let (frame, panic) = match told {
                    Ok(frame) => (frame, None),
                    Err(panic) => (None, Some(panic)),
                };
                let panic = panic.or(attempt_told(|| drop(error)).err());
                (Some(frame.unwrap_or_else(internal_error)), panic)
            }
            Err(panic) => (None, Some(panic)),
        };
        let panic = panic.or(attempt_told(|| drop(self.0.take())).err());
        let end = match panic {
            Some(panic) => {
                reject::tell_panic(whose.subject(), &panic);
                Some(internal_error())
            }
            None => end,
        };
        Poll::Ready(match end {
            None => Ok(()),
            Some(frame) => Err(Failed(Box::new(frame))),
        })
    }

    /// Drops the handler where it stands.
    pub(crate) fn discard(&mut self, whose: Whose<'_>) {
        if let Err(panic) = attempt_told(|| drop(self.0.take())) {
            reject::tell_panic(whose.subject(), &panic);
        }
    }

    fn is_over(&self) -> bool {
        self.0.is_none()
    }
}

impl<T, E> Drop for Handling<T, E> {
    fn drop(&mut self) {
        self.discard(Whose::Unknown);
    }
}

/// The close frame where a handler has failed, and its peer is told no more than that.
fn internal_error() -> CloseFrame {
    CloseFrame::lossy(CloseCode::INTERNAL_ERROR, "")
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use futures::io::Cursor;

    use super::*;
    use crate::connection::shared::Opened;
    use crate::options::Settings;
    use crate::proto::{Frame, OpCode, Role};
    use crate::stream::Stream;

    fn shared() -> Arc<Shared> {
        let stream = Stream::boxed(Cursor::new(Vec::new()));
        let (settings, opened) = (Settings::default(), Opened::default());
        Shared::new(stream, Bytes::new(), Role::Server, settings, opened)
    }

    #[test]
    fn a_turn_ends_also_where_a_panic_unwinds_through_it() {
        let (outer, inner) = (shared(), shared());
        let frame = Frame::new(true, OpCode::Text, "Hello");
        let cx = &mut Context::from_waker(Waker::noop());
        let queued = |shared: &Shared| shared.with(|connection, _| connection.outbox.queued());
        let poll = PollScope::begin(&outer, cx);
        assert!(outer.buffer(&frame));
        let polled = attempt(|| {
            let _poll = PollScope::begin(&inner, cx);
            assert!(inner.buffer(&frame) && !outer.buffer(&frame));
            panic!("on purpose");
        });
        polled.unwrap_err();
        assert!(!inner.buffer(&frame), "the turn is over");
        assert!(!inner.with(|connection, _| connection.is_polled()));
        assert_eq!(queued(&inner), 7, "what it has sent before is sent");
        assert!(outer.buffer(&frame), "the turn that it has interrupted goes on");
        poll.end(|_, _| {});
        assert!(!outer.buffer(&frame));
        assert_eq!(queued(&outer), 14);
    }

    #[test]
    fn what_panics_of_a_handler_fails_it_and_no_more() {
        /// Panics when it is written or dropped.
        struct Bomb;

        impl fmt::Display for Bomb {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("in a Display");
            }
        }

        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in a destructor");
            }
        }

        fn handling<T: 'static>(
            handler: impl Future<Output = Result<T, Bomb>> + Send + 'static,
        ) -> Handling<T, Bomb> {
            Handling::new(Box::pin(handler))
        }

        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(handling(async { Ok(()) }).poll(cx, Whose::Unknown), Poll::Ready(Ok(()))));
        let failed = [
            handling(async { Ok(Bomb) }).poll(cx, Whose::Unknown),
            handling(async { Err::<(), _>(Bomb) }).poll(cx, Whose::Unknown),
            handling::<()>(async { panic!("on purpose") }).poll(cx, Whose::Unknown),
            handling::<()>(async { std::panic::panic_any(Bomb) }).poll(cx, Whose::Unknown),
        ];
        assert!(failed.iter().all(|outcome| matches!(outcome, Poll::Ready(Err(Failed(_))))));

        let mut waiting = handling::<()>(async {
            let _bomb = Bomb;
            std::future::pending().await
        });
        assert!(waiting.poll(cx, Whose::Unknown).is_pending());
        drop(waiting);
    }
}
