//! The content of a long file, read piece by piece while it is sent.

use std::fs::File;
use std::io;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncBufRead, AsyncRead};

use super::disk::PIECE;
use crate::runtime::{Unblocked, unblock};

/// A part of a file, from where it is read next.
///
/// The next piece is read once the last one is consumed, so a client that does not read costs one piece. Dropped, it
/// closes the file, at the latest when the read under way returns.
#[derive(Debug)]
pub(super) struct FileBody {
    state: State,
    /// Bytes to come after the current piece.
    left: u64,
}

#[derive(Debug)]
enum State {
    Idle(Opened),
    Reading(Unblocked<(Opened, io::Result<usize>)>),
    /// It has failed.
    Ended,
}

#[derive(Debug)]
struct Opened {
    file: File,
    buf: Vec<u8>,
    /// The bytes of `buf` that are consumed.
    consumed: usize,
    /// The bytes of `buf` that hold the current piece.
    filled: usize,
}

impl FileBody {
    /// The next `len` bytes of the file.
    pub(super) fn new(file: File, len: u64) -> Self {
        let opened = Opened { file, buf: Vec::new(), consumed: 0, filled: 0 };
        Self { state: State::Idle(opened), left: len }
    }

    /// Waits until the piece has bytes, or the end is reached.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if let State::Idle(opened) = &self.state {
            if opened.piece().is_empty() && self.left > 0 {
                let State::Idle(opened) = std::mem::replace(&mut self.state, State::Ended) else {
                    return Poll::Ready(Ok(&[]));
                };
                let len = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
                self.state = State::Reading(unblock(move || opened.read(len)));
            }
        }
        if let State::Reading(reading) = &mut self.state {
            let (opened, outcome) = ready!(Pin::new(reading).poll(cx));
            self.state = State::Ended;
            match outcome? {
                0 => return Poll::Ready(Err(shorter())),
                len => self.left = self.left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX)),
            }
            self.state = State::Idle(opened);
        }
        match &self.state {
            State::Idle(opened) => Poll::Ready(Ok(opened.piece())),
            State::Reading(_) | State::Ended => Poll::Ready(Err(shorter())),
        }
    }
}

impl Opened {
    /// Reads the next piece, of `len` bytes at most.
    fn read(mut self, len: usize) -> (Self, io::Result<usize>) {
        self.buf.resize(len, 0);
        let outcome = loop {
            match self.file.read(&mut self.buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        (self.consumed, self.filled) = (0, *outcome.as_ref().unwrap_or(&0));
        (self, outcome)
    }

    fn piece(&self) -> &[u8] {
        self.buf.get(self.consumed..self.filled).unwrap_or_default()
    }
}

impl AsyncBufRead for FileBody {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_piece(cx)
    }

    fn consume(self: Pin<&mut Self>, len: usize) {
        if let State::Idle(opened) = &mut self.get_mut().state {
            opened.consumed = opened.consumed.saturating_add(len).min(opened.filled);
        }
    }
}

impl AsyncRead for FileBody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let piece = ready!(self.poll_piece(cx))?;
        let len = piece.len().min(buf.len());
        if let (Some(room), Some(piece)) = (buf.get_mut(..len), piece.get(..len)) {
            room.copy_from_slice(piece);
        }
        self.consume(len);
        Poll::Ready(Ok(len))
    }
}

/// The response cannot be completed: its length is sent already.
fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter while it was sent")
}
