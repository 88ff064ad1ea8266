//! The byte stream below a connection, whatever it is made of.
//!
//! Everything above reads and writes through [`Stream`], so that a socket keeps its fast path and
//! any other `futures::io` stream works all the same.

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

/// Any stream that is not one of ours: a pipe in a test, a tunnel, tide's upgraded connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A byte stream in both directions.
pub(crate) enum Stream {
    /// A socket of our own listener.
    #[cfg_attr(
        not(any(feature = "server", feature = "client")),
        expect(dead_code, reason = "listener and client make them")
    )]
    Tcp(TcpStream),
    /// One that has a name in the file system. Boxed, or the others would grow by a tag.
    #[cfg(unix)]
    #[cfg_attr(
        not(any(feature = "server", feature = "client")),
        expect(dead_code, reason = "listener and client make them")
    )]
    Unix(Box<UnixStream>),
    /// Either of them, encrypted; for a client's way through a proxy, twice. Boxed, so that a plain one does
    /// not hold room for it.
    #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
    Tls(Box<TlsStream>),
    /// Whatever the caller brought.
    Boxed(Box<dyn Transport>),
}

impl Stream {
    /// Wraps a stream of the caller.
    pub(crate) fn boxed(stream: impl Transport + 'static) -> Self {
        Self::Boxed(Box::new(stream))
    }

    /// Reads what the peer still sends, and drops it: until it ends its direction, or has sent 16 MiB
    /// more. How long that may take is for the caller to say.
    ///
    /// Closed with bytes unread, a socket sends a reset, and the peer might never see our last answer. So
    /// the limit is above what two kernels hold; a peer that does not stop by then gets the reset.
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
            // A peer that always has more would keep the thread, and the clock from being looked at.
            yield_now().await;
        }
    }

    /// Ends the stream without waiting, before it is dropped.
    ///
    /// A socket is ended by being dropped, and our TLS says `close_notify` then; a stream of the caller has
    /// [`poll_close`](AsyncWrite::poll_close) for what it has to say, of which it does as much as it can at once.
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

    /// What the TLS handshake has shown; `None` without TLS.
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

/// What is known of the peer of an encrypted connection.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Security {
    /// Its certificates in DER, its own first; none if it was not asked or showed none.
    pub(crate) peer_certificates: Vec<Vec<u8>>,
}

/// Calls a method of whichever stream it is.
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
    /// Keeps `held` for as long as the socket is open.
    pub(crate) fn keep(&mut self, held: Held) {
        match self {
            Self::Tcp(socket) => socket.keep(held),
            #[cfg(unix)]
            Self::Unix(socket) => socket.keep(held),
            // Only a socket of a listener is counted, and before anything is made of it.
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

    /// Ends our direction: a FIN on a socket, after a `close_notify` on an encrypted one, whatever
    /// `poll_close` means on other streams.
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
    fn a_plain_socket_does_not_grow_by_what_other_streams_need() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }

    #[cfg(feature = "accept")]
    mod draining {
        use std::pin::pin;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        use std::task::Waker;

        use super::*;

        /// A peer that never stops sending; counts the bytes that are read.
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
