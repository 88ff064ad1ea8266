//! The stream of an HTTP connection, with its deadlines.
//!
//! hyper has one timer for both the time between requests and the time of a head, and no timer for a peer
//! that takes no bytes. This stream has a deadline for each. A read fails if the head of a request is late,
//! and ends the stream if the connection was idle too long. A write fails if the peer has stopped reading.
//! While a request is being answered, no deadline for reads runs, since that is the handler's time. If the
//! next head has begun meanwhile, its time starts at the end of the response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::io::AsyncWrite;
use hyper::rt::{ReadBufCursor, Sleep};

use super::ServerOptions;
use super::exchange::HttpProgress;
use super::pieces::Pieces;
use crate::connection::with_read_buffer;
use crate::instance::Lease;
use crate::runtime::{Clock, Timer};
use crate::stream::Stream;

/// Longest time for a response after its client has sent a FIN.
///
/// The client may have half-closed the stream, as `printf … | nc -N` does, and still read. Or it is gone.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(2);

/// A [`Stream`] for hyper.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    pieces: Pieces,
    exchange: Arc<HttpProgress>,
    lease: Lease,
    head_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    awaiting: Awaiting,
    reading: Alarm,
    writing: Alarm,
    ended: bool,
}

/// The event that a read waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Awaiting {
    /// The first byte of the connection.
    Greeting,
    /// The rest of a head.
    Head,
    /// Another request. The peer need not send one.
    Request,
    /// The end of the response to a client that has sent a FIN.
    Response,
}

impl Socket {
    /// Wraps `stream`. The time for the first head starts now.
    pub(super) fn new(
        stream: Stream,
        exchange: Arc<HttpProgress>,
        lease: Lease,
        options: &ServerOptions,
    ) -> Self {
        let mut reading = Alarm::new(&options.clock);
        reading.set(options.head_timeout);
        Self {
            stream,
            pieces: Pieces::default(),
            exchange,
            lease,
            head_timeout: options.head_timeout,
            idle_timeout: options.idle_timeout,
            write_timeout: options.write_timeout,
            awaiting: Awaiting::Greeting,
            reading,
            writing: Alarm::new(&options.clock),
            ended: false,
        }
    }

    /// Whether the peer has ended its direction, and all its bytes are read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the connection was idle, and has to close since another needs its place.
    pub(super) fn makes_room(&self) -> bool {
        self.lease.has_ended()
    }

    /// Takes the bytes that were read from the stream, and that hyper has not asked for.
    pub(super) fn take_held(&mut self) -> Bytes {
        self.pieces.take_held()
    }

    /// Returns the stream, for another protocol or to be closed.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Reads a piece of the stream, and records the heads and bodies in it.
    fn poll_piece(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.exchange.take_body() {
            0 => {}
            len => self.pieces.begin_body(len),
        }
        let (len, end) = ready!(self.pieces.poll_read(&mut self.stream, cx, buf))?;
        if let Some(end) = end {
            self.exchange.head_read(end);
        }
        if len > 0 {
            self.exchange.bytes_read();
        }
        Poll::Ready(Ok(len))
    }

    /// Reads bytes for hyper, or fails if a deadline has passed.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return self.poll_ended(cx);
        }
        let read = self.poll_piece(cx, buf);
        match read {
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                self.poll_ended(cx)
            }
            read if self.exchange.is_answering() => {
                // hyper's buffer is empty now: while it answers, it reads only if it has no bytes of the body,
                // or waits for the end of the stream. So if bytes come here, and hyper does not read again, they
                // are the next head.
                self.exchange.set_ahead(read.is_ready());
                read
            }
            Poll::Pending => self.poll_overdue(cx),
            Poll::Ready(_) => {
                self.on_head_bytes();
                read
            }
        }
    }

    fn wait_for(&mut self, awaiting: Awaiting, timeout: Option<Duration>) {
        self.awaiting = awaiting;
        self.reading.set(timeout);
    }

    /// Handles bytes that arrive while no request is being answered: they begin or continue a head.
    fn on_head_bytes(&mut self) {
        self.lease.set_busy();
        if self.awaiting == Awaiting::Greeting {
            // The time for the first head began with the connection.
            self.awaiting = Awaiting::Head;
        }
        if self.exchange.take_answered() || self.awaiting != Awaiting::Head {
            self.wait_for(Awaiting::Head, self.head_timeout);
        }
    }

    /// Checks the deadline of a read that got no bytes, while no request is being answered.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.exchange.take_answered() {
            if self.exchange.is_ahead() {
                self.wait_for(Awaiting::Head, self.head_timeout);
            } else {
                self.wait_for(Awaiting::Request, self.idle_timeout);
            }
        }
        if self.awaiting == Awaiting::Greeting && self.exchange.is_leaving() {
            // Browsers open connections ahead of their requests. At a shutdown hyper would wait for the first
            // request, so the stream ends here.
            return Poll::Ready(Ok(0));
        }
        let is_idle = self.awaiting != Awaiting::Head && !self.exchange.is_stalled();
        if !is_idle || self.lease.poll_ended(cx).is_pending() {
            ready!(self.reading.poll(cx));
        }
        if self.awaiting == Awaiting::Head {
            self.exchange.set_overdue();
        }
        // hyper gives up on the error. Its driver answers a head that has begun.
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Handles the end of the peer's direction. The peer may still read a response.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.exchange.is_to_begin() {
            // So a handler that answers at once does answer.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.exchange.awaits_response() {
            return Poll::Ready(Ok(0));
        }
        if self.awaiting != Awaiting::Response {
            self.wait_for(Awaiting::Response, Some(HALF_CLOSED_PATIENCE));
        }
        self.reading.poll(cx).map(|()| Ok(0))
    }

    /// Records whether the peer took bytes. Fails if it took none for too long.
    fn poll_taken<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.exchange.set_stalled(false);
            return written;
        }
        if !self.exchange.is_stalled() {
            self.exchange.set_stalled(true);
            self.writing.set(self.write_timeout);
        }
        ready!(self.writing.poll(cx));
        self.exchange.set_stalled(false);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The bytes go through the buffer of the thread, which costs a copy of those that have come. hyper's own buffer would have
/// to be filled with zeros for each read, and has 8 KiB and more.
impl hyper::rt::Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        with_read_buffer(|buf| {
            let most = room.remaining().min(buf.len());
            let buf = buf.get_mut(..most).unwrap_or_default();
            let len = ready!(self.get_mut().poll_bytes(cx, buf))?;
            room.put_slice(buf.get(..len).unwrap_or_default());
            Poll::Ready(Ok(()))
        })
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.poll_taken(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An encrypted stream has accepted bytes that it still has to write.
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.poll_taken(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

/// A deadline that is cheap to move and to wait for: the timer is asked again only when it fires too early, or when it
/// would wake another task.
#[derive(Debug)]
struct Alarm {
    clock: Clock,
    deadline: Option<Instant>,
    timer: Option<Set>,
}

/// A timer that was polled.
#[derive(Debug)]
struct Set {
    at: Instant,
    timer: Timer,
    /// The task that it wakes.
    waker: Waker,
}

impl Alarm {
    fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), deadline: None, timer: None }
    }

    /// Sets the deadline to `timeout` from now; `None` for no deadline.
    fn set(&mut self, timeout: Option<Duration>) {
        self.deadline = timeout.map(|timeout| self.clock.after(timeout));
    }

    /// Waits for the deadline.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let clock = &self.clock;
        let set = self.timer.get_or_insert_with(|| {
            let timer = clock.timer(deadline);
            Set { at: deadline, timer, waker: Waker::noop().clone() }
        });
        loop {
            // A timer that is set too early may stay: it is set again when it fires. That saves two operations of the
            // queue for each request.
            let is_waiting = set.at <= deadline && set.waker.will_wake(cx.waker());
            if is_waiting && clock.now() < set.at {
                return Poll::Pending;
            }
            if deadline < set.at {
                set.at = deadline;
                set.timer.set_at(deadline);
            }
            set.waker.clone_from(cx.waker());
            ready!(Pin::new(&mut set.timer).poll(cx));
            if clock.now() >= deadline {
                return Poll::Ready(());
            }
            set.at = deadline;
            set.timer.set_at(deadline);
            // It waits for nobody now.
            set.waker.clone_from(Waker::noop());
        }
    }
}

/// A timer for hyper that never fires.
///
/// [`Socket`] checks its deadlines in reads, and hyper reads from an idle connection only if it has a timer.
/// A box of this type takes no memory.
#[derive(Debug)]
pub(super) struct Never;

impl hyper::rt::Timer for Never {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Self)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Self)
    }
}

impl Sleep for Never {}

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
