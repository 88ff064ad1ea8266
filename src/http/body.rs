//! Bodies, streamed: hyper's to tide, and tide's to hyper.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::io::{AsyncBufRead, AsyncRead};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tide::http::Body;

use super::exchange::{Answering, Exchange};
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
    exchange: Arc<Exchange>,
}

impl RequestBody {
    /// Reads `incoming`; fails when no byte comes for `timeout`.
    pub(super) fn new(
        incoming: Incoming,
        timeout: Option<Duration>,
        exchange: Arc<Exchange>,
    ) -> Self {
        Self { incoming, piece: Bytes::new(), timeout, stall: None, exchange }
    }

    /// Waits until `piece` holds bytes, or the body has ended.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                return self.poll_stalled(cx);
            };
            self.stall = None;
            match frame {
                // Trailers are left out: http_types has no place where they would be looked for.
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => {
                    self.exchange.received();
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(deadline) = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
        else {
            return Poll::Pending;
        };
        let stall = self.stall.get_or_insert_with(|| Timer::at(deadline));
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
        let len = buf.len().min(this.piece.len());
        for (to, from) in buf.iter_mut().zip(this.piece.split_to(len)) {
            *to = from;
        }
        Poll::Ready(Ok(len))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.exchange.received();
    }
}

/// hyper's error with the kind that the connection gave it.
fn io_error(error: hyper::Error) -> io::Error {
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
    /// Read from tide's body. `left` is what the body still has to give, if it told.
    Streamed {
        body: Body,
        left: Option<u64>,
        buf: BytesMut,
    },
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
        let left = body.len().map(|len| u64::try_from(len).unwrap_or(u64::MAX));
        let content = match left {
            Some(0) => Content::Empty,
            _ => Content::Streamed { body, left, buf: BytesMut::new() },
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
            Content::Empty => None,
            Content::Full(bytes) => Some(std::mem::take(bytes)),
            Content::Streamed { body, left, buf } => ready!(poll_piece(body, left, buf, cx))?,
        };
        if piece.is_none() || matches!(this.content, Content::Full(_)) {
            this.content = Content::Empty;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Streamed { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Content::Streamed { left: Some(left), .. } => SizeHint::with_exact(*left),
            Content::Streamed { left: None, .. } => SizeHint::default(),
        }
    }
}

/// Reads the next piece of `body`; `None` at its end.
///
/// Through `AsyncRead`, because the `AsyncBufRead` of an `http_types` body reads past its length.
fn poll_piece(
    body: &mut Body,
    left: &mut Option<u64>,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Bytes>>> {
    let want =
        left.and_then(|left| usize::try_from(left).ok()).map_or(PIECE, |left| left.min(PIECE));
    // hyper has copied the piece before and dropped it, so that this finds the same memory again.
    buf.resize(want, 0);
    let Poll::Ready(read) = Pin::new(body).poll_read(cx, buf) else {
        // An event stream may be silent for hours.
        *buf = BytesMut::new();
        return Poll::Pending;
    };
    let len = read?;
    if let Some(left) = left {
        let read = u64::try_from(len).unwrap_or(u64::MAX);
        *left = left.saturating_sub(read);
        if len == 0 && *left > 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    buf.truncate(len);
    Poll::Ready(Ok((len > 0).then(|| buf.split().freeze())))
}
