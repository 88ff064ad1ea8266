//! The connection as a [`Stream`] and a [`Sink`] of messages.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};

use super::WebSocket;
use super::backlog::Place;
use super::queue::{Queue, Stage};
use super::shared::{Listener, Shared};
use crate::error::{Error, Result};
use crate::ws::message::Message;

/// What is under way in the `Sink` of a connection.
#[derive(Default)]
pub(super) struct Feed {
    /// Its place among those that wait.
    pub(super) listener: Listener,
    /// The same among broadcasts that wait, until there is room.
    place: Option<Place>,
    /// What it took and could not queue at once.
    begun: Option<Box<Stage>>,
    /// How much has to be written until it is flushed, while somebody waits for that.
    flush_mark: Option<u64>,
}

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
        let (shared, Feed { listener, place, .. }) = self.feed();
        let outcome = ready!(shared.poll_room(cx, listener, place));
        // What is broadcast before the message is taken goes before it.
        *place = None;
        Poll::Ready(outcome)
    }

    fn start_send(self: Pin<&mut Self>, message: M) -> Result<()> {
        let (shared, feed) = self.get_mut().feed();
        feed.flush_mark = None;
        let begun = shared.start_send(message.into());
        match begun.as_deref() {
            // The flush writes it.
            None | Some(Stage::Writing(..)) => {}
            Some(Stage::Failed(error)) => return Err(error.clone()),
            Some(_) => feed.begun = begun,
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let (shared, Feed { listener, flush_mark, .. }) = self.feed();
        shared.poll_flush(cx, listener, flush_mark)
    }

    /// Closes the connection with 1000, as [`close`](WebSocket::close).
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let (shared, Feed { listener, .. }) = self.feed();
        shared.poll_closed(cx, listener)
    }
}

/// The future of a message that is sent directly.
#[must_use = "without `.await` nothing waits for room, and errors are lost"]
pub(super) enum Sending<'a> {
    Direct(Queue<'a>),
    /// The message waits for one of the `Sink`, which is compressed or has no room. Boxed, so that the rest
    /// fits two registers.
    Behind(Box<Behind<'a>>),
}

pub(super) struct Behind<'a> {
    ws: &'a mut WebSocket,
    /// `None` once it is on its way.
    message: Option<Message>,
}

impl Future for Sending<'_> {
    type Output = Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Direct(queue) => Pin::new(queue).poll(cx),
            Self::Behind(behind) => behind.poll(cx),
        }
    }
}

impl Behind<'_> {
    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.ws.poll_begun(cx))?;
        // From here on it is the message that was taken last, and whose place is kept if the future is
        // dropped: it is sent whole, or not begun.
        if let Some(message) = self.message.take() {
            let (shared, feed) = self.ws.feed();
            feed.begun = shared.start_send(message);
        }
        self.ws.poll_begun(cx)
    }
}

impl WebSocket {
    fn feed(&mut self) -> (&Shared, &mut Feed) {
        (&self.shared, self.feed.get_or_insert_default())
    }

    /// Sends a message behind the one that the `Sink` took last.
    #[inline]
    pub(super) fn send_in_order(&mut self, message: Message) -> Sending<'_> {
        let is_behind = self.feed.as_ref().is_some_and(|feed| feed.begun.is_some());
        if is_behind {
            return Sending::Behind(Box::new(Behind { ws: self, message: Some(message) }));
        }
        Sending::Direct(self.shared.send(message, false))
    }

    /// Waits until the message that the `Sink` took last is queued.
    pub(super) async fn begun(&mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_begun(cx)).await
    }

    /// Waits until the message that the `Sink` took last is queued: a long one is compressed first.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(feed) = &mut self.feed else { return Poll::Ready(Ok(())) };
        let Some(begun) = &mut feed.begun else { return Poll::Ready(Ok(())) };
        let result = ready!(begun.poll(&self.shared, cx));
        feed.begun = None;
        Poll::Ready(result)
    }
}
