//! `WebSocket`: the connection as its handler sees it, also as a `Stream` and a `Sink` of messages.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Sink;
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::FusedStream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backlog::SendTicket;
use super::close::close_frame;
use super::compression::Deflation;
use super::driver::{ConnectionTask, Handling};
use super::recv::Received;
use super::send::{SendFuture, SendState};
use super::sender::Sender;
use super::shared::{Listener, Opened, Shared};
use super::stats::{CloseInfo, ConnectionId, ConnectionStats};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::options::WebSocketOptions;
use crate::options::heartbeat::HeartbeatOptions;
use crate::proto::{CloseCode, DeflateParameters, Frame, OpCode, ProtocolError, Role};
#[cfg(feature = "rooms")]
use crate::runtime;
#[cfg(feature = "rooms")]
use crate::runtime::Spawned;
use crate::stream::Stream;

/// A WebSocket connection.
///
/// # Sending
///
/// [`send`](Self::send), [`send_text`](Self::send_text), [`send_binary`](Self::send_binary),
/// [`send_json`](Self::send_json), [`send_frame`](Self::send_frame), [`ping`](Self::ping) and [`pong`](Self::pong)
/// queue **when they are called**, if there is room, and not when they are awaited. So a call whose future is
/// dropped, by `select!` for instance, has sent. To await it waits for room if there was none, and returns errors.
/// A frame that does not move through a future costs half as much.
///
/// Two kinds of messages are queued later, while they are awaited: one of more than 32 KiB that is compressed, which takes
/// several steps; and one behind a message of the `Sink` that is not queued yet. A future of these that is dropped may
/// have sent nothing. And a connection without a task writes a message of a dropped future only with its next call.
///
/// # Cancel safety
///
/// Every future of this type may be dropped at any time: no byte and no message is lost, and the
/// next call goes on. A future of the calls above has queued the whole message, or nothing if there was no room.
/// Dropping that of [`close`](Self::close) after its first poll leaves the closing to go on.
///
/// # Closing
///
/// Dropping the `WebSocket` closes the connection, with the code that the outcome of its handler
/// gives: 1000 for `Ok`, 1011 for `Err` or a panic. [`close`](Self::close) says more.
pub struct WebSocket {
    pub(super) shared: Arc<Shared>,
    /// Boxed: a handler's future holds its connection more than once.
    pub(super) received: Box<Received>,
    /// `None` until the `Sink` is used. Boxed for the same reason.
    pub(super) sink: Option<Box<SinkState>>,
    /// Whether the `Stream` has ended, with an error or without.
    pub(super) is_over: bool,
}

impl WebSocket {
    /// Speaks WebSocket over a stream whose opening handshake is done.
    ///
    /// `unread` are the bytes that were read beyond the handshake. The connection has no task of
    /// its own: it lives from the calls made here. Pings are answered and the close is noticed
    /// while a caller waits in one of them, and each `send` waits until the stream has taken the
    /// message.
    #[must_use]
    pub fn from_stream<S>(
        stream: S,
        unread: impl Into<Bytes>,
        role: Role,
        options: &WebSocketOptions,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = Stream::boxed(stream);
        let opened = Opened { deflation: Deflation::agreed(options, role), ..Opened::default() };
        Self::new(Shared::new(stream, unread.into(), role, options.parts.settings.clone(), opened))
    }

    /// Speaks WebSocket over a stream whose opening handshake is done, with a task of its own: the
    /// future that is returned.
    ///
    /// It runs `handler`, writes all that the handler sends whenever the handler waits, reads ahead
    /// and answers pings while it is busy elsewhere, and closes the connection when it has returned,
    /// as the server does. With [`Role::Server`] it pings its peer unless
    /// [`heartbeat`](WebSocketOptions::heartbeat) says otherwise. It ends when the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops handler and connection, without a closing handshake.
    pub fn run<S, F, Fut, T, E>(
        stream: S,
        unread: impl Into<Bytes>,
        role: Role,
        options: &WebSocketOptions,
        handler: F,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: FnOnce(Self) -> Fut,
        Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
        T: 'static,
        E: fmt::Display + 'static,
    {
        let stream = Stream::boxed(stream);
        let opened = Opened { deflation: Deflation::agreed(options, role), ..Opened::default() };
        let settings = options.parts.settings.clone().with_task();
        let shared = Shared::new(stream, unread.into(), role, settings, opened);
        let handler = handler(Self::new(Arc::clone(&shared)));
        Box::pin(ConnectionTask::new(Handling::new(Box::pin(handler)), shared))
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let received = Box::new(Received::new(shared.inflation()));
        Self { shared, received, sink: None, is_over: false }
    }

    /// Receives the next message; `None` once the closing handshake is complete.
    ///
    /// Pings are answered and fragments joined on the way (RFC 6455 §5.4, §5.5.2).
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`](crate::Error::Protocol) if the peer broke a rule: it has then been told which, in a close
    /// frame. [`Error::Io`](crate::Error::Io) if the stream failed or ended without a closing handshake,
    /// [`Error::Timeout`](crate::Error::Timeout) if a deadline passed. [`Error::MessageBegun`](crate::Error::MessageBegun) between the fragments of a
    /// message that [`recv_frame`](Self::recv_frame) began.
    ///
    /// # Cancel safety
    ///
    /// Bytes read so far stay in the connection, and the next call goes on from there.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>>> + Send {
        std::future::poll_fn(|cx| self.poll_recv(cx))
    }

    /// Receives the next frame, data or control, as it was sent: fragments are not joined. `None`
    /// once the closing handshake is complete.
    ///
    /// Pings are still answered, once, unless
    /// [`auto_pong`](WebSocketOptions::auto_pong) hands that to the caller; a close frame is
    /// answered, and shown before the `None`. Pongs that answer a [heartbeat](Self::set_heartbeat) are not
    /// shown. Control frames are shown from the first call on, or
    /// from the start if [`recv`](Self::recv) was not called before; 32 of them are kept until then.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv), without [`Error::MessageBegun`](crate::Error::MessageBegun).
    pub fn recv_frame(&mut self) -> impl Future<Output = Result<Option<Frame>>> + Send {
        std::future::poll_fn(|cx| self.poll_recv_frame(cx))
    }

    /// Receives the next message as JSON, from text or binary; `None` after the closing handshake.
    ///
    /// # Errors
    ///
    /// [`Error::Json`](crate::Error::Json) if the message is not JSON, or not of this shape; the connection stays open
    /// and the next call reads the next message. Else those of [`recv`](Self::recv).
    pub async fn recv_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(message) = self.recv().await? else { return Ok(None) };
        message.parse().map(Some)
    }

    /// Sends a message: queues it **at the call**, if there is room. The future waits for room if there is none.
    ///
    /// All that is queued goes out in one write as soon as the handler waits for anything. While more than
    /// [`send_buffer_size`](WebSocketOptions::send_buffer_size) is queued, there is no room until the peer reads.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) after a close frame has gone either way, or the error that ended the
    /// connection. [`Error::Frame`](crate::Error::Frame) between the fragments of a message sent by
    /// [`send_frame`](Self::send_frame).
    #[inline]
    pub fn send(&mut self, message: impl Into<Message>) -> impl Future<Output = Result<()>> + Send {
        self.send_in_order(message.into())
    }

    /// Sends a text message, queued at the call like that of [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_text(
        &mut self,
        text: impl Into<String>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.send(Message::text(text))
    }

    /// Sends a binary message, queued at the call like that of [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_binary(
        &mut self,
        bytes: impl Into<Bytes>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.send(Message::binary(bytes))
    }

    /// Sends a value as JSON, in a text message, queued at the call like that of [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// [`Error::Serialize`](crate::Error::Serialize) if the value cannot be written as JSON; nothing is sent then. Else those of
    /// [`send`](Self::send).
    pub fn send_json<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> impl Future<Output = Result<()>> + Send + use<'_, T> {
        match Message::json(value) {
            // The value is not needed any more, whenever there is room.
            Ok(message) => self.send_in_order(message),
            Err(error) => Sending::Direct(SendFuture::failed(&self.shared, error)),
        }
    }

    /// Sends one frame as given, of a message in fragments for instance. It is queued at the call, like a message of
    /// [`send`](Self::send).
    ///
    /// Between the first fragment and the last, messages of [`Sender`]s wait and those of
    /// [`send`](Self::send) are refused; control frames may pass (RFC 6455 §5.4).
    ///
    /// # Errors
    ///
    /// [`Error::Frame`](crate::Error::Frame) if the frame would break the protocol; nothing is sent then. Else those of
    /// [`send`](Self::send).
    pub fn send_frame(&mut self, frame: Frame) -> impl Future<Output = Result<()>> + Send {
        self.send_frame_in_order(frame)
    }

    /// Sends a ping, which the peer answers with a pong of the same payload (§5.5.2). It is queued at the call.
    ///
    /// # Errors
    ///
    /// [`Error::Frame`](crate::Error::Frame) if the payload exceeds 125 bytes. Else those of [`send`](Self::send).
    pub fn ping(&mut self, payload: impl Into<Bytes>) -> impl Future<Output = Result<()>> + Send {
        self.send_frame_in_order(Frame::new(true, OpCode::Ping, payload))
    }

    /// Sends an unsolicited pong, or the answer to a ping that [`auto_pong`](WebSocketOptions::auto_pong) left to
    /// the caller (§5.5.3). It is queued at the call.
    ///
    /// # Errors
    ///
    /// [`Error::Frame`](crate::Error::Frame) if the payload exceeds 125 bytes. Else those of [`send`](Self::send).
    pub fn pong(&mut self, payload: impl Into<Bytes>) -> impl Future<Output = Result<()>> + Send {
        self.send_frame_in_order(Frame::new(true, OpCode::Pong, payload))
    }

    /// Closes the connection: sends a close frame and waits for the peer's, at most
    /// [`close_timeout`](WebSocketOptions::close_timeout) (RFC 6455 §7.1.2).
    ///
    /// The close frame is queued by the first poll, not at the call. `code` is a [`CloseCode`] or a number. Everything sent before goes out first. Messages that arrive meanwhile can still be
    /// received. If the connection is closing already, waits for that.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent (§7.4) or `reason` exceeds 123 bytes;
    /// nothing is sent then. That the peer does not answer is no error: see
    /// [`CloseInfo::clean`].
    pub async fn close(
        &mut self,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<CloseInfo> {
        // A message that the `Sink` took goes out first; if it cannot, the connection has ended.
        let _ = self.begun().await;
        self.shared.close(code.try_into().map_err(Into::into), reason).await
    }

    /// Waits until the stream has taken all that was sent.
    ///
    /// Not needed for it to go out.
    ///
    /// # Errors
    ///
    /// The error that ended the connection before.
    pub async fn flush(&mut self) -> Result<()> {
        self.begun().await?;
        self.shared.flush().await
    }

    /// Waits until the connection has ended, without receiving anything.
    ///
    /// Messages that arrive meanwhile are kept, up to
    /// [`read_ahead_size`](WebSocketOptions::read_ahead_size); beyond it the end is not noticed.
    pub async fn closed(&self) -> CloseInfo {
        self.shared.closed().await
    }

    /// How the connection ended; `None` while it has not.
    #[must_use]
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.shared.close_info()
    }

    /// Whether no close frame has gone either way, and the stream has not failed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// Runs a task beside the handler, on the connection's worker. It ends with the connection at the latest: when the
    /// stream is closed, it is dropped where it waits.
    ///
    /// The peer's close frame does not end it, and neither does one of ours: its sends fail from then on. A panic ends
    /// the task alone, and is logged. Without a worker, it runs on the executor of
    /// [`set_spawner`](crate::executor::set_spawner).
    ///
    /// ```
    /// use futures::StreamExt;
    /// use futures::channel::mpsc;
    /// use tidewire::{Message, Result, WebSocket};
    ///
    /// /// Echoes, and passes on the news.
    /// async fn serve(mut ws: WebSocket, mut news: mpsc::Receiver<String>) -> Result<()> {
    ///     let sender = ws.sender();
    ///     ws.spawn(async move {
    ///         while let Some(text) = news.next().await {
    ///             sender.send_text(text).await?;
    ///         }
    ///         Ok::<(), tidewire::Error>(())
    ///     });
    ///     while let Some(message) = ws.recv().await? {
    ///         ws.send(message).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[cfg(feature = "rooms")]
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Spawned<T> {
        Shared::spawn(&self.shared, future)
    }

    /// A handle for other tasks to send with.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.shared))
    }

    /// The identity of this connection, here and in rooms.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.shared.connection_id()
    }

    /// The address of the peer; `None` if the stream is not a socket of our listener.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer_addr()
    }

    /// Counters of all that has passed so far.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let mut stats = self.shared.stats();
        stats.payload_bytes_in += self.received.inflated();
        stats
    }

    /// The subprotocol that was agreed on in the opening handshake (RFC 6455 §1.9); `None` without.
    ///
    /// [`WebSocketOptions::subprotocols`] says which the server speaks.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol()
    }

    /// The compression of messages, as agreed in the opening handshake (RFC 7692); `None` if they
    /// are not.
    ///
    /// [`WebSocketOptions::deflate`] allows it.
    #[must_use]
    pub fn deflate_parameters(&self) -> Option<DeflateParameters> {
        self.shared.deflation().map(|deflation| deflation.parameters())
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("peer_addr", &self.peer_addr())
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// The work of the `Sink` of a connection that is under way.
#[derive(Default)]
pub(super) struct SinkState {
    /// Its place among those that wait.
    pub(super) listener: Listener,
    /// The same among broadcasts that wait, until there is room.
    ticket: Option<SendTicket>,
    /// The message that it took and could not queue at once.
    begun: Option<Box<SendState>>,
    /// How much has to be written until it is flushed, while somebody waits for that.
    flush_mark: Option<u64>,
}

impl futures::Stream for WebSocket {
    type Item = Result<Message>;

    /// The next message, as [`recv`](WebSocket::recv); ends after the first error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let result = ready!(self.poll_recv(cx));
        self.is_over = !matches!(result, Ok(Some(_)));
        Poll::Ready(result.transpose())
    }
}

impl FusedStream for WebSocket {
    /// Whether the stream has returned its last item, or `None`.
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl<M: Into<Message>> Sink<M> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let (shared, SinkState { listener, ticket, .. }) = self.sink();
        let outcome = ready!(shared.poll_room(cx, listener, ticket));
        // A broadcast before the message is taken goes before it.
        *ticket = None;
        Poll::Ready(outcome)
    }

    fn start_send(self: Pin<&mut Self>, message: M) -> Result<()> {
        let (shared, sink) = self.get_mut().sink();
        // The mark of an earlier flush does not cover this message: the next flush takes a new one.
        sink.flush_mark = None;
        let begun = shared.start_send(message.into());
        match begun.as_deref() {
            // The flush writes it.
            None | Some(SendState::Writing(..)) => {}
            Some(SendState::Failed(error)) => return Err(error.clone()),
            // A long message is compressed step by step, or a broadcast took the room meanwhile.
            Some(_) => sink.begun = begun,
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let (shared, SinkState { listener, flush_mark, .. }) = self.sink();
        shared.poll_flush(cx, listener, flush_mark)
    }

    /// Closes the connection with 1000, as [`close`](WebSocket::close).
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_begun(cx))?;
        let (shared, SinkState { listener, .. }) = self.sink();
        shared.poll_closed(cx, listener)
    }
}

/// The future of a message that is sent directly.
#[must_use = "without `.await` nothing waits for room, and errors are lost"]
pub(super) enum Sending<'a> {
    Direct(SendFuture<'a>),
    /// The message waits for one of the `Sink`, which is compressed or has no room. Boxed, so that the rest
    /// fits two registers.
    Behind(Box<Behind<'a>>),
}

pub(super) struct Behind<'a> {
    ws: &'a mut WebSocket,
    /// `None` once it is on its way.
    outgoing: Option<Outgoing>,
}

enum Outgoing {
    Message(Message),
    Frame(Frame),
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
        if let Some(outgoing) = self.outgoing.take() {
            let (shared, sink) = self.ws.sink();
            sink.begun = match outgoing {
                Outgoing::Message(message) => shared.start_send(message),
                Outgoing::Frame(frame) => shared.start_send_frame(frame),
            };
        }
        self.ws.poll_begun(cx)
    }
}

impl WebSocket {
    fn sink(&mut self) -> (&Shared, &mut SinkState) {
        (&self.shared, self.sink.get_or_insert_default())
    }

    /// Sends a message behind the one that the `Sink` took last.
    #[inline]
    pub(super) fn send_in_order(&mut self, message: Message) -> Sending<'_> {
        if self.has_begun() {
            return self.send_behind(Outgoing::Message(message));
        }
        Sending::Direct(self.shared.send(message, false))
    }

    /// Sends a frame behind the message that the `Sink` took last.
    fn send_frame_in_order(&mut self, frame: Frame) -> Sending<'_> {
        if self.has_begun() {
            return self.send_behind(Outgoing::Frame(frame));
        }
        Sending::Direct(self.shared.send_frame(frame))
    }

    fn send_behind(&mut self, outgoing: Outgoing) -> Sending<'_> {
        Sending::Behind(Box::new(Behind { ws: self, outgoing: Some(outgoing) }))
    }

    /// Whether the message that the `Sink` took last is not queued yet.
    #[inline]
    fn has_begun(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.begun.is_some())
    }

    /// Waits until the message that the `Sink` took last is queued.
    pub(super) async fn begun(&mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_begun(cx)).await
    }

    /// Waits until the message that the `Sink` took last is queued: a long one is compressed first.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(sink) = &mut self.sink else { return Poll::Ready(Ok(())) };
        let Some(begun) = &mut sink.begun else { return Poll::Ready(Ok(())) };
        let result = ready!(begun.poll(&self.shared, cx));
        sink.begun = None;
        Poll::Ready(result)
    }
}

impl WebSocket {
    /// Starts to ping the peer (RFC 6455 §5.5.2), or stops it with `None`.
    ///
    /// A server pings without being asked to: see
    /// [`WebSocketOptions::heartbeat`](crate::WebSocketOptions::heartbeat).
    ///
    /// The pings go out from the connection's own task, also while the handler does something else, and
    /// [`rtt`](Self::rtt) is measured by them; without a task
    /// ([`from_stream`](Self::from_stream)), while a caller waits. A heartbeat replaces
    /// the one before.
    ///
    /// A peer that shows no sign of life for [`timeout`](HeartbeatOptions::timeout) after a ping fails the
    /// connection: [`recv`](Self::recv) returns
    /// [`Error::Timeout`](crate::Error::Timeout) with [`TimeoutKind::Pong`](crate::websocket::TimeoutKind::Pong), and
    /// the stream is dropped at once. A close frame with 1008 goes ahead of that if nothing else
    /// waits to be written; its answer is not waited for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidewire::websocket::HeartbeatOptions;
    /// use tidewire::{Result, WebSocket};
    ///
    /// async fn echo(mut ws: WebSocket) -> Result<()> {
    ///     ws.set_heartbeat(HeartbeatOptions::default().interval(Duration::from_secs(5)));
    ///     while let Some(message) = ws.recv().await? {
    ///         ws.send(message).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn set_heartbeat(&self, options: impl Into<Option<HeartbeatOptions>>) {
        let options = options.into();
        self.shared.reschedule(|connection| connection.set_heartbeat(options));
    }

    /// How long the latest answered ping of the heartbeat was under way, from the queue to its pong;
    /// `None` before.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// Closes the connection at a point in time, with a code of the caller's choice: when a token
    /// expires, say. `at` is a time of the system's clock.
    ///
    /// It is closed as by [`close`](Self::close), and [`recv`](Self::recv) returns `None` then. A
    /// later call replaces an earlier one, [`cancel_expiry`](Self::cancel_expiry) takes it back, and
    /// once the connection closes it has no effect. A time that has passed closes the connection as
    /// soon as its handler waits.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent (§7.4) or
    /// `reason` exceeds 123 bytes; what was set before remains.
    pub fn expire_at(
        &self,
        at: Instant,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<()> {
        self.shared.expire_at(at, code.try_into().map_err(Into::into), reason)
    }

    /// Takes [`expire_at`](Self::expire_at) back, whichever handle has set it.
    pub fn cancel_expiry(&self) {
        self.shared.cancel_expiry();
    }
}

impl Shared {
    /// Runs a task where the connection lives, until its stream is dropped.
    #[cfg(feature = "rooms")]
    pub(crate) fn spawn<T: Send + 'static>(
        this: &Arc<Self>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Spawned<T> {
        let shared = Arc::clone(this);
        let (task, spawned) = runtime::until(future, async move { shared.gone().await });
        this.home.spawn(task);
        spawned
    }

    pub(crate) async fn run_heartbeat(self: Arc<Self>, options: HeartbeatOptions) -> Result<()> {
        let number = self.reschedule(|connection| connection.set_heartbeat(Some(options)));
        let _stop = StopHeartbeat { shared: &self, number };
        let mut listener = None;
        std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |connection| connection.outcome())
        })
        .await
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.stats().rtt
    }

    pub(crate) fn expire_at(
        &self,
        at: Instant,
        code: Result<CloseCode, ProtocolError>,
        reason: &str,
    ) -> Result<()> {
        let frame = close_frame(code, reason)?;
        self.reschedule(|connection| {
            let at = connection.settings.clock.at_system(at);
            connection.set_expiry(Some((at, frame)));
        });
        Ok(())
    }

    pub(crate) fn cancel_expiry(&self) {
        self.with(|connection, _| connection.set_expiry(None));
    }
}

/// Ends a heartbeat with the future that runs it.
struct StopHeartbeat<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for StopHeartbeat<'_> {
    fn drop(&mut self) {
        self.shared.with(|connection, _| connection.stop_heartbeat(self.number));
    }
}
