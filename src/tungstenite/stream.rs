//! The stream below a connection of async-tungstenite that can become one of ours.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

use super::frame_tracker::FrameTracker;
use crate::stream::Stream;

/// The stream of a [`WebSocketStream`](async_tungstenite::WebSocketStream) that came from
/// [`WebSocket::into_tungstenite`](crate::WebSocket::into_tungstenite), or that
/// [`WebSocket::from_tungstenite`](crate::WebSocket::from_tungstenite) can take over.
///
/// Bytes pass unchanged. The stream only records where frames begin and end, which tungstenite does not tell.
#[derive(Debug)]
pub struct BridgeStream {
    pub(super) stream: Stream,
    pub(super) read: FrameTracker,
    pub(super) written: FrameTracker,
    /// Whether reads stop at the end of the message under way.
    pub(super) is_stopping: bool,
    pub(super) peer_addr: Option<SocketAddr>,
    pub(super) subprotocol: Option<Box<str>>,
}

impl BridgeStream {
    /// Wraps a stream from which only whole messages were read, and to which only whole messages were written.
    ///
    /// The opening handshake may still follow, for instance that of
    /// [`client_async`](async_tungstenite::client_async).
    #[must_use]
    pub fn new<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::from_stream(Stream::boxed(stream))
    }

    pub(super) fn from_stream(stream: Stream) -> Self {
        Self {
            stream,
            read: FrameTracker::START,
            written: FrameTracker::START,
            is_stopping: false,
            peer_addr: None,
            subprotocol: None,
        }
    }

    /// The address of the peer; `None` if the stream is not a socket of our listener.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    /// The agreed subprotocol, if an opening handshake of this crate agreed on one.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }
}

impl AsyncRead for BridgeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, read, is_stopping, .. } = self.get_mut();
        let mut max = buf.len();
        if *is_stopping {
            if read.is_between_messages() {
                // No wake-up is needed: the caller that stops reads does not wait for them.
                return Poll::Pending;
            }
            max = max.min(read.within_frame());
        }
        let buf = buf.get_mut(..max).unwrap_or_default();
        let len = ready!(Pin::new(stream).poll_read(cx, buf))?;
        read.pass(buf.get(..len).unwrap_or_default());
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for BridgeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, written, .. } = self.get_mut();
        let len = ready!(Pin::new(stream).poll_write(cx, buf))?;
        written.pass(buf.get(..len).unwrap_or_default());
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
