//! A client that controls exactly the bytes that it sends, and sees exactly those that arrive.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frame::RawFrame;
use super::hex::{bytes_of, shown};
use super::line::Line;
use super::patience::{Caller, Patience};
use super::response::TestResponse;
use crate::error::{Error, Result};
use crate::proto::{CloseFrame, Frame, FrameHeader, OpCode, ProtocolError};
use crate::stream::Stream;

/// Largest number of bytes read at once.
const PIECE: usize = 4 << 10;

/// A client that sends and receives bytes and frames, by the rules or against them.
///
/// [`TestClient::peer`](super::TestClient::peer) returns a peer after the opening handshake, and
/// [`TestClient::open`](super::TestClient::open) one that has sent nothing. A peer does nothing by itself: it
/// answers neither pings nor close frames. When it is dropped, it ends the stream without a close frame.
///
/// Each wait ends with an error after the [patience](super::TestClient::patience) of its client, 5 s by default.
///
/// A peer is a [`futures::io`] stream, too, so that a client of another crate can go on with it.
///
/// # Cancel safety
///
/// Receiving is safe: bytes that have arrived stay in the peer, and the next call goes on from there. If a call
/// that sends is dropped, a part of the bytes may have been sent.
pub struct Peer {
    stream: Stream,
    /// Bytes that have arrived, and were not asked for yet.
    unread: BytesMut,
    /// Whether RSV1 may be set.
    deflates: bool,
    response: Option<TestResponse>,
    line: Line,
    patience: Patience,
}

impl Peer {
    /// Creates a peer that has sent nothing.
    pub(super) fn new(stream: Stream, line: Line, patience: Patience) -> Self {
        Self { stream, unread: BytesMut::new(), deflates: false, response: None, line, patience }
    }

    /// Turns this into a peer after an opening handshake. `unread` are the bytes behind the response.
    pub(super) fn upgraded(mut self, unread: &Bytes, response: TestResponse) -> Self {
        self.unread.extend_from_slice(unread);
        self.deflates = response.header("sec-websocket-extensions").is_some();
        self.response = Some(response);
        self
    }

    /// Sends bytes as they are: a piece of a frame, several frames, a request.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the stream fails, or does not take the bytes in time.
    pub async fn send_bytes(&mut self, bytes: impl AsRef<[u8]> + Send) -> Result<()> {
        let Self { stream, patience, .. } = self;
        let sending = async { Ok(stream.write_all(bytes.as_ref()).await?) };
        patience.wait("the server did not read", sending).await
    }

    /// Sends bytes that are given in hexadecimal digits, with blanks allowed between bytes.
    ///
    /// # Errors
    ///
    /// Those of [`send_bytes`](Self::send_bytes), and [`Error::Io`] if the digits are malformed.
    pub async fn send_hex(&mut self, digits: &str) -> Result<()> {
        let bytes = bytes_of(digits)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "these are not bytes in hex"))?;
        self.send_bytes(bytes).await
    }

    /// Sends one frame: a [`RawFrame`], or a [`Frame`], which is masked first.
    ///
    /// # Errors
    ///
    /// Those of [`send_bytes`](Self::send_bytes).
    pub async fn send_frame(&mut self, frame: impl Into<RawFrame> + Send) -> Result<()> {
        let frame: RawFrame = frame.into();
        self.send_bytes(frame.encode()).await
    }

    /// Receives the next frame, which may be a control frame or a fragment.
    ///
    /// If permessage-deflate was agreed on, a payload is returned as it arrived: compressed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no frame comes in time, or the stream ends before.
    /// [`Error::Protocol`] if its header breaks a rule of RFC 6455 §5.1, §5.2 or §5.5.
    pub async fn recv_frame(&mut self) -> Result<Frame> {
        let patience = self.patience;
        let receiving = async {
            loop {
                if let Some(frame) = self.take_frame().map_err(Error::Protocol)? {
                    return Ok(frame);
                }
                self.read_more().await?;
            }
        };
        patience.wait("no frame came", receiving).await
    }

    /// Receives all bytes until the server ends the stream. Then the peer ends it, too.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the stream fails, or does not end in time.
    pub async fn rest(&mut self) -> Result<Vec<u8>> {
        let patience = self.patience;
        let reading = async {
            loop {
                match self.read_more().await {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        // A server that closes waits for the peer's end of the stream.
                        self.stream.close().await?;
                        return Ok(self.unread.split().to_vec());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        patience.wait("the server did not end the stream", reading).await
    }

    /// Checks that the next bytes are `expected`.
    ///
    /// # Panics
    ///
    /// If other bytes come, or not enough of them in time.
    #[track_caller]
    pub fn expect_bytes(
        &mut self,
        expected: impl AsRef<[u8]> + Send,
    ) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            let expected = expected.as_ref();
            let outcome = self.fill(expected.len()).await;
            let came = self.unread.split_to(expected.len().min(self.unread.len()));
            if came != expected {
                let why = outcome.err().map_or_else(String::new, |error| format!(": {error:#}"));
                caller.fail(format!("{} came instead of {}{why}", shown(&came), shown(expected)));
            }
        }
    }

    /// Checks that the next bytes are those given in hexadecimal digits, with blanks allowed between bytes.
    ///
    /// # Panics
    ///
    /// If other bytes come, or not enough of them in time, or if the digits are malformed.
    #[track_caller]
    pub fn expect_hex(&mut self, digits: &str) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        let expected = bytes_of(digits);
        self.expect_bytes(expected.unwrap_or_else(|| caller.fail("these are not bytes in hex")))
    }

    /// Checks that the next frame is an unfragmented text frame with this text.
    ///
    /// # Panics
    ///
    /// If another frame comes, or none in time.
    #[track_caller]
    pub fn expect_text(&mut self, expected: &str) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            let expected = Frame::new(true, OpCode::Text, expected.to_owned());
            match self.recv_frame().await {
                Ok(frame) if frame == expected => {}
                Ok(frame) => caller.fail(format!("{frame:?} came instead of {expected:?}")),
                Err(error) => caller.fail(format!("waiting for {expected:?}: {error:#}")),
            }
        }
    }

    /// Checks that the next frame is a close frame with this code, and returns its reason. 1005 stands for a
    /// frame without a code (RFC 6455 §7.1.5).
    ///
    /// A server that begins to close waits for an answer: send [`RawFrame::close`]. A server that fails the
    /// connection ends the stream in any case.
    ///
    /// # Panics
    ///
    /// If another frame comes, or none in time.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> impl Future<Output = String> + Send {
        let caller = Caller::here();
        async move {
            match self.recv_frame().await {
                Ok(frame) => match closing(&frame) {
                    Some((found, reason)) if found == code => reason,
                    Some((found, reason)) => caller.fail(format!(
                        "a close frame with {found} {reason:?} came instead of one with {code}"
                    )),
                    None => caller.fail(format!("{frame:?} came instead of a close with {code}")),
                },
                Err(error) => caller.fail(format!("waiting for a close with {code}: {error:#}")),
            }
        }
    }

    /// Checks that the server ends the stream without another byte. Then the peer ends it, too.
    ///
    /// # Panics
    ///
    /// If a byte comes, the stream does not end in time, or it is reset.
    #[track_caller]
    pub fn end_of_stream(&mut self) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            match self.rest().await {
                Ok(rest) if rest.is_empty() => {}
                Ok(rest) => caller.fail(format!("{} came before the end", shown(&rest))),
                Err(error) => caller.fail(format!("waiting for the end of the stream: {error:#}")),
            }
        }
    }

    /// The response to the opening handshake; `None` if there was no handshake.
    #[must_use]
    pub fn response(&self) -> Option<&TestResponse> {
        self.response.as_ref()
    }

    /// The line of the connection, by which a test can stall, cut or end it.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Reads until `len` bytes are there.
    async fn fill(&mut self, len: usize) -> Result<()> {
        let patience = self.patience;
        let reading = async {
            while self.unread.len() < len {
                self.read_more().await?;
            }
            Ok(())
        };
        patience.wait("no more came", reading).await
    }

    /// Waits for more bytes. The end of the stream is an error.
    async fn read_more(&mut self) -> io::Result<()> {
        let Self { stream, unread, .. } = self;
        let len = unread.len();
        let end = len.saturating_add(PIECE);
        let read = poll_fn(|cx| {
            unread.resize(end, 0);
            let polled =
                Pin::new(&mut *stream).poll_read(cx, unread.get_mut(len..).unwrap_or_default());
            let read = if let Poll::Ready(Ok(read)) = polled { read } else { 0 };
            unread.truncate(len.saturating_add(read));
            polled
        });
        if read.await? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Takes a frame off the front of the bytes that have arrived; `None` if it is not whole.
    fn take_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some((header, start)) = FrameHeader::decode(&self.unread, self.deflates)? else {
            return Ok(None);
        };
        if header.mask.is_some() {
            return Err(ProtocolError::MaskUnexpected);
        }
        let end = usize::try_from(header.len).ok().and_then(|len| start.checked_add(len));
        let Some(end) = end.filter(|end| *end <= self.unread.len()) else { return Ok(None) };
        let mut payload = self.unread.split_to(end).freeze();
        payload.advance(start);
        let frame = Frame::new(header.fin, header.opcode, payload);
        Ok(Some(if header.rsv1 { frame.into_deflated() } else { frame }))
    }
}

/// Code and reason of a close frame; `None` if it is malformed or another frame.
fn closing(frame: &Frame) -> Option<(u16, String)> {
    if frame.opcode() != OpCode::Close {
        return None;
    }
    let close = CloseFrame::decode(frame.payload()).ok()?;
    Some(
        close.map_or((1005, String::new()), |close| {
            (close.code().into(), close.reason().to_owned())
        }),
    )
}

impl AsyncRead for Peer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let len = buf.len().min(this.unread.len());
        for (slot, byte) in buf.iter_mut().zip(this.unread.split_to(len)) {
            *slot = byte;
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Ends the direction to the server.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("unread", &shown(&self.unread))
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}
