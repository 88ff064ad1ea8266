//! TLS over a [`Stream`], for both sides ([RFC 8446], [RFC 5246]).
//!
//! rustls turns plaintext into records and back. This file reads and writes the records, and ends the stream.
//!
//! [RFC 5246]: https://www.rfc-editor.org/rfc/rfc5246
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures::io::{AsyncRead, AsyncWrite};
use rustls::Connection;
#[cfg(feature = "client")]
use rustls::pki_types::ServerName;
#[cfg(feature = "client")]
use rustls::{ClientConfig, ClientConnection};

use super::Stream;
use crate::foreign::attempt;

/// An encrypted stream.
///
/// When it is dropped, it sends `close_notify`, unless it has sent that before, or the stream below does not
/// take it at once. So every end has a `close_notify` (RFC 8446 §6.1), also after a deadline, a handshake that
/// failed, or a cancelled task. An orderly end is [`poll_close`](AsyncWrite::poll_close), which waits.
pub(crate) struct TlsStream {
    session: Connection,
    /// Whether one side has sent an alert about an error to the other. Later bytes are ignored.
    has_failed: bool,
    /// Encrypted bytes read from the stream below.
    bytes_in: u64,
    stream: Stream,
}

impl TlsStream {
    /// Creates the server's end over `stream`. Its first byte, `first`, has been read already.
    #[cfg(feature = "server")]
    pub(crate) fn server(
        config: Arc<rustls::ServerConfig>,
        first: [u8; 1],
        stream: Stream,
    ) -> io::Result<Self> {
        let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
        let mut this = Self::new(session, stream);
        this.session.read_tls(&mut first.as_slice())?;
        Ok(this)
    }

    /// Creates the client's end over `stream`, which leads to the server of this name.
    #[cfg(feature = "client")]
    pub(crate) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: Stream,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self::new(session, stream))
    }

    fn new(session: impl Into<Connection>, stream: Stream) -> Self {
        Self { session: session.into(), has_failed: false, bytes_in: 0, stream }
    }

    /// Makes the handshake.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData) if a side refuses the handshake. It has sent an alert to the
    /// other side. Any other error means that the stream has failed.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// The peer's certificates, its own first.
    #[cfg(feature = "server")]
    pub(super) fn peer_certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.session.peer_certificates().unwrap_or_default().iter().map(AsRef::as_ref)
    }

    /// Bytes read from the stream below. They are a sign of life even before their record is whole.
    pub(super) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_records(cx))?;
            if !self.session.is_handshaking() {
                return Pin::new(&mut self.stream).poll_flush(cx);
            }
            if ready!(self.poll_read_records(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once, and decrypts all whole records; 0 at the end of the stream.
    fn poll_read_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = match self.session.read_tls(&mut Blocking { stream: &mut self.stream, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            result => result?,
        };
        self.bytes_in = self.bytes_in.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        if let Err(error) = self.session.process_new_packets() {
            self.has_failed = true;
            // Sends the alert about the error. Whether that succeeds does not matter.
            let _ = self.poll_write_records(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(len))
    }

    /// Writes all records that are ready.
    fn poll_write_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Blocking { stream: &mut self.stream, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts bytes with `encrypt`, and writes the records. rustls buffers records that the stream below does
    /// not take yet, so this is pending only if that buffer is full.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        mut encrypt: impl FnMut(&mut Connection) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let len = encrypt(&mut self.session)?;
            let written = self.poll_write_records(cx)?;
            if len > 0 {
                return Poll::Ready(Ok(len));
            }
            ready!(written);
        }
    }

    /// Waits for the end of the stream below, after a failure. Bytes that still arrive are dropped: unread, they
    /// would turn our alert into a reset.
    fn poll_skip(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_read(cx, scratch)) {
            Ok(len) if len > 0 => {
                // Other tasks have a turn between two reads, since the peer may send without end.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            end => Poll::Ready(end),
        }
    }

    /// Queues `close_notify` after all written bytes, once. After an error, the alert is the last message
    /// (§6.2).
    fn end(&mut self) {
        if !self.has_failed {
            self.session.send_close_notify();
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_failed {
            return this.poll_skip(cx, buf);
        }
        loop {
            // 0 after `close_notify`; an error after the end of the stream without one.
            match this.session.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(this.poll_read_records(cx))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_encrypt(cx, |session| session.writer().write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_encrypt(cx, |session| session.writer().write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_records(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.end();
        ready!(this.poll_write_records(cx))?;
        Pin::new(&mut this.stream).poll_close(cx)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.end();
        // The stream below may be the application's, and ends now in any case: also if it panics.
        let _ = attempt(|| {
            let cx = &mut Context::from_waker(Waker::noop());
            let _ = self.poll_write_records(cx);
            // A socket that is closed with unread bytes is reset, and the peer may lose the alert. So bytes that are
            // here already are read, within a bound.
            let mut unread = [0; 4096];
            for _ in 0..4 {
                match Pin::new(&mut self.stream).poll_read(cx, &mut unread) {
                    Poll::Ready(Ok(len)) if len > 0 => {}
                    _ => break,
                }
            }
        });
    }
}

/// Shows no keys.
impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The stream below in the form that rustls needs: pending becomes `WouldBlock`.
struct Blocking<'a, 'b, 'c> {
    stream: &'a mut Stream,
    cx: &'b mut Context<'c>,
}

impl Blocking<'_, '_, '_> {
    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        match poll(Pin::new(self.stream), self.cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Read for Blocking<'_, '_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.poll(|stream, cx| stream.poll_read(cx, buf))
    }
}

impl Write for Blocking<'_, '_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.poll(|stream, cx| stream.poll_write(cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.poll(|stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.poll(AsyncWrite::poll_flush)
    }
}
