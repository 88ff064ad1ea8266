//! The limit: an echo loop straight on epoll, which knows WebSocket framing and nothing else.
//!
//! Per readiness event one `read`, and another if that filled the buffer; every whole frame in it is
//! unmasked where it lies, moved down to its predecessor, and all of them leave in one `write`. Sockets are
//! registered once, edge-triggered: otherwise the kernel looks at each of them again in the next wait, and
//! a socket that takes no more is registered anew twice. Buffers come from a pool and are owned by
//! a connection only while a frame is incomplete or a write is. There is no task, timer, lock or
//! allocation per message, and no check of what the peer says: what a server adds to this is the
//! price of being one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use peers::{server, wire};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

/// Bytes asked of one `read`: three messages of 64 KiB, several hundred small ones.
const READ: usize = 256 << 10;
/// Registered once: an event comes when bytes do, when a full socket has room again, and at the end.
const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// The peer says nothing more.
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
/// The event data of the listener; a connection's is its descriptor.
const LISTENER: u64 = u64::MAX;

fn main() -> io::Result<()> {
    server::run_loops(|listener| Server::new(listener)?.run())
}

#[derive(Debug)]
struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor, which the kernel keeps dense.
    connections: Vec<Option<Connection>>,
    scratch: Buffer,
    pool: Pool,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut pool = Pool::default();
        let scratch = pool.take(READ);
        Ok(Self { epoll, listener, connections: Vec::new(), scratch, pool })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => {}
                outcome => drop(outcome?),
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                match usize::try_from(data) {
                    Ok(fd) if data != LISTENER => self.serve(fd, flags),
                    _ => self.accept()?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            let fd = usize::try_from(stream.as_raw_fd()).expect("a descriptor is not negative");
            epoll::add(&self.epoll, &stream, EventData::new_u64(fd as u64), INTEREST)?;
            if self.connections.len() <= fd {
                self.connections.resize_with(fd + 1, || None);
            }
            self.connections[fd] = Some(Connection::new(stream));
        }
    }

    /// Lets one connection move until its socket has nothing more or takes nothing more, which is when
    /// the next event comes. Dropping it closes its socket, which leaves epoll by itself.
    fn serve(&mut self, fd: usize, flags: EventFlags) {
        let Some(connection) = &mut self.connections[fd] else { return };
        // That a socket can be written is no news to a connection that has nothing to write.
        connection.is_empty = flags == EventFlags::OUT && !connection.is_blocked();
        connection.is_ending = flags.intersects(ENDS);
        let mut goes_on = connection.drain(&mut self.pool);
        // Reading stops while the peer does not: the simplest backpressure there is.
        while goes_on && !connection.is_empty && !connection.is_blocked() {
            goes_on = connection.read(&mut self.scratch, &mut self.pool);
        }
        if !goes_on && let Some(connection) = self.connections[fd].take() {
            connection.recycle(&mut self.pool);
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    is_upgraded: bool,
    /// Has nothing been left in the socket?
    is_empty: bool,
    /// Is the end behind the bytes in the socket? Then a short read has not found all there is.
    is_ending: bool,
    /// The start of a frame, or of the handshake, whose end has not come yet.
    partial: Option<Buffer>,
    /// What the socket did not take, in order.
    unsent: VecDeque<(Buffer, Output)>,
    /// Ends once everything is sent.
    is_closing: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let unsent = VecDeque::new();
        Self {
            stream,
            is_upgraded: false,
            is_empty: false,
            is_ending: false,
            partial: None,
            unsent,
            is_closing: false,
        }
    }

    fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// One `read`, behind what is there already, and the answer to it; `false` at the end.
    fn read(&mut self, scratch: &mut Buffer, pool: &mut Pool) -> bool {
        let is_lent = self.partial.is_none();
        let mut buffer = self.partial.take().unwrap_or_else(|| scratch.lend());
        let Some(rest) = self.answer(&mut buffer) else {
            scratch.give_back(buffer, pool);
            return false;
        };
        let goes_on = !self.is_closing || !rest.is_empty();
        if buffer.start < buffer.end && goes_on {
            if !is_lent && rest.is_empty() && buffer.has_room() {
                self.partial = Some(buffer);
                return true;
            }
            self.partial = Some(pool.take_over(&buffer));
        }
        if rest.is_empty() {
            scratch.give_back(buffer, pool);
        } else {
            self.unsent.push_back((buffer, rest));
            scratch.refill(pool);
        }
        goes_on
    }

    /// Reads, echoes and writes; returns what the socket did not take, `None` at the end.
    fn answer(&mut self, buffer: &mut Buffer) -> Option<Output> {
        match self.stream.read(&mut buffer.bytes[buffer.end..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_empty = true;
                return Some(Output::default());
            }
            Ok(0) | Err(_) => return None,
            Ok(len) => buffer.end += len,
        }
        self.is_empty = buffer.end < buffer.bytes.len() && !self.is_ending;
        if !self.is_upgraded && !self.upgrade(buffer) {
            return Some(Output::default());
        }
        let mut output = echo(buffer);
        self.is_closing = output.closes;
        if output.start < output.end {
            match self.stream.write(&buffer.bytes[output.start..output.end]) {
                Ok(sent) => output.start += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        Some(output)
    }

    /// Answers the opening handshake once its head is whole.
    ///
    /// A head without a key, which no client of ours sends, is never answered.
    fn upgrade(&mut self, buffer: &mut Buffer) -> bool {
        let Some(len) = wire::head_len(&buffer.bytes[..buffer.end]) else { return false };
        let head = String::from_utf8_lossy(&buffer.bytes[..len]);
        let Some(answer) = wire::response(&head) else { return false };
        self.is_upgraded = self.stream.write_all(answer.as_bytes()).is_ok();
        buffer.start = len;
        self.is_upgraded
    }

    /// Sends on what the socket did not take; `false` at the end.
    fn drain(&mut self, pool: &mut Pool) -> bool {
        while let Some((buffer, rest)) = self.unsent.front_mut() {
            match self.stream.write(&buffer.bytes[rest.start..rest.end]) {
                Ok(sent) => rest.start += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            if !rest.is_empty() {
                return true;
            }
            if let Some((buffer, _)) = self.unsent.pop_front() {
                pool.give(buffer);
            }
        }
        !self.is_closing
    }

    fn recycle(self, pool: &mut Pool) {
        self.partial.into_iter().for_each(|buffer| pool.give(buffer));
        self.unsent.into_iter().for_each(|(buffer, _)| pool.give(buffer));
    }
}

/// Where in a buffer the answers lie that must still be written.
#[derive(Clone, Copy, Debug, Default)]
struct Output {
    start: usize,
    end: usize,
    /// Is the last of them a close frame?
    closes: bool,
}

impl Output {
    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Turns every whole frame of `buffer` into its answer, all of them end to end.
fn echo(buffer: &mut Buffer) -> Output {
    let mut output = Output::default();
    while let Some(header) = wire::Header::parse(&buffer.bytes[buffer.start..buffer.end])
        && header.frame() <= buffer.end - buffer.start
        && !output.closes
    {
        let from = buffer.start + header.len;
        buffer.start += header.frame();
        let first = match header.first {
            wire::PING => wire::PONG,
            wire::PONG => continue,
            first => first,
        };
        // The first answer stays where its payload lies; each next one closes up to it.
        let is_first = output.is_empty();
        let to = if is_first { from } else { output.end + wire::header_len(header.payload) };
        let key = header.key.unwrap_or_default();
        wire::unmask_down(&mut buffer.bytes, from, to, header.payload, key);
        let start = wire::put_header_before(&mut buffer.bytes, to, first, header.payload);
        output.start = if is_first { start } else { output.start };
        output.end = to + header.payload;
        output.closes = first == wire::CLOSE;
    }
    output
}

/// Bytes read and not yet answered: `bytes[start..end]`.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Takes the scratch buffer for one event.
    fn lend(&mut self) -> Self {
        let bytes = std::mem::take(&mut self.bytes);
        Self { bytes, start: 0, end: 0 }
    }

    /// Will the frame that has begun fit behind what was answered before it?
    fn has_room(&self) -> bool {
        let frame = wire::Header::parse(&self.bytes[self.start..self.end]);
        self.start + frame.map_or(wire::MAX_HEADER, |header| header.frame()) <= self.bytes.len()
    }

    /// Takes a buffer back: as the scratch, if that is what was lent, or into the pool.
    fn give_back(&mut self, buffer: Self, pool: &mut Pool) {
        if self.bytes.is_empty() {
            self.bytes = buffer.bytes;
        } else {
            pool.give(buffer);
        }
    }

    /// Replaces a scratch buffer that a connection had to keep.
    fn refill(&mut self, pool: &mut Pool) {
        if self.bytes.is_empty() {
            self.bytes = pool.take(READ).bytes;
        }
    }
}

/// Buffers that no connection needs at the moment.
#[derive(Debug, Default)]
struct Pool(Vec<Vec<u8>>);

impl Pool {
    fn take(&mut self, len: usize) -> Buffer {
        let mut bytes = self.0.pop().unwrap_or_default();
        if bytes.len() < len {
            // A fresh zeroed vector costs no page until it is used; growing an old one copies it.
            bytes = vec![0; len];
        }
        Buffer { bytes, start: 0, end: 0 }
    }

    /// A buffer that begins with the incomplete frame in `buffer`, and has room for all of it.
    fn take_over(&mut self, buffer: &Buffer) -> Buffer {
        let rest = &buffer.bytes[buffer.start..buffer.end];
        let frame = wire::Header::parse(rest).map_or(0, |header| header.frame());
        let mut partial = self.take(frame.clamp(READ, server::MAX_MESSAGE));
        partial.end = rest.len();
        partial.bytes[..rest.len()].copy_from_slice(rest);
        partial
    }

    fn give(&mut self, buffer: Buffer) {
        self.0.push(buffer.bytes);
    }
}
