//! The future at the root of a connection's own task.
//!
//! It polls the handler, and each time the handler waits for anything at all, it writes what was
//! queued in one go, reads ahead while nobody is in `recv`, and goes on closing. When the handler
//! has returned it closes the connection, and stays until that is done.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::shared::Shared;
use crate::escaped::Escaped;
use crate::ws::proto::{CloseCode, CloseFrame};

/// What a handler ends with: whether it succeeded is all that matters here.
type Handler<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

pub(crate) struct ConnectionTask<T, E> {
    /// `None` once it has returned.
    handler: Option<Handler<T, E>>,
    /// The code to close with when the `WebSocket` is dropped.
    code: CloseCode,
    shared: Arc<Shared>,
}

impl<T, E: std::fmt::Display> ConnectionTask<T, E> {
    pub(crate) fn new(handler: Handler<T, E>, shared: Arc<Shared>) -> Self {
        // From here on, and not from the first poll on: calls that come before rely on the task.
        shared.lock().has_task = true;
        Self { handler: Some(handler), code: CloseCode::NORMAL, shared }
    }
}

/// Polls the handler; sets `code` when it fails.
fn poll_handler<T, E: std::fmt::Display>(
    slot: &mut Option<Handler<T, E>>,
    code: &mut CloseCode,
    cx: &mut Context<'_>,
) {
    let Some(handler) = slot else { return };
    // The handler is dropped after a panic, so nobody sees what it left behind.
    let polled = catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx)));
    match polled {
        Ok(Poll::Pending) => return,
        Ok(Poll::Ready(Ok(_))) => {}
        Ok(Poll::Ready(Err(error))) => {
            let error = Escaped(error);
            log::debug!(error:%; "WebSocket handler failed: {error}");
            *code = CloseCode::INTERNAL_ERROR;
        }
        Err(_) => {
            log::error!("WebSocket handler panicked");
            *code = CloseCode::INTERNAL_ERROR;
        }
    }
    *slot = None;
}

impl<T, E: std::fmt::Display> Future for ConnectionTask<T, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { handler, code, shared } = &mut *self;
        let mut core = shared.poll_turn(cx, |cx| poll_handler(handler, code, cx));
        if core.is_abandoned {
            core.begin_close(Some(CloseFrame::lossy(*code, "")));
        }
        core.service(&mut shared.io_context());
        core.is_task_owed = false;
        let is_over = core.is_gone() && handler.is_none();
        drop(core);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<T, E> Drop for ConnectionTask<T, E> {
    fn drop(&mut self) {
        // The handler goes first, and with it what it sends in its destructors.
        self.handler = None;
        self.shared.lose_task();
    }
}

impl<T, E> std::fmt::Debug for ConnectionTask<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionTask").field("shared", &self.shared).finish_non_exhaustive()
    }
}
