//! A client that says exactly which bytes leave, and sees exactly which arrive.

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

/// Most bytes that are read at once.
const PIECE: usize = 4 << 10;

/// A client that speaks bytes and frames, by the rules or against them.
///
/// [`TestClient::peer`](super::TestClient::peer) has one whose opening handshake is done, and
/// [`TestClient::open`](super::TestClient::open) one that has said nothing. Nothing happens on its own: a
/// ping is not answered, and a close neither. Dropped, it ends the stream without a close frame.
///
/// Each wait ends with an error after the [patience](super::TestClient::patience) of its client, 5 s
/// unless it was told otherwise.
///
/// It is a [`futures::io`] stream as well, so that a client of another crate can go on with it.
pub struct Peer {
    stream: Stream,
    /// What has arrived and was not asked for yet.
    unread: BytesMut,
    /// May RSV1 be set?
    deflates: bool,
    response: Option<TestResponse>,
    line: Line,
    patience: Patience,
}

impl Peer {
    /// A peer that has said nothing.
    pub(super) fn new(stream: Stream, line: Line, patience: Patience) -> Self {
        Self { stream, unread: BytesMut::new(), deflates: false, response: None, line, patience }
    }

    /// The peer after an opening handshake, with what came behind the answer.
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
    /// [`Error::Io`] if the stream takes them not, or not in time.
    ///
    /// # Cancel safety
    ///
    /// A part of the bytes may be sent.
    pub async fn send_bytes(&mut self, bytes: impl AsRef<[u8]> + Send) -> Result<()> {
        let Self { stream, patience, .. } = self;
        let sending = async { Ok(stream.write_all(bytes.as_ref()).await?) };
        patience.wait("the server did not read", sending).await
    }

    /// As [`send_bytes`](Self::send_bytes), from hexadecimal digits, between which there may be blanks.
    ///
    /// # Errors
    ///
    /// As [`send_bytes`](Self::send_bytes), and if it is not hexadecimal.
    ///
    /// # Cancel safety
    ///
    /// As [`send_bytes`](Self::send_bytes).
    pub async fn send_hex(&mut self, digits: &str) -> Result<()> {
        let bytes = bytes_of(digits)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "these are no bytes in hex"))?;
        self.send_bytes(bytes).await
    }

    /// Sends one frame: a [`RawFrame`], or a [`Frame`], which is masked.
    ///
    /// # Errors
    ///
    /// As [`send_bytes`](Self::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// As [`send_bytes`](Self::send_bytes).
    pub async fn send_frame(&mut self, frame: impl Into<RawFrame> + Send) -> Result<()> {
        let frame: RawFrame = frame.into();
        self.send_bytes(frame.encode()).await
    }

    /// Receives the next frame, a control frame or a fragment included.
    ///
    /// Where permessage-deflate was agreed on, a payload is as it came: compressed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if none comes in time, or the stream ends before;
    /// [`Error::Protocol`] if its header breaks a rule of RFC 6455 §5.1, §5.2 or
    /// §5.5.
    ///
    /// # Cancel safety
    ///
    /// Safe.
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

    /// Everything that still comes, until the server ends the stream; then the peer ends it, too.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it does not end in time, or fails.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn rest(&mut self) -> Result<Vec<u8>> {
        let patience = self.patience;
        let reading = async {
            loop {
                match self.read_more().await {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        // A server that closes waits for it.
                        self.stream.close().await?;
                        return Ok(self.unread.split().to_vec());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        patience.wait("the server did not end the stream", reading).await
    }

    /// Waits for as many bytes as are expected, which have to be these.
    ///
    /// # Panics
    ///
    /// If other bytes come, or not enough of them.
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
                let why = outcome.err().map_or_else(String::new, |error| format!(": {error}"));
                caller.fail(format!("{} came instead of {}{why}", shown(&came), shown(expected)));
            }
        }
    }

    /// As [`expect_bytes`](Self::expect_bytes), from hexadecimal digits, between which there may be
    /// blanks.
    ///
    /// # Panics
    ///
    /// As [`expect_bytes`](Self::expect_bytes), and if it is not hexadecimal.
    #[track_caller]
    pub fn expect_hex(&mut self, digits: &str) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        let expected = bytes_of(digits);
        self.expect_bytes(expected.unwrap_or_else(|| caller.fail("these are no bytes in hex")))
    }

    /// The next frame is text, and this one, as a whole.
    ///
    /// # Panics
    ///
    /// If something else comes, or nothing in time.
    #[track_caller]
    pub fn expect_text(&mut self, expected: &str) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            let expected = Frame::new(true, OpCode::Text, expected.to_owned());
            match self.recv_frame().await {
                Ok(frame) if frame == expected => {}
                Ok(frame) => caller.fail(format!("{frame:?} came instead of {expected:?}")),
                Err(error) => caller.fail(format!("waiting for {expected:?}: {error}")),
            }
        }
    }

    /// The next frame is a close frame with this code; returns its reason. 1005 stands for one without
    /// a code (RFC 6455 §7.1.5).
    ///
    /// A server that begins to close waits for an answer, [`RawFrame::close`]; one that fails the
    /// connection ends the stream in any case.
    ///
    /// # Panics
    ///
    /// If something else comes, or nothing in time.
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
                Err(error) => caller.fail(format!("waiting for a close with {code}: {error}")),
            }
        }
    }

    /// The server ends the stream, and nothing comes before; then the peer ends it, too.
    ///
    /// # Panics
    ///
    /// If something comes, or the stream is not ended in time, or it is reset.
    #[track_caller]
    pub fn end_of_stream(&mut self) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            match self.rest().await {
                Ok(rest) if rest.is_empty() => {}
                Ok(rest) => caller.fail(format!("{} came before the end", shown(&rest))),
                Err(error) => caller.fail(format!("waiting for the end of the stream: {error}")),
            }
        }
    }

    /// The answer to the opening handshake; `None` if there was none.
    #[must_use]
    pub fn response(&self) -> Option<&TestResponse> {
        self.response.as_ref()
    }

    /// What the connection goes over: to stall, cut or end it.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Reads until so many bytes are there.
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

    /// Waits for bytes; the end of the stream is an error.
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

    /// Takes a frame off the front of what has arrived; `None` if it is not whole.
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

/// Code and reason of a close frame; `None` if it is none, or malformed.
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
