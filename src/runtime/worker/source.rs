//! A socket that is registered with a worker.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::pass::Place;
use super::readiness::{Direction, Source};
use crate::sync::Mutex;

/// A socket on its worker.
#[derive(Debug)]
pub(crate) struct Registered<S: mio::event::Source> {
    io: S,
    source: Arc<Source>,
    place: Place,
    key: usize,
}

impl<S: mio::event::Source> Registered<S> {
    /// Registers a socket, which does not block, for both directions.
    pub(crate) fn new(mut io: S, place: Place) -> io::Result<Self> {
        let (key, source) = place.worker().register(&mut io)?;
        Ok(Self { io, source, place, key })
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }

    /// Calls `call` when the socket is ready, until it returns anything but `WouldBlock`.
    pub(crate) fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let Poll::Ready(seen) = self.source.poll_ready(cx, direction) else {
                return Poll::Pending;
            };
            match call(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear(seen, direction);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// [`poll_io`](Self::poll_io) for a read of at most `room` bytes. Fewer bytes than that mean that the socket is
    /// empty: the next read waits for an event, instead of asking once more.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(seen) = self.source.poll_ready(cx, Direction::Read) else {
                return Poll::Pending;
            };
            match read(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear(seen, Direction::Read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(len) => {
                    if len < room {
                        self.source.clear(seen, Direction::Read);
                    }
                    return Poll::Ready(Ok(len));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A listening socket on its worker. Any thread may close it.
#[derive(Debug)]
pub(crate) struct Listening<S: mio::event::Source> {
    source: Arc<Source>,
    /// `None` once it is closed. No waker is called or dropped under this lock.
    socket: Mutex<Option<Registered<S>>>,
}

impl<S: mio::event::Source> Listening<S> {
    pub(crate) fn new(socket: Registered<S>) -> Self {
        Self { source: Arc::clone(&socket.source), socket: Mutex::new(Some(socket)) }
    }

    /// Asks the operating system anew whether a connection waits. Without this, the socket counts as ready until
    /// `accept` has been called in vain. To be called on the worker.
    pub(crate) fn ask_again(&self) -> io::Result<()> {
        if let Some(socket) = &mut *self.socket.lock() {
            self.source.forget(Direction::Read);
            socket.place.worker().register_again(&mut socket.io, socket.key)?;
        }
        Ok(())
    }

    /// Waits until a connection may wait.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_ready(cx, Direction::Read).map(drop)
    }

    /// Calls `accept` when a connection may wait. A socket that is closed waits for ever.
    pub(crate) fn poll_accept<T>(
        &self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let seen = ready!(self.source.poll_ready(cx, Direction::Read));
            let Some(result) = self.socket.lock().as_ref().map(|socket| accept(&socket.io)) else {
                return Poll::Pending;
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear(seen, Direction::Read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Closes the socket, at once.
    pub(crate) fn close(&self) {
        let socket = self.socket.lock().take();
        drop(socket);
    }
}

impl<S: mio::event::Source> Drop for Registered<S> {
    fn drop(&mut self) {
        self.place.worker().deregister(&mut self.io, self.key);
    }
}
