//! Bodies, streamed: hyper's to tide, and tide's to hyper.

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
use crate::foreign::Contained;
use crate::runtime::Timer;

/// Largest piece of a response read at once, in bytes.
const PIECE: usize = 16 * 1024;

/// The body of a request, as `http_types` reads one.
///
/// Its pieces are hyper's own read buffers, and the next one is asked for when this one is consumed:
/// a handler that does not read makes the client wait.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    piece: Bytes,
    timeout: Option<Duration>,
    stall: Option<Timer>,
    limits: BodyLimits,
    /// Bytes that have come so far.
    len: u64,
    /// Until it knows what has become of the body.
    exchange: Option<Arc<HttpProgress>>,
}

impl RequestBody {
    /// Reads `incoming`; fails when no byte comes for `timeout`, or if it is larger than `limits` allow.
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
            // Before a byte of one that announces too many is asked for.
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
                    // Trailers. They are left out: http_types has no place where they would be looked
                    // for. hyper takes them to end with CR LF CR LF. A proxy that takes a bare LF for
                    // the end of a line, as it may (RFC 9112 §2.2), has seen another end, and requests
                    // that hyper has skipped.
                    Err(_) => self.settle(Receipt::Doubtful),
                },
                Some(Err(error)) => {
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
            // All that was announced. Its reader need not ask for more.
            self.settle(Receipt::Complete);
        }
        Poll::Ready(Ok(()))
    }

    /// Fails if what has come, with what is announced, exceeds the limit.
    fn check_size(&mut self) -> io::Result<()> {
        let announced = self.incoming.size_hint().exact().unwrap_or_default();
        let max = self.limits.max_size();
        if self.len.saturating_add(announced) <= size(max) {
            return Ok(());
        }
        self.settle(Receipt::TooLarge(max));
        Err(BodyTooLarge { max }.into())
    }

    /// Notes what has become of the body, once.
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
        // Whether the rest of a chunked body has trailers is known to those who read it.
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

/// hyper's error with the kind that the connection gave it.
pub(crate) fn io_error(error: hyper::Error) -> io::Error {
    let kind = match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => cause.kind(),
        None if error.is_incomplete_message() => io::ErrorKind::UnexpectedEof,
        None => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

/// The body of a response, as hyper writes one.
#[derive(Debug)]
pub(super) struct ResponseBody {
    content: Content,
    _answering: Option<Answering>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Streamed(Streamed),
    /// What the handler streamed has failed.
    Failed(io::Error),
}

impl ResponseBody {
    /// No body.
    pub(super) fn empty() -> Self {
        Self { content: Content::Empty, _answering: None }
    }

    /// A body that is here already.
    pub(super) fn full(text: String) -> Self {
        Self { content: Content::Full(text.into()), _answering: None }
    }

    /// A body of tide's, read while it is written.
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
        Self { content, _answering: None }
    }

    /// Keeps `answering` until hyper has the last byte.
    pub(super) fn until_sent(self, answering: Answering) -> Self {
        Self { _answering: Some(answering), ..self }
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
        let piece = match &mut this.content {
            Content::Streamed(streamed) => match ready!(streamed.poll_piece(cx)) {
                Ok(piece) => piece,
                Err(error) => {
                    // hyper forgets what it has not written when it hears of an error. So it
                    // hears of it next time, and the client can tell the response is cut off.
                    this.content = Content::Failed(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            },
            content => match std::mem::replace(content, Content::Empty) {
                Content::Full(bytes) => Some(bytes),
                Content::Failed(error) => return Poll::Ready(Some(Err(error))),
                Content::Empty | Content::Streamed(_) => None,
            },
        };
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

/// A body of tide's on its way.
#[derive(Debug)]
struct Streamed {
    body: Contained<Body>,
    /// Bytes to come, if the body told.
    left: Option<u64>,
    buf: BytesMut,
}

impl Streamed {
    /// Reads the next piece; `None` at the end.
    ///
    /// Through `AsyncRead`, because the `AsyncBufRead` of an `http_types` body reads past its
    /// length.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        // hyper has copied the last piece and dropped it, so that this finds its memory again.
        self.buf.resize(self.piece_len(), 0);
        let buf = &mut self.buf;
        let read = self.body.with(|body| Pin::new(body).poll_read(cx, buf));
        let Poll::Ready(read) = read.unwrap_or_else(|| Poll::Ready(Err(panicked()))) else {
            // An event stream may be silent for hours.
            self.buf = BytesMut::new();
            return Poll::Pending;
        };
        let len = read?;
        if let Some(left) = &mut self.left {
            if len == 0 && *left > 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
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
