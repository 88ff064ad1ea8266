//! Streamed bodies: of requests, from hyper to tide, and of responses, from tide to hyper.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::io::{AsyncBufRead, AsyncRead};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tide::http::Body;

use super::exchange::{Answering, HttpProgress, Receipt};
use crate::context::{BodyLimits, BodyTooLarge};
use crate::foreign::{Contained, PanicText};
use crate::reject::tell_body;
use crate::runtime::Timer;

/// Largest piece of a response read at once, in bytes.
const PIECE: usize = 16 * 1024;

/// The body of a request, in the form that `http_types` reads.
///
/// Its pieces are hyper's own read buffers. The next piece is read when the last one is consumed, so the
/// client waits for a handler that does not read.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    piece: Bytes,
    timeout: Option<Duration>,
    stall: Option<Timer>,
    limits: BodyLimits,
    /// Bytes received so far.
    len: u64,
    /// `None` once it has been told the outcome of the body.
    exchange: Option<Arc<HttpProgress>>,
}

impl RequestBody {
    /// Reads `incoming`. Reading fails if no byte comes for `timeout`, or if the body exceeds `limits`.
    pub(super) fn new(
        incoming: Incoming,
        timeout: Option<Duration>,
        limits: BodyLimits,
        exchange: Arc<HttpProgress>,
    ) -> Self {
        let (piece, exchange) = (Bytes::new(), Some(exchange));
        Self { incoming, piece, timeout, stall: None, limits, len: 0, exchange }
    }

    /// Waits until `piece` holds bytes, or the body has ended.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            // A body that announces too many bytes is refused before a byte of it is read.
            self.check_size()?;
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                return self.poll_stalled(cx);
            };
            self.stall = None;
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        self.len = self.len.saturating_add(size(piece.len()));
                        self.check_size()?;
                        self.piece = piece;
                    }
                    // Trailers. They are dropped, since http_types has no place for them. For hyper they
                    // end with CR LF CR LF. A proxy that takes a bare LF for the end of a line, as it may
                    // (RFC 9112 §2.2), sees an earlier end, and requests in bytes that hyper has skipped.
                    Err(_) => self.settle(Receipt::Doubtful),
                },
                Some(Err(error)) => {
                    self.fail();
                    self.settle(Receipt::Doubtful);
                    return Poll::Ready(Err(io_error(error)));
                }
                None => {
                    self.settle(Receipt::Complete);
                    break;
                }
            }
        }
        if self.incoming.is_end_stream() {
            // All announced bytes are here. The reader need not read again to find the end.
            self.settle(Receipt::Complete);
        }
        Poll::Ready(Ok(()))
    }

    /// Fails if the received and the announced bytes together exceed the limit.
    fn check_size(&mut self) -> io::Result<()> {
        let announced = self.incoming.size_hint().exact().unwrap_or_default();
        let max = self.limits.max_size();
        if self.len.saturating_add(announced) <= size(max) {
            return Ok(());
        }
        self.fail();
        self.settle(Receipt::TooLarge(max));
        Err(BodyTooLarge { max }.into())
    }

    /// Records that the client is the reason for an error.
    fn fail(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.set_body_failed();
        }
    }

    /// Records the outcome of the body, once.
    fn settle(&mut self, receipt: Receipt) {
        if let Some(exchange) = self.exchange.take() {
            exchange.set_receipt(receipt);
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(timeout) = self.timeout else { return Poll::Pending };
        let clock = &self.limits.clock;
        let stall = self.stall.get_or_insert_with(|| clock.timer(clock.after(timeout)));
        ready!(Pin::new(stall).poll(cx));
        self.fail();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncBufRead for RequestBody {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_piece(cx))?;
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(self: Pin<&mut Self>, len: usize) {
        let this = self.get_mut();
        drop(this.piece.split_to(len.min(this.piece.len())));
    }
}

impl AsyncRead for RequestBody {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_piece(cx))?;
        let piece = this.piece.split_to(buf.len().min(this.piece.len()));
        if let Some(room) = buf.get_mut(..piece.len()) {
            room.copy_from_slice(&piece);
        }
        Poll::Ready(Ok(piece.len()))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // The rest of a chunked body may have trailers, which only a reader of it finds.
        let is_sized = self.incoming.size_hint().exact().is_some();
        self.settle(if is_sized { Receipt::Abandoned } else { Receipt::Doubtful });
    }
}

fn panicked() -> io::Error {
    io::Error::other("the body of the response panicked")
}

fn size(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Makes an I/O error of hyper's error, of the kind that the connection's error had.
pub(crate) fn io_error(error: hyper::Error) -> io::Error {
    let kind = match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => cause.kind(),
        None if error.is_incomplete_message() => io::ErrorKind::UnexpectedEof,
        None => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

/// The body of a response, in the form that hyper writes.
#[derive(Debug)]
pub(super) struct ResponseBody {
    content: Content,
    answering: Option<Answering>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Streamed(Streamed),
    /// The stream of the handler has failed.
    Failed(io::Error),
}

impl ResponseBody {
    /// An empty body.
    pub(super) fn empty() -> Self {
        Self { content: Content::Empty, answering: None }
    }

    /// A body that is known already.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Full(bytes.into()), answering: None }
    }

    /// A body of tide, read while it is written.
    pub(super) fn streamed(body: Body) -> Self {
        let left = body.len().map(size);
        let content = match left {
            Some(0) => Content::Empty,
            _ => Content::Streamed(Streamed {
                body: Contained::new(body),
                left,
                buf: BytesMut::new(),
            }),
        };
        Self { content, answering: None }
    }

    /// Holds `answering` until hyper has the last byte.
    pub(super) fn until_sent(self, mut answering: Answering) -> Self {
        if let Content::Streamed(_) = self.content {
            answering.settle();
        }
        Self { answering: Some(answering), ..self }
    }

    /// Tells that the body cannot be read to its end, unless that is the client's doing.
    fn tell(&self, failure: Failure) -> io::Error {
        let Some(answering) = self.answering.as_ref().filter(|it| !it.has_body_failed()) else {
            return failure.into();
        };
        match failure {
            Failure::Io(error) => {
                tell_body(answering.subject(), Ok(&error));
                error
            }
            Failure::Panicked(panic) => {
                tell_body(answering.subject(), Err(panic));
                panicked()
            }
        }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let access = this.answering.as_mut().and_then(|answering| answering.access.as_mut());
        let piece = match &mut this.content {
            Content::Streamed(streamed) => match ready!(streamed.poll_piece(cx)) {
                Ok(piece) => piece,
                Err(failure) => {
                    let error = this.tell(failure);
                    // On an error, hyper forgets bytes that it has not written. So it gets the error at
                    // the next poll, and the client sees that the response is cut off.
                    this.content = Content::Failed(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            },
            // In pieces, so that those are counted that the client has taken.
            Content::Full(bytes) if access.is_some() && bytes.len() > PIECE => {
                Some(bytes.split_to(PIECE))
            }
            content => match std::mem::replace(content, Content::Empty) {
                Content::Full(bytes) => Some(bytes),
                Content::Failed(error) => return Poll::Ready(Some(Err(error))),
                Content::Empty | Content::Streamed(_) => None,
            },
        };
        if let (Some(access), Some(piece)) = (access, &piece) {
            access.count(piece.len());
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.content {
            Content::Empty => Some(0),
            Content::Full(bytes) => Some(size(bytes.len())),
            Content::Streamed(streamed) => streamed.left,
            Content::Failed(_) => None,
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Why a body ends too early.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Panicked(PanicText),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io(error) => error,
            Failure::Panicked(_) => panicked(),
        }
    }
}

/// A body of tide that is being sent.
#[derive(Debug)]
struct Streamed {
    body: Contained<Body>,
    /// Bytes to come, if the body has a known length.
    left: Option<u64>,
    buf: BytesMut,
}

impl Streamed {
    /// Reads the next piece; `None` at the end.
    ///
    /// It uses `AsyncRead`, because the `AsyncBufRead` of an `http_types` body reads beyond the body's
    /// length.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        // hyper has copied and dropped the last piece, so this reuses its memory.
        self.buf.resize(self.piece_len(), 0);
        let buf = &mut self.buf;
        let read = self.body.with(|body| Pin::new(body).poll_read(cx, buf));
        let len = match read {
            Ok(Poll::Ready(read)) => read.map_err(Failure::Io)?,
            Ok(Poll::Pending) => {
                // An event stream may be silent for hours: do not hold a buffer meanwhile.
                self.buf = BytesMut::new();
                return Poll::Pending;
            }
            Err(panic) => return Poll::Ready(Err(Failure::Panicked(panic))),
        };
        if let Some(left) = &mut self.left {
            if len == 0 && *left > 0 {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(Err(Failure::Io(error)));
            }
            *left = left.saturating_sub(size(len));
        }
        self.buf.truncate(len);
        Poll::Ready(Ok((len > 0).then(|| self.buf.split().freeze())))
    }

    fn piece_len(&self) -> usize {
        let left = self.left.and_then(|left| usize::try_from(left).ok());
        left.map_or(PIECE, |left| left.min(PIECE))
    }
}
