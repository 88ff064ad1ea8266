//! `fanout`: all connections are members of one room, and what the first of them say goes to everybody.
//!
//! In rounds: each sender writes its messages in one `write`, and the next round begins when every
//! member has all of them. So a server whose bounds are above one round drops nothing, and the latency of
//! a delivery is counted from the first write of its round. Messages that differ (`--json`) go on from
//! round to round, and each sender has its part of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::args::Args;
use crate::client::{self, PATIENCE, Poller};
use crate::histogram::Histogram;
use crate::messages::Messages;
use crate::process::Accounts;
use crate::reader::{Echoes, Reader};

/// Bytes asked of one `read`.
const READ: usize = 256 << 10;

/// How long members may take to enter after their upgrade, before they are asked again.
const ENTER: Duration = Duration::from_millis(200);

/// Bytes that the system keeps for a member that does not read, about.
const STUCK_BUFFER: usize = 4 << 10;

/// What is said, in bytes, so that the sockets of members that do not read are full on both sides.
const FILL: usize = 16 << 20;

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let mut load = Load::open(args)?;
    load.fill(args)?;
    while load.members.len() < args.connections {
        load.enter(args)?;
    }
    load.wait_for_all()?;
    load.rounds(args.warm_up)?;
    load.latencies = Histogram::new();
    let before = Reading::take(&load, args)?;
    load.rounds(args.duration)?;
    let now = Reading::take(&load, args)?;
    println!("{}", now.json(&before, args, &load));
    Ok(())
}

struct Load {
    poller: Poller,
    members: Vec<Member>,
    /// Members that never read.
    _stuck: Vec<TcpStream>,
    messages: Messages,
    /// The message that is said next.
    at: usize,
    /// What the server answered to the extension that was offered.
    extensions: String,
    senders: usize,
    /// Messages of each sender in a round.
    burst: u32,
    buffer: Vec<u8>,
    latencies: Histogram,
    /// When the round began.
    begun: Instant,
    received: u64,
    /// Bytes of the deliveries, headers included.
    bytes: u64,
}

#[derive(Debug)]
struct Member {
    stream: TcpStream,
    reader: Reader,
    received: u64,
}

impl Load {
    /// Those who never read, and one who does.
    fn open(args: &Args) -> io::Result<Self> {
        let stuck = (0..args.stuck).map(|number| {
            let (stream, _) = client::open(args, number)?;
            set_socket_recv_buffer_size(&stream, STUCK_BUFFER)?;
            Ok(stream)
        });
        let mut load = Self {
            poller: Poller::new(args.spin)?,
            members: Vec::with_capacity(args.connections),
            _stuck: stuck.collect::<io::Result<_>>()?,
            messages: Messages::new(args),
            at: 0,
            extensions: String::new(),
            senders: args.senders,
            burst: args.in_flight,
            buffer: vec![0; READ],
            latencies: Histogram::new(),
            begun: Instant::now(),
            received: 0,
            bytes: 0,
        };
        load.enter(args)?;
        Ok(load)
    }

    fn enter(&mut self, args: &Args) -> io::Result<()> {
        let (stream, answer) = client::open(args, self.members.len())?;
        self.extensions = answer;
        self.poller.add(&stream, self.members.len())?;
        let reader = Reader::new(Echoes::of(args.deflate, self.members.is_empty()), 0);
        self.members.push(Member { stream, reader, received: 0 });
        Ok(())
    }

    /// Talks until those who never read are stuck, while nearly nobody else has to listen.
    fn fill(&mut self, args: &Args) -> io::Result<()> {
        if args.stuck == 0 {
            return Ok(());
        }
        self.wait_for_all()?;
        let senders = std::mem::replace(&mut self.senders, 1);
        let (_, each) = self.messages.step(0, self.burst);
        for _ in 0..FILL / each {
            self.round()?;
        }
        self.senders = senders;
        Ok(())
    }

    /// Says something until everybody has heard it: an upgraded connection is not in the room yet.
    fn wait_for_all(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let before: Vec<u64> = self.members.iter().map(|member| member.received).collect();
            // Always the same, for who enters meanwhile hears not all of them.
            self.at = 0;
            self.expect();
            self.say(0, 1)?;
            let asked = Instant::now();
            while asked.elapsed() < ENTER {
                self.turn()?;
            }
            if self.members.iter().zip(before).all(|(member, before)| member.received > before) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::new(ErrorKind::TimedOut, "not everybody is in the room"));
            }
        }
    }

    fn rounds(&mut self, duration: Duration) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            self.round()?;
        }
        Ok(())
    }

    fn round(&mut self) -> io::Result<()> {
        self.expect();
        self.begun = Instant::now();
        let each = self.senders as u64 * u64::from(self.burst);
        let end = self.received + each * self.members.len() as u64;
        for number in 0..self.senders {
            self.say(number, self.burst)?;
        }
        let mut progress = Instant::now();
        while self.received < end {
            if self.turn()? > 0 {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                let missing = end - self.received;
                let message = format!("{missing} deliveries are missing after {PATIENCE:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
        }
        Ok(())
    }

    /// Tells every member what comes next: what one sender says in its order, that of several in any.
    fn expect(&mut self) {
        let count = self.messages.count();
        if count == 1 {
            return;
        }
        let said = self.senders * self.burst as usize;
        let among = if self.senders == 1 { 1 } else { said.min(count) };
        for member in &mut self.members {
            member.reader.expect(self.at, among);
        }
    }

    fn say(&mut self, number: usize, count: u32) -> io::Result<()> {
        let mut offset = self.messages.start(self.at);
        let (next, mut unsent) = self.messages.step(self.at, count);
        self.at = next;
        while unsent > 0 {
            let ready = self.messages.bytes_from(offset);
            match self.members[number].stream.write(&ready[..unsent.min(ready.len())]) {
                Ok(written) => {
                    unsent -= written;
                    offset = (offset + written) % self.messages.cycle_len();
                }
                // The server reads whatever it has to write.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One wait, and what it brings; returns how many sockets were ready.
    fn turn(&mut self) -> io::Result<usize> {
        let count = self.poller.wait()?;
        for at in 0..count {
            let (number, _, reads) = self.poller.ready(at);
            if reads {
                self.receive(number)?;
            }
        }
        Ok(count)
    }

    fn receive(&mut self, number: usize) -> io::Result<()> {
        let member = &mut self.members[number];
        let len = match member.stream.read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            outcome => outcome?,
        };
        self.bytes += len as u64;
        let heard = u64::from(member.reader.read(&self.buffer[..len], &self.messages)?);
        if member.reader.is_closed() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        member.received += heard;
        self.received += heard;
        let nanoseconds = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.latencies.add(nanoseconds, heard);
        Ok(())
    }
}

/// The counts and accounts between two rounds.
#[derive(Debug)]
struct Reading {
    received: u64,
    bytes: u64,
    accounts: Accounts,
}

impl Reading {
    fn take(load: &Load, args: &Args) -> io::Result<Self> {
        let accounts = Accounts::read(args)?;
        Ok(Self { received: load.received, bytes: load.bytes, accounts })
    }

    fn json(&self, before: &Self, args: &Args, load: &Load) -> String {
        let costs = self.accounts.since(&before.accounts);
        let deliveries = self.received - before.received;
        format!(
            r#"{{"mode": "fanout", "members": {}, "senders": {}, "bytes": {}, "burst": {}, "stuck": {}, "deliveries": {deliveries}, "deliveries_per_second": {:.0}, "p50_us": {:.1}, "p99_us": {:.1}, "wire_in": {:.1}, "wire_out": {:.1}, "extensions": {:?}, {}}}"#,
            load.members.len(),
            load.senders,
            args.bytes,
            load.burst,
            args.stuck,
            deliveries as f64 / costs.seconds,
            load.latencies.quantile(0.5),
            load.latencies.quantile(0.99),
            load.messages.cycle_len() as f64 / load.messages.count() as f64,
            (self.bytes - before.bytes) as f64 / deliveries.max(1) as f64,
            load.extensions,
            costs.json("delivery", deliveries),
        )
    }
}
