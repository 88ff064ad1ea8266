//! Sockets that have been upgraded, and the epoll they are in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use peers::wire;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::args::Args;
use crate::deflate::Deflate;

/// How long a server may keep us waiting before the run has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Connects and upgrades; the socket is non-blocking when it comes back.
///
/// With it comes the server's answer to the extension that was offered.
pub(crate) fn open(args: &Args, number: usize) -> io::Result<(TcpStream, String)> {
    let address = args.address(number);
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let offer = args.deflate.map(Deflate::offer);
    stream.write_all(wire::request(&address.to_string(), &args.path, offer).as_bytes())?;
    let mut head = [0; 4096];
    let mut len = 0;
    while wire::head_len(&head[..len]).is_none() {
        match stream.read(&mut head[len..])? {
            0 => return Err(refused(&head[..len])),
            more => len += more,
        }
    }
    check_answer(&head[..len])?;
    let head = String::from_utf8_lossy(&head[..len]);
    let answer = wire::header(&head, "sec-websocket-extensions").unwrap_or_default();
    args.deflate.map_or(Ok(()), |deflate| deflate.check(answer))?;
    stream.set_nonblocking(true)?;
    Ok((stream, answer.to_owned()))
}

/// Is this a whole 101 with the right key, and nothing behind it?
pub(crate) fn check_answer(head: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(head);
    let is_upgrade = text.starts_with("HTTP/1.1 101 ")
        && wire::header(&text, "sec-websocket-accept") == Some(wire::ACCEPT)
        && wire::head_len(head) == Some(head.len());
    is_upgrade.then_some(()).ok_or_else(|| refused(head))
}

fn refused(head: &[u8]) -> io::Error {
    let head = String::from_utf8_lossy(head).into_owned();
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("no upgrade: {head:?}"))
}

/// Sockets by number, and which of them are ready.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    spin: bool,
}

impl Poller {
    pub(crate) fn new(spin: bool) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(1024), spin })
    }

    pub(crate) fn add(&self, stream: &TcpStream, number: usize) -> io::Result<()> {
        let data = EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, stream, data, EventFlags::IN)?)
    }

    /// Chooses whether room for writing is news, besides bytes to read.
    pub(crate) fn watch(&self, stream: &TcpStream, number: usize, writes: bool) -> io::Result<()> {
        let data = EventData::new_u64(number as u64);
        let flags = if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, stream, data, flags)?)
    }

    /// Waits at most 100 ms, then returns how many sockets are ready.
    pub(crate) fn wait(&mut self) -> io::Result<usize> {
        let tenth = Timespec { tv_sec: 0, tv_nsec: if self.spin { 0 } else { 100_000_000 } };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&tenth)) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => drop(outcome?),
        }
        Ok(self.events.len())
    }

    /// A ready socket: its number, and may it be written, may it be read?
    pub(crate) fn ready(&self, at: usize) -> (usize, bool, bool) {
        let event = self.events[at];
        let number = usize::try_from(event.data.u64()).expect("we gave it");
        let flags = event.flags;
        let reads = flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        (number, flags.contains(EventFlags::OUT), reads)
    }
}
