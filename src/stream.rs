//! The byte stream below a connection, whatever it is made of.
//!
//! Everything above reads and writes through [`Stream`], so that a socket keeps its fast path and
//! any other `futures::io` stream works all the same.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use crate::runtime::TcpStream;
#[cfg(unix)]
use crate::runtime::UnixStream;

/// Any stream that is not one of ours: a pipe in a test, a tunnel, tide's upgraded connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A byte stream in both directions.
pub(crate) enum Stream {
    /// A socket of our own listener.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the listener makes them"))]
    Tcp(TcpStream),
    /// One that has a name in the file system.
    #[cfg(unix)]
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the listener makes them"))]
    Unix(UnixStream),
    /// Whatever the caller brought.
    Boxed(Box<dyn Transport>),
}

impl Stream {
    /// Wraps a stream of the caller.
    pub(crate) fn boxed(stream: impl Transport + 'static) -> Self {
        Self::Boxed(Box::new(stream))
    }
}

/// Calls a method of whichever stream it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $call,
            #[cfg(unix)]
            Self::Unix($stream) => $call,
            Self::Boxed($stream) => $call,
        }
    };
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

    /// Ends our direction: a FIN on a socket, whatever `poll_close` means on other streams.
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
            Self::Boxed(_) => f.write_str("Stream"),
        }
    }
}
