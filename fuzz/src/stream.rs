//! A stream in memory that splits and stalls as an input says.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

/// What one side of a connection reads and writes: a script of bytes, and then their end.
pub struct Script {
    input: Vec<u8>,
    pos: usize,
    splits: Splits,
    written: Written,
    last: Last,
    reader: Option<Waker>,
}

/// What comes after the script.
enum Last {
    End,
    /// Nothing more.
    Silence,
    /// Once this has been written, that.
    Answer {
        to: Vec<u8>,
        with: Vec<u8>,
    },
}

/// What was written to a [`Script`].
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// How many bytes each call moves: one number after the other, and again from the start. Zero is a
/// call that has to wait.
#[derive(Clone, Debug, Default)]
pub struct Splits {
    sizes: Vec<u8>,
    next: usize,
}

/// Calls after which a stream moves all it can: long inputs would take seconds.
const MOST_CALLS: usize = 4096;

impl Splits {
    pub fn new(sizes: &[u8]) -> Self {
        // Waiting for ever is not what is tried.
        let sizes = if sizes.iter().all(|size| *size == 0) { Vec::new() } else { sizes.to_vec() };
        Self { sizes, next: 0 }
    }

    /// `None` if the caller has to wait, and has been woken already.
    pub fn next(&mut self, cx: &Context<'_>) -> Option<usize> {
        if self.sizes.is_empty() || self.next > MOST_CALLS {
            return Some(usize::MAX);
        }
        let size = &self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        match *size {
            0 => {
                cx.waker().wake_by_ref();
                None
            }
            255 => Some(usize::MAX),
            size => Some(usize::from(size)),
        }
    }
}

impl Script {
    pub fn new(input: &[u8], splits: Splits) -> (Self, Written) {
        let written = Written::default();
        let (input, last) = (input.to_vec(), Last::End);
        let script = Self { input, pos: 0, splits, written: written.clone(), last, reader: None };
        (script, written)
    }

    /// The same without an end.
    #[must_use]
    pub fn stay_open(self) -> Self {
        Self { last: Last::Silence, ..self }
    }

    /// The same with a last word, which follows when this has been written.
    #[must_use]
    pub fn answer(self, to: &[u8], with: &[u8]) -> Self {
        Self { last: Last::Answer { to: to.to_vec(), with: with.to_vec() }, ..self }
    }

    /// Is there nothing to read, and not the end?
    fn is_silent(&mut self) -> bool {
        if self.pos < self.input.len() {
            return false;
        }
        match &mut self.last {
            Last::End => false,
            Last::Silence => true,
            Last::Answer { to, with } => {
                let written = self.written.0.lock().unwrap();
                // Pongs may follow it.
                let end = &written[written.len().saturating_sub(4096)..];
                if !end.windows(to.len()).any(|window| window == to) {
                    return true;
                }
                self.input.append(with);
                self.last = Last::End;
                false
            }
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(most) = self.splits.next(cx) else { return Poll::Pending };
        if self.is_silent() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let rest = &self.input[self.pos..];
        let len = most.min(rest.len()).min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.pos += len;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(most) = self.splits.next(cx) else { return Poll::Pending };
        let len = most.min(buf.len());
        self.written.0.lock().unwrap().extend(&buf[..len]);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
