//! The connection as a [`Stream`] and a [`Sink`] of messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};

use super::WebSocket;
use super::queue::Stage;
use crate::error::{Error, Result};
use crate::ws::message::Message;

impl Stream for WebSocket {
    type Item = Result<Message>;

    /// The next message, as [`recv`](WebSocket::recv); ends after the first error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        let result = ready!(self.poll_recv(cx));
        self.has_failed = result.is_err();
        Poll::Ready(result.transpose())
    }
}

impl<M: Into<Message>> Sink<M> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let Self { shared, listener, place, .. } = &mut *self;
        let outcome = ready!(shared.poll_room(cx, listener, place));
        // What is broadcast before the message is taken goes before it.
        *place = None;
        Poll::Ready(outcome)
    }

    fn start_send(self: Pin<&mut Self>, message: M) -> Result<()> {
        let this = self.get_mut();
        this.flush_mark = None;
        let begun = this.shared.start_send(message.into());
        match begun.as_deref() {
            // The flush writes it.
            None | Some(Stage::Writing(..)) => {}
            Some(Stage::Failed(error)) => return Err(error.clone()),
            Some(_) => this.begun = begun,
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let Self { shared, listener, flush_mark, .. } = &mut *self;
        shared.poll_flush(cx, listener, flush_mark)
    }

    /// Closes the connection with 1000, as [`close`](WebSocket::close).
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let Self { shared, listener, .. } = &mut *self;
        shared.poll_closed(cx, listener)
    }
}

impl WebSocket {
    /// Waits until the message that the `Sink` took last is queued: a long one is compressed first.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(begun) = &mut self.begun else { return Poll::Ready(Ok(())) };
        let result = ready!(begun.poll(&self.shared, cx));
        self.begun = None;
        Poll::Ready(result)
    }
}
