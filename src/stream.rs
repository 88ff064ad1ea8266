//! The byte stream below a connection.
//!
//! All code above reads and writes through [`Stream`], so that a socket keeps its fast path, and any other
//! `futures::io` stream works, too.

#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
mod tls;

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[cfg(feature = "accept")]
use futures::io::AsyncReadExt;
use futures::io::{AsyncRead, AsyncWrite};

#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
pub(crate) use self::tls::TlsStream;
#[cfg(feature = "server")]
use crate::permits::Held;
use crate::runtime::TcpStream;
#[cfg(unix)]
use crate::runtime::UnixStream;
#[cfg(feature = "accept")]
use crate::runtime::yield_now;

/// Any stream that is not one of our sockets: a pipe in a test, a tunnel, tide's upgraded connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A byte stream in both directions.
pub(crate) enum Stream {
    /// A TCP socket of our listener or our client.
    #[cfg_attr(
        not(any(feature = "server", feature = "client")),
        expect(dead_code, reason = "listener and client make them")
    )]
    Tcp(TcpStream),
    /// A Unix socket. Boxed, since otherwise the other variants would grow by a tag.
    #[cfg(unix)]
    #[cfg_attr(
        not(any(feature = "server", feature = "client")),
        expect(dead_code, reason = "listener and client make them")
    )]
    Unix(Box<UnixStream>),
    /// An encrypted stream over one of the others. Over a client's secure proxy, it is encrypted twice. Boxed,
    /// so that a plain stream holds no memory for it.
    #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
    Tls(Box<TlsStream>),
    /// A stream of the caller.
    Boxed(Box<dyn Transport>),
}

impl Stream {
    /// Wraps a stream of the caller.
    pub(crate) fn boxed(stream: impl Transport + 'static) -> Self {
        Self::Boxed(Box::new(stream))
    }

    /// Reads and drops the bytes that the peer still sends, until it ends its direction, or has sent 16 MiB
    /// more. The caller limits the time.
    ///
    /// A socket that is closed with bytes unread sends a reset, and the peer might not see our last answer. So
    /// the limit is more than the buffers of two kernels hold. A peer that sends even more gets the reset.
    #[cfg(feature = "accept")]
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        const MOST: usize = 16 << 20;
        const READS_PER_TURN: u32 = 16;

        let (mut scratch, mut left) = (vec![0; 4 << 10], MOST);
        loop {
            for _ in 0..READS_PER_TURN {
                let len = self.read(&mut scratch).await?;
                left = left.saturating_sub(len);
                if len == 0 || left == 0 {
                    return Ok(());
                }
            }
            // A peer that always sends more must not keep the thread busy: other tasks and the caller's
            // deadline have their turn.
            yield_now().await;
        }
    }

    /// Ends the stream without waiting, before it is dropped.
    ///
    /// Dropping a socket ends it, and our TLS sends `close_notify` when it is dropped. A stream of the caller is
    /// polled once with [`poll_close`](AsyncWrite::poll_close), so that it can do as much as it can at once.
    pub(crate) fn end(&mut self) {
        if let Self::Boxed(stream) = self {
            let _ = Pin::new(stream).poll_close(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Encrypted bytes read so far; `None` without TLS.
    pub(crate) fn encrypted_bytes_in(&self) -> Option<u64> {
        match self {
            #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
            Self::Tls(tls) => Some(tls.bytes_in()),
            _ => None,
        }
    }

    /// The facts that the TLS handshake has shown; `None` without TLS.
    #[cfg(feature = "server")]
    pub(crate) fn security(&self) -> Option<Security> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                let peer_certificates = tls.peer_certificates().map(<[u8]>::to_vec).collect();
                Some(Security { peer_certificates })
            }
            _ => None,
        }
    }
}

/// The facts about the peer of an encrypted connection.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Security {
    /// The peer's certificates in DER, its own first. Empty if it was not asked or showed none.
    pub(crate) peer_certificates: Vec<Vec<u8>>,
}

/// Calls a method of the stream inside the variant.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $call,
            #[cfg(unix)]
            Self::Unix($stream) => $call,
            #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
            Self::Tls($stream) => $call,
            Self::Boxed($stream) => $call,
        }
    };
}

#[cfg(feature = "server")]
impl Stream {
    /// Holds `held` while the socket is open.
    pub(crate) fn keep(&mut self, held: Held) {
        match self {
            Self::Tcp(socket) => socket.keep(held),
            #[cfg(unix)]
            Self::Unix(socket) => socket.keep(held),
            // Only sockets of a listener are counted, and before they are wrapped.
            _ => drop(held),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    /// Ends our direction: a FIN on a socket, after a `close_notify` if it is encrypted. Other streams have a
    /// `poll_close` of their own.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_close(cx))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => tcp.fmt(f),
            #[cfg(unix)]
            Self::Unix(unix) => unix.fmt(f),
            #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
            Self::Tls(tls) => tls.fmt(f),
            Self::Boxed(_) => f.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_socket_does_not_grow_by_the_needs_of_other_streams() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }

    #[cfg(feature = "accept")]
    mod draining {
        use std::pin::pin;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        use std::task::Waker;

        use super::*;

        /// A peer that never stops sending. It counts the bytes that are read.
        struct Endless(Arc<AtomicUsize>);

        impl AsyncRead for Endless {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.0.fetch_add(buf.len(), Relaxed);
                Poll::Ready(Ok(buf.len()))
            }
        }

        impl AsyncWrite for Endless {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(buf.len()))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }

        #[test]
        fn a_peer_that_sends_without_end_is_read_64_kib_a_turn_and_16_mib_in_all() {
            let read = Arc::default();
            let mut stream = Stream::boxed(Endless(Arc::clone(&read)));
            let mut draining = pin!(stream.drain());
            let mut cx = Context::from_waker(Waker::noop());
            for turn in 1.. {
                let polled = draining.as_mut().poll(&mut cx);
                assert_eq!(read.load(Relaxed), turn * (64 << 10));
                if polled.is_ready() {
                    assert_eq!(turn, 256);
                    break;
                }
            }
        }
    }
}
