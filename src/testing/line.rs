//! The line between a client and the server, and its faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::{fmt, mem};

use super::pipe::{self, Flow, Pace, Way, Wire, pipe};
use crate::permits::Held;
use crate::sync::Mutex;

/// What a connection holds in each direction, in bytes, unless a test says otherwise.
const CAPACITY: usize = 64 << 10;

/// The line that connections go over: its capacity, and its faults.
///
/// [`TestClient::over`](super::TestClient::over) sends connections over a line that the test controls. Otherwise
/// each connection has a line of its own, which delivers all bytes at once. Clones are handles of the same line.
///
/// ```
/// use tidewire::testing::{Line, TestClient};
/// # use tidewire::{RequestContext, Server, WebSocketOptions};
///
/// # async_std::task::block_on(async {
/// # let mut server = Server::new();
/// # server.get("/ws", |mut ctx: RequestContext| async move {
/// #     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
/// #     while let Some(message) = ws.recv().await? {
/// #         ws.send(message).await?;
/// #     }
/// #     Ok(())
/// # });
/// let client = TestClient::new(&server);
/// let line = Line::new().chunk_size(1);
/// let mut ws = client.over(&line).connect("/ws").await?;
/// ws.send("byte for byte").await?;
/// assert_eq!(ws.recv().await?, Some("byte for byte".into()));
///
/// line.cut();
/// assert!(ws.recv().await.is_err());
/// client.idle().await;
/// # Ok::<(), tidewire::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Line {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Most bytes that one read or write moves; `usize::MAX` is no limit.
    chunk_size: AtomicUsize,
    to_server: Arc<Flow>,
    to_client: Arc<Flow>,
    open: Mutex<Vec<Wire>>,
}

impl Default for Shared {
    fn default() -> Self {
        let (to_server, to_client) = (Flow::new(CAPACITY), Flow::new(CAPACITY));
        Self { chunk_size: usize::MAX.into(), to_server, to_client, open: Mutex::default() }
    }
}

impl Line {
    /// Creates a line that delivers all bytes at once, and holds 64 KiB in each direction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Largest number of bytes that one read or one write of either side moves. Default: no limit.
    ///
    /// Each chunk arrives separately: a reader or a writer has to wait before the next one.
    #[must_use]
    pub fn chunk_size(self, bytes: usize) -> Self {
        self.shared.chunk_size.store(bytes.max(1), Ordering::SeqCst);
        self
    }

    /// Bytes that a connection holds in each direction. Then writes wait for the other side to read.
    /// Default 64 KiB.
    #[must_use]
    pub fn capacity(self, bytes: usize) -> Self {
        self.shared.to_server.set_capacity(bytes.max(1));
        self.shared.to_client.set_capacity(bytes.max(1));
        self
    }

    /// Stalls the direction to the client: the client reads no more bytes, and the server cannot write, as if
    /// the buffers of both were full. Bytes of the client still arrive.
    ///
    /// This holds for later connections, too, until [`release`](Self::release).
    pub fn stall(&self) {
        self.shared.to_client.set_stalled(true);
        self.each_open(Wire::wake);
    }

    /// Ends a [`stall`](Self::stall). No byte is lost.
    pub fn release(&self) {
        self.shared.to_client.set_stalled(false);
        self.each_open(Wire::wake);
    }

    /// Resets the open connections: bytes on their way are lost, and reads and writes of both sides fail with
    /// [`ConnectionReset`](std::io::ErrorKind::ConnectionReset).
    pub fn cut(&self) {
        self.each_open(Wire::reset);
    }

    /// Ends the client's direction of the open connections, like a FIN: the server reads the bytes on their way,
    /// and then the end of the stream. The client can still read.
    ///
    /// If the client's end is dropped, both directions end in this way.
    pub fn end(&self) {
        self.each_open(Wire::end);
    }

    /// Opens a connection, whose reads and writes are counted in `traffic`. Returns the client's end and the server's end.
    pub(super) fn connect(&self, traffic: &Arc<AtomicU64>) -> (End, End) {
        let Shared { to_server, to_client, .. } = &*self.shared;
        let chunks = || Chunks::new(Arc::clone(&self.shared), Arc::clone(traffic));
        let (client, server) = pipe(chunks(), chunks(), to_server, to_client);
        let mut open = self.shared.open.lock();
        open.retain(Wire::is_open);
        open.push(client.wire().clone());
        drop(open);
        (client, server)
    }

    /// Does something to each connection of which an end is left, without the lock: it wakes.
    fn each_open(&self, change: impl Fn(&Wire)) {
        self.open().iter().for_each(change);
    }

    fn open(&self) -> Vec<Wire> {
        let mut open = self.shared.open.lock();
        open.retain(Wire::is_open);
        open.clone()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { chunk_size, to_client, .. } = &*self.shared;
        let chunk_size = Some(chunk_size.load(Ordering::SeqCst)).filter(|size| *size < usize::MAX);
        f.debug_struct("Line")
            .field("chunk_size", &chunk_size)
            .field("capacity", &to_client.capacity())
            .field("is_stalled", &to_client.is_stalled())
            .finish_non_exhaustive()
    }
}

/// One end of a connection over a line.
pub(super) type End = pipe::End<Chunks>;

impl End {
    /// Keeps `held` for as long as this end is open.
    pub(super) fn keep(mut self, held: Held) -> Self {
        self.pace.held = held;
        self
    }
}

/// How an end moves bytes: in chunks, each of which arrives on its own.
#[derive(Debug)]
pub(super) struct Chunks {
    line: Arc<Shared>,
    /// Reads and writes so far.
    traffic: Arc<AtomicU64>,
    /// Whether a chunk was read, and the next is not there yet.
    has_read: bool,
    /// Whether a chunk was written, and there is no room for the next yet.
    has_written: bool,
    /// The place among the connections that a server may have.
    held: Held,
}

impl Chunks {
    fn new(line: Arc<Shared>, traffic: Arc<AtomicU64>) -> Self {
        Self { line, traffic, has_read: false, has_written: false, held: Held::default() }
    }

    fn has_moved(&mut self, way: Way) -> &mut bool {
        match way {
            Way::Read => &mut self.has_read,
            Way::Write => &mut self.has_written,
        }
    }

    fn size(&self) -> usize {
        self.line.chunk_size.load(Ordering::SeqCst)
    }
}

impl Pace for Chunks {
    fn most(&mut self, way: Way) -> Option<usize> {
        let puts_off = mem::take(self.has_moved(way));
        if puts_off { None } else { Some(self.size()) }
    }

    fn moved(&mut self, way: Way, len: usize) {
        self.traffic.fetch_add(1, Ordering::SeqCst);
        *self.has_moved(way) = len > 0 && self.size() < usize::MAX;
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::pin::Pin;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::{Context, Wake, Waker};

    use futures::FutureExt;
    use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::runtime::block_on;

    #[test]
    fn each_chunk_is_written_and_read_on_its_own() {
        let (mut client, mut server) = Line::new().chunk_size(2).connect(&Arc::default());
        let written = ["abcde", "cde", "cde", "e", "e"]
            .map(|rest| client.write(rest.as_bytes()).now_or_never().map(Result::unwrap));
        assert_eq!(written, [Some(2), None, Some(2), None, Some(1)]);
        let mut buf = [0; 8];
        let read = [(); 6].map(|()| server.read(&mut buf).now_or_never().map(Result::unwrap));
        assert_eq!(read, [Some(2), None, Some(2), None, Some(1), None]);
    }

    #[test]
    fn bytes_to_a_client_stay_on_their_way_while_its_line_is_stalled() {
        let line = Line::new();
        let (mut client, mut server) = line.connect(&Arc::default());
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
        let (client, server) = line.connect(&Arc::default());
        assert_eq!(line.open().len(), 1);
        drop(server);
        assert_eq!(line.open().len(), 1);
        drop(client);
        assert_eq!(line.open().len(), 0);
    }

    #[test]
    fn an_end_reads_the_bytes_from_before_the_other_was_dropped() {
        block_on(async {
            let (mut client, mut server) = Line::new().connect(&Arc::default());
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
    fn a_waiting_end_is_woken_by_the_other_end_and_by_the_line() {
        block_on(async {
            let line = Line::new().capacity(1);
            let (mut client, mut server) = line.connect(&Arc::default());
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
    fn a_task_that_is_woken_or_dropped_may_use_the_line() {
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
        let (mut client, mut server) = line.connect(&Arc::default());
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
        let (client, mut server) = line.connect(&Arc::default());
        wait(&mut server);
        line.cut();
        assert_eq!(dropped.load(Relaxed), 4, "one is woken by the line");
        drop(client);
    }
}
