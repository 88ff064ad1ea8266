//! Connections in memory: two ends, and the bytes that are on their way between them.
//!
//! What a test can do to them is `line`.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};
use slab::Slab;

use crate::foreign::attempt;
use crate::permits::Held;
use crate::sync::Mutex;

/// What a connection holds in each direction, in bytes, unless a test says otherwise.
const CAPACITY: usize = 64 << 10;

/// The connections of one line.
#[derive(Debug)]
pub(super) struct Wires {
    /// Most bytes that one read or write moves.
    pub(super) chunk_size: Option<usize>,
    /// Most bytes on their way in one direction.
    pub(super) capacity: usize,
    /// Does nothing reach the client?
    pub(super) is_stalled: bool,
    open: Slab<Wire>,
    /// Whom to wake when the lock is released.
    woken: Vec<Waker>,
}

impl Default for Wires {
    fn default() -> Self {
        Self {
            chunk_size: None,
            capacity: CAPACITY,
            is_stalled: false,
            open: Slab::new(),
            woken: Vec::new(),
        }
    }
}

impl Wires {
    /// Adds a connection; both of its ends have to be made.
    pub(super) fn open(&mut self) -> usize {
        self.open.insert(Wire::default())
    }

    /// Has everybody who waits look again.
    pub(super) fn wake(&mut self) {
        self.each(Half::wake);
    }

    pub(super) fn reset(&mut self) {
        self.each(|half, woken| {
            half.is_reset = true;
            half.wake(woken);
        });
    }

    /// Ends the direction from client to server.
    pub(super) fn end(&mut self) {
        for (_, wire) in &mut self.open {
            wire.to_server.end(&mut self.woken);
        }
    }

    fn each(&mut self, change: impl Fn(&mut Half, &mut Vec<Waker>)) {
        for (_, wire) in &mut self.open {
            change(&mut wire.to_server, &mut self.woken);
            change(&mut wire.to_client, &mut self.woken);
        }
    }
}

/// Does something under the lock, and wakes afterwards: a waker is code of an executor, which may use the
/// line on the spot.
pub(super) fn with<T>(wires: &Mutex<Wires>, change: impl FnOnce(&mut Wires) -> T) -> T {
    let mut wires = wires.lock();
    let result = change(&mut wires);
    let woken = mem::take(&mut wires.woken);
    drop(wires);
    for waker in woken {
        let _ = attempt(|| waker.wake());
    }
    result
}

/// One connection.
#[derive(Debug, Default)]
struct Wire {
    to_server: Half,
    to_client: Half,
}

impl Wire {
    /// What `side` reads.
    fn incoming(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }

    /// What `side` writes.
    fn outgoing(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.to_server,
            Side::Server => &mut self.to_client,
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Half {
    bytes: VecDeque<u8>,
    /// Will nothing more be written?
    is_ended: bool,
    /// Will nothing more be read?
    is_unread: bool,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Half {
    fn end(&mut self, woken: &mut Vec<Waker>) {
        self.is_ended = true;
        self.wake(woken);
    }

    fn wake(&mut self, woken: &mut Vec<Waker>) {
        woken.extend([self.reader.take(), self.writer.take()].into_iter().flatten());
    }

    fn check_reset(&self) -> io::Result<()> {
        if self.is_reset { Err(ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Takes bytes from the front; `None` if the reader has to wait.
    fn read(&mut self, buf: &mut [u8], woken: &mut Vec<Waker>) -> Option<usize> {
        if self.bytes.is_empty() && !self.is_ended {
            return None;
        }
        let len = buf.len().min(self.bytes.len());
        for (slot, byte) in buf.iter_mut().zip(self.bytes.drain(..len)) {
            *slot = byte;
        }
        woken.extend(self.writer.take());
        Some(len)
    }

    /// Appends bytes, at most as many as there is room for.
    fn write(&mut self, bufs: &[IoSlice<'_>], room: usize, woken: &mut Vec<Waker>) -> usize {
        let before = self.bytes.len();
        self.bytes.extend(bufs.iter().flat_map(|buf| buf.iter()).take(room));
        woken.extend(self.reader.take());
        self.bytes.len().saturating_sub(before)
    }
}

/// Which end it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Client,
    Server,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    wires: Arc<Mutex<Wires>>,
    key: usize,
    side: Side,
    /// A chunk was read: the next is not there yet.
    has_read: bool,
    /// A chunk was written: there is no room for the next yet.
    has_written: bool,
    /// Among the connections that a server may have.
    held: Held,
}

impl End {
    /// An end of the connection `key`, of which there has to be one on each side.
    pub(super) fn new(wires: Arc<Mutex<Wires>>, key: usize, side: Side) -> Self {
        Self { wires, key, side, has_read: false, has_written: false, held: Held::default() }
    }

    /// Keeps `held` for as long as this end is open.
    pub(super) fn keep(mut self, held: Held) -> Self {
        self.held = held;
        self
    }
}

/// The key of an end that is open is always there.
fn not_open() -> io::Error {
    ErrorKind::NotConnected.into()
}

/// Puts off whoever comes for the next chunk, once.
fn puts_off(has_moved: &mut bool, cx: &Context<'_>) -> bool {
    let puts_off = mem::take(has_moved);
    if puts_off {
        cx.waker().wake_by_ref();
    }
    puts_off
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if puts_off(&mut self.has_read, cx) {
            return Poll::Pending;
        }
        let (key, side) = (self.key, self.side);
        let mut waker = Some(cx.waker().clone());
        let read = with(&self.wires, |wires| {
            let Wires { chunk_size, is_stalled, open, woken, .. } = wires;
            let most = chunk_size.unwrap_or(usize::MAX).min(buf.len());
            let half = open.get_mut(key).ok_or_else(not_open)?.incoming(side);
            half.check_reset()?;
            let buf = buf.get_mut(..most).unwrap_or_default();
            let is_stalled = *is_stalled && side == Side::Client;
            let read = if is_stalled { None } else { half.read(buf, woken) };
            if read.is_none() {
                mem::swap(&mut half.reader, &mut waker);
            }
            Ok::<_, io::Error>(read.map(|len| (len, chunk_size.is_some())))
        });
        let Some((len, is_chunk)) = read? else { return Poll::Pending };
        self.has_read = is_chunk && len > 0;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if puts_off(&mut self.has_written, cx) {
            return Poll::Pending;
        }
        let (key, side) = (self.key, self.side);
        let mut waker = Some(cx.waker().clone());
        let written = with(&self.wires, |wires| {
            let Wires { chunk_size, capacity, is_stalled, open, woken } = wires;
            let half = open.get_mut(key).ok_or_else(not_open)?.outgoing(side);
            half.check_reset()?;
            if half.is_unread || half.is_ended {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let is_stalled = *is_stalled && side == Side::Server;
            let room = if is_stalled { 0 } else { capacity.saturating_sub(half.bytes.len()) };
            if room == 0 && bufs.iter().any(|buf| !buf.is_empty()) {
                mem::swap(&mut half.writer, &mut waker);
                return Ok(None);
            }
            let len = half.write(bufs, chunk_size.unwrap_or(usize::MAX).min(room), woken);
            Ok::<_, io::Error>(Some((len, chunk_size.is_some())))
        });
        let Some((len, is_chunk)) = written? else { return Poll::Pending };
        self.has_written = is_chunk && len > 0;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        with(&self.wires, |Wires { open, woken, .. }| {
            if let Some(wire) = open.get_mut(self.key) {
                wire.outgoing(self.side).end(woken);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let forgotten = with(&self.wires, |Wires { open, woken, .. }| {
            let wire = open.get_mut(self.key)?;
            wire.outgoing(self.side).end(woken);
            let incoming = wire.incoming(self.side);
            incoming.is_unread = true;
            incoming.wake(woken);
            // The other end was dropped before.
            if wire.outgoing(self.side).is_unread { open.try_remove(self.key) } else { None }
        });
        drop(forgotten);
        drop(mem::take(&mut self.held));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;

    use futures::FutureExt;
    use futures::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::runtime::block_on;
    use crate::testing::Line;

    #[test]
    fn each_chunk_is_written_and_read_on_its_own() {
        let (mut client, mut server) = Line::new().chunk_size(2).connect();
        let written = ["abcde", "cde", "cde", "e", "e"]
            .map(|rest| client.write(rest.as_bytes()).now_or_never().map(Result::unwrap));
        assert_eq!(written, [Some(2), None, Some(2), None, Some(1)]);
        let mut buf = [0; 8];
        let read = [(); 6].map(|()| server.read(&mut buf).now_or_never().map(Result::unwrap));
        assert_eq!(read, [Some(2), None, Some(2), None, Some(1), None]);
    }

    #[test]
    fn what_is_on_its_way_to_a_client_stays_there_while_its_line_is_stalled() {
        let line = Line::new();
        let (mut client, mut server) = line.connect();
        let mut buf = [0; 8];
        assert_eq!(server.write(b"ab").now_or_never().unwrap().unwrap(), 2);
        line.stall();
        assert!(client.read(&mut buf).now_or_never().is_none());
        assert!(server.write(b"cd").now_or_never().is_none());
        assert_eq!(client.write(b"ef").now_or_never().unwrap().unwrap(), 2);
        assert_eq!(server.read(&mut buf).now_or_never().unwrap().unwrap(), 2);
        line.release();
        assert_eq!(client.read(&mut buf).now_or_never().unwrap().unwrap(), 2);
    }

    #[test]
    fn a_connection_is_forgotten_with_its_second_end() {
        let line = Line::new();
        let wires = |line: &Line| line.clone().connect().0.key;
        let (client, server) = line.connect();
        assert_eq!(client.key, 0);
        drop(server);
        assert_eq!(wires(&line), 1);
        drop(client);
        assert_eq!(wires(&line), 0);
    }

    #[test]
    fn an_end_reads_what_came_before_the_other_was_dropped() {
        block_on(async {
            let (mut client, mut server) = Line::new().connect();
            client.write_all(b"last").await.unwrap();
            drop(client);
            let mut rest = String::new();
            server.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "last");
            let error = server.write_all(b"x").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn whoever_waits_is_woken_by_the_other_end_and_by_the_line() {
        block_on(async {
            let line = Line::new().capacity(1);
            let (mut client, mut server) = line.connect();
            let mut buf = [0; 8];
            assert!(server.read(&mut buf).now_or_never().is_none());
            let (wrote, read) = futures::join!(client.write_all(b"ab"), async {
                server.read_exact(&mut buf[..2]).await.map(|()| buf[..2].to_vec())
            });
            wrote.unwrap();
            assert_eq!(read.unwrap(), b"ab");
            let (read, ()) = futures::join!(client.read(&mut buf), async { line.cut() });
            assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn whoever_is_woken_or_dropped_may_use_the_line() {
        struct Curious(Line, Arc<AtomicUsize>);

        impl Wake for Curious {
            fn wake(self: Arc<Self>) {}
        }

        impl Drop for Curious {
            fn drop(&mut self) {
                assert!(format!("{:?}", self.0).contains("capacity: 1"));
                self.1.fetch_add(1, Relaxed);
            }
        }

        let (line, dropped) = (Line::new().capacity(1), Arc::new(AtomicUsize::new(0)));
        let curious = || Waker::from(Arc::new(Curious(line.clone(), Arc::clone(&dropped))));
        let (mut client, mut server) = line.connect();
        let wait = |server: &mut End| {
            let waker = curious();
            let read = Pin::new(server).poll_read(&mut Context::from_waker(&waker), &mut [0]);
            assert!(read.is_pending());
        };
        wait(&mut server);
        wait(&mut server);
        assert_eq!(dropped.load(Relaxed), 1, "one takes the place of the other");
        assert_eq!(client.write(b"a").now_or_never().unwrap().unwrap(), 1);
        assert_eq!(dropped.load(Relaxed), 2, "one is woken by what is written");
        assert_eq!(server.read(&mut [0]).now_or_never().unwrap().unwrap(), 1);
        wait(&mut server);
        drop(client);
        assert_eq!(dropped.load(Relaxed), 3, "one is woken by the end");
        let (client, mut server) = line.connect();
        wait(&mut server);
        line.cut();
        assert_eq!(dropped.load(Relaxed), 4, "one is woken by the line");
        drop(client);
    }
}
